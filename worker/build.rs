//! Lets binaries and tests find libtorch, and the NCCL beside it, where the build found them, with nothing exported.
fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys is a direct dependency");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    let nccl = std::env::var("DEP_MEDEVO_COLLECTIVE_NCCL").expect("a direct dependency");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{nccl}");
}
