//! Compiles the Gloo shim against the libtorch that torch-sys found, and lets binaries and tests find
//! that libtorch, and the NCCL beside it, with nothing exported.

use std::path::{Path, PathBuf};

fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys is a direct dependency");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rerun-if-changed=shim");
    let nccl = link_nccl(Path::new(&lib));
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", nccl.display());
    println!("cargo:nccl={}", nccl.display());

    let include = Path::new(&lib).parent().expect("a lib folder lies in something").join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("shim/gloo.cpp")
        .include("shim/stub")
        // libtorch's headers as system headers: their warnings are not ours.
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        .define("USE_C10D_GLOO", None)
        // torch 2.11's Linux wheels are built with the new ABI of std::string.
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .warnings(true)
        // What a stub header declares and nobody defines must not be asked for in unoptimised builds.
        .opt_level(1)
        .compile("medevo_gloo");
}

/// A folder with `libnccl.so`, the name that cudarc asks the loader for; PyPI's package has `libnccl.so.2` alone. The
/// link dangles where torch was installed for CPUs, and needs no new build once NCCL is installed too.
fn link_nccl(lib: &Path) -> PathBuf {
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let lib = lib.canonicalize().expect("torch-sys has linked against this folder");
    let packages = lib.ancestors().nth(2).expect("torch/lib lies in a folder of packages");
    let link = out.join("libnccl.so");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(packages.join("nvidia/nccl/lib/libnccl.so.2"), link)
        .expect("OUT_DIR can be written");
    out
}
