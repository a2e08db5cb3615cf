//! What there is of NVIDIA's software and hardware, for `medevo-worker probe`.
#![allow(unsafe_code)]

use std::ffi::c_int;

use cudarc::{
    driver::{result as cuda, sys as cuda_sys},
    nccl::{result as nccl, sys},
};

/// A GPU: name, bytes of memory, bytes that nobody uses.
pub type Found = (String, u64, u64);

/// Version of the NCCL that the loader finds ("2.28.9").
#[must_use]
pub fn nccl_version() -> Option<String> {
    // SAFETY: it only tries to load a library, whose initialisers are NVIDIA's own.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let version = nccl::get_nccl_version().ok()?;
    Some(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
}

/// The newest CUDA that the driver knows ("13.0"); none without a driver.
#[must_use]
pub fn driver_cuda() -> Option<String> {
    let mut version: c_int = 0;
    // SAFETY: the library was found; the call writes one number to where it is told to.
    let asked = unsafe {
        if !cuda_sys::is_culib_present() {
            return None;
        }
        cuda_sys::cuDriverGetVersion(&mut version)
    };
    asked.result().ok()?;
    Some(format!("{}.{}", version / 1000, version % 1000 / 10))
}

/// GPU number `ordinal` of those that the process sees. Asking for its free memory takes some of it, until the
/// process ends.
///
/// # Errors
/// What the driver says.
pub fn gpu(ordinal: usize) -> Result<Found, String> {
    let words = |error: cuda::DriverError| format!("GPU {ordinal}: {error}");
    let number = c_int::try_from(ordinal).map_err(|_| format!("there is no GPU {ordinal}"))?;
    // SAFETY: it only tries to load a library.
    if !unsafe { cuda_sys::is_culib_present() } {
        return Err("NVIDIA's driver is not installed".to_owned());
    }
    cuda::init().map_err(words)?;
    let device = cuda::device::get(number).map_err(words)?;
    let name = cuda::device::get_name(device).map_err(words)?;
    // SAFETY: the device came from `device::get`; the context is torch's own, held by one more owner for the rest of
    // the process.
    let (free, memory) = unsafe {
        let context = cuda::primary_ctx::retain(device).map_err(words)?;
        cuda::ctx::set_current(context).map_err(words)?;
        cuda::mem_get_info().map_err(words)?
    };
    Ok((name, memory as u64, free as u64))
}
