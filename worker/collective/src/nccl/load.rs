//! libtorch's GPU half, which tch does not link.
#![allow(unsafe_code)]

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Loads `libtorch_cuda.so` for the rest of the process, so that tch sees GPUs. To be called before anything asks
/// libtorch for one: done later, they stay invisible.
///
/// # Errors
/// The loader's sentence. On a machine that was set up for CPUs, libraries that it needs are missing.
pub fn load_libtorch_cuda() -> Result<(), String> {
    // SAFETY: its initialisers register operators with the libtorch_cpu that is loaded already, from the same folder;
    // they are written to be run by a load at any time. It is never unloaded.
    match unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        // With its source, which names the library that is missing.
        Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
    }
}
