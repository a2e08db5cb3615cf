//! Lets binaries and tests find libtorch where the build found it, with nothing exported.
fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys is a direct dependency");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
