//! Compiles the Gloo shim against the libtorch that torch-sys found, and lets binaries and tests find
//! that libtorch with nothing exported.

use std::path::Path;

fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys is a direct dependency");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rerun-if-changed=shim");

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
