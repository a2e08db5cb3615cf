//! The one unsafe module of the NCCL backend: cudarc's raw bindings behind [`Api`].
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_int},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
};

use cudarc::{
    driver::{result as cuda, sys as cuda_sys},
    nccl::{
        result::{self as nccl, NcclError},
        sys,
    },
};
use tch::{Device, Kind, Tensor};

use super::api::{Api, Operation};

/// `NCCL_CONFIG_INITIALIZER` of NCCL 2.28.9, which bindings do not carry over.
const CONFIG_MAGIC: u32 = 0xcafe_beef;
const CONFIG_VERSION: u32 = OLDEST.cast_unsigned();
/// Torch 2.11's; an older one could not read the config.
const OLDEST: c_int = 22_809;
/// "Not set" in a config.
const UNSET: c_int = c_int::MIN;

/// NCCL and CUDA on one GPU.
pub struct Cuda {
    ordinal: usize,
    device: cuda_sys::CUdevice,
    context: cuda_sys::CUcontext,
    /// Null: the legacy default stream, which is torch's current stream wherever nobody has changed that; tch cannot.
    stream: cuda_sys::CUstream,
    /// Where NCCL writes handles. A thread of its own may do so after the call that asked, so each place lives as long
    /// as this value, which whoever ends the communicator holds.
    places: Mutex<Vec<Arc<AtomicPtr<sys::ncclComm>>>>,
}

// SAFETY: context and stream are handles that CUDA lets any thread use, and do not change after `open`.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

/// A communicator's handle.
#[derive(Clone, Copy)]
pub struct Handle(sys::ncclComm_t);

// SAFETY: NCCL lets any thread use a communicator, and an abort may come beside another call.
unsafe impl Send for Handle {}

/// A CUDA event, destroyed when dropped.
pub struct Event(cuda_sys::CUevent);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event came from `record` and is destroyed once; CUDA keeps what is still pending.
        let _ = unsafe { cuda::event::destroy(self.0) };
    }
}

impl Cuda {
    /// GPU number `ordinal` of those that the process sees.
    pub(super) fn open(ordinal: usize) -> Result<Self, String> {
        // SAFETY: both only try to load a library, whose initialisers are NVIDIA's own.
        let (driver, library) = unsafe { (cuda_sys::is_culib_present(), sys::is_culib_present()) };
        if !driver {
            return Err("libcuda.so is not found: NVIDIA's driver is not installed on this machine; install it, or \
                        use --device cpu"
                .to_owned());
        }
        if !library {
            return Err("libnccl.so is not found: it comes with torch for GPUs; run `ops/setup --gpu` and build again, \
                        or use --device cpu"
                .to_owned());
        }
        let version = nccl::get_nccl_version().map_err(|error| words(&error))?;
        if version < OLDEST {
            return Err(format!(
                "NCCL {version} is found and torch 2.11 brings {OLDEST}: another libnccl.so is in the loader's way; run \
                 `ops/setup --gpu`, and leave NCCL out of LD_LIBRARY_PATH"
            ));
        }
        let number = c_int::try_from(ordinal).map_err(|_| format!("there is no GPU {ordinal}"))?;
        let opened = cuda::init().and_then(|()| cuda::device::get(number));
        let device = opened.map_err(|error| format!("GPU {ordinal} cannot be opened: {error}"))?;
        // SAFETY: the device came from `device::get`. The context is torch's own, held by one more owner.
        let context = unsafe { cuda::primary_ctx::retain(device) }
            .map_err(|error| format!("GPU {ordinal} gives no context: {error}"))?;
        Ok(Self {
            ordinal,
            device,
            context,
            stream: cuda::stream::null(),
            places: Mutex::default(),
        })
    }

    /// As [`open`](Self::open), with a stream of its own that does not wait for torch's.
    pub(super) fn open_out_of_order(ordinal: usize) -> Result<Self, String> {
        let mut this = Self::open(ordinal)?;
        this.bind()?;
        this.stream = cuda::stream::create(cuda::stream::StreamKind::NonBlocking)
            .map_err(|error| format!("no stream: {error}"))?;
        Ok(this)
    }

    /// Makes the GPU the calling thread's current one: NCCL's calls and events go by that.
    fn bind(&self) -> Result<(), String> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { cuda::ctx::set_current(self.context) }
            .map_err(|error| format!("the GPU cannot be made current: {error}"))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // SAFETY: the stream is this value's own and the context was retained once; both are let go once.
        unsafe {
            if !self.stream.is_null() {
                let _ = cuda::stream::destroy(self.stream);
            }
            let _ = cuda::primary_ctx::release(self.device);
        }
    }
}

/// NCCL's words for a result, and for the last thing that went wrong.
fn words(error: &NcclError) -> String {
    let text = |pointer: *const std::ffi::c_char| {
        if pointer.is_null() {
            return String::new();
        }
        // SAFETY: NCCL returns strings of its own that end with a zero and stay; not null, as just checked.
        unsafe { CStr::from_ptr(pointer) }.to_string_lossy().trim().to_owned()
    };
    // SAFETY: any result code has a string; the last error is asked for without a communicator.
    let (what, last) =
        unsafe { (sys::ncclGetErrorString(error.0), sys::ncclGetLastError(std::ptr::null_mut())) };
    match (text(what), text(last)) {
        (what, last) if last.is_empty() => format!("NCCL: {what}"),
        (what, last) => format!("NCCL: {what} ({last})"),
    }
}

fn number_type(kind: Kind) -> Option<sys::ncclDataType_t> {
    match kind {
        Kind::Float => Some(sys::ncclDataType_t::ncclFloat32),
        Kind::Double => Some(sys::ncclDataType_t::ncclFloat64),
        Kind::BFloat16 => Some(sys::ncclDataType_t::ncclBfloat16),
        Kind::Int64 => Some(sys::ncclDataType_t::ncclInt64),
        _ => None,
    }
}

impl Api for Cuda {
    type Handle = Handle;
    type Event = Event;

    fn device(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    fn token(&self) -> Tensor {
        Tensor::zeros([1], (Kind::Float, Device::Cuda(self.ordinal)))
    }

    fn check(&self, tensor: &Tensor) -> Result<(), String> {
        let (device, kind) = (tensor.device(), tensor.kind());
        if device != Device::Cuda(self.ordinal) {
            return Err(format!(
                "NCCL exchanges tensors on {}, and this one is on {device:?}",
                self.device()
            ));
        }
        if number_type(kind).is_none() {
            return Err(format!(
                "a tensor of {kind:?} is not exchanged; Float, Double, BFloat16 and Int64 are"
            ));
        }
        if !tensor.is_contiguous() {
            return Err("the tensor is a strided view; make it contiguous".to_owned());
        }
        Ok(())
    }

    fn unique_id(&self) -> Result<Vec<u8>, String> {
        self.bind()?;
        let id = nccl::get_uniqueid().map_err(|error| words(&error))?;
        Ok(id.internal.iter().map(|byte| byte.cast_unsigned()).collect())
    }

    fn begin(&self, id: &[u8], rank: usize, world: usize) -> Result<Handle, String> {
        self.bind()?;
        let mut unique = sys::ncclUniqueId { internal: [0; 128] };
        if id.len() != unique.internal.len() {
            let length = id.len();
            return Err(format!("NCCL's id has 128 bytes, and the rendezvous holds {length}"));
        }
        for (to, from) in unique.internal.iter_mut().zip(id) {
            *to = from.cast_signed();
        }
        let count = |n: usize| c_int::try_from(n).map_err(|_| format!("{n} ranks are too many"));
        let mut config = sys::ncclConfig_t {
            size: size_of::<sys::ncclConfig_t>(),
            magic: CONFIG_MAGIC,
            version: CONFIG_VERSION,
            blocking: 0,
            cgaClusterSize: UNSET,
            minCTAs: UNSET,
            maxCTAs: UNSET,
            netName: std::ptr::null(),
            splitShare: UNSET,
            trafficClass: UNSET,
            commName: std::ptr::null(),
            collnetEnable: UNSET,
            CTAPolicy: UNSET,
            shrinkShare: UNSET,
            nvlsCTAs: UNSET,
            nChannelsPerNetPeer: UNSET,
            nvlinkCentricSched: UNSET,
        };
        let place = Arc::new(AtomicPtr::default());
        self.places.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&place));
        // SAFETY: NCCL copies the config within the call; the place for the handle outlives the communicator.
        unsafe {
            nccl::comm_init_rank_config(
                place.as_ptr(),
                count(world)?,
                unique,
                count(rank)?,
                &raw mut config,
            )
        }
        .map_err(|error| words(&error))?;
        // There before the call returns: the communicator has to be reached to be aborted.
        let comm = place.load(Ordering::Acquire);
        if comm.is_null() {
            return Err("NCCL began a communicator and gave no handle of it".to_owned());
        }
        Ok(Handle(comm))
    }

    fn ready(&self, handle: Handle) -> Result<bool, String> {
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the handle is live (see `Api`), and `state` through the call.
        let asked = unsafe { sys::ncclCommGetAsyncError(handle.0, &raw mut state) };
        asked.result().map_err(|error| words(&error))?;
        match state {
            sys::ncclResult_t::ncclSuccess => Ok(true),
            sys::ncclResult_t::ncclInProgress => Ok(false),
            error => Err(words(&NcclError(error))),
        }
    }

    fn enqueue(
        &self,
        handle: Handle,
        operation: Operation,
        from: &Tensor,
        to: &Tensor,
    ) -> Result<(), String> {
        self.bind()?;
        let number = number_type(from.kind()).ok_or("the tensors were not checked")?;
        let (send, receive) = (from.data_ptr(), to.data_ptr());
        let (comm, stream) = (handle.0, self.stream.cast());
        let sum = sys::ncclRedOp_t::ncclSum;
        // SAFETY: the handle is live. Both tensors passed `check`: dense memory of this GPU, of the counts that the
        // caller compared. Should they be freed before the device is done, torch's allocator gives their memory to
        // nobody but later work of the same stream.
        unsafe {
            match operation {
                Operation::AllReduceSum => {
                    nccl::all_reduce(send, receive, from.numel(), number, sum, comm, stream)
                }
                Operation::Broadcast(root) => {
                    let root = c_int::try_from(root).map_err(|_| "no such root".to_owned())?;
                    nccl::broadcast(send, receive, from.numel(), number, root, comm, stream)
                }
                Operation::ReduceScatterSum => {
                    nccl::reduce_scatter(send, receive, to.numel(), number, sum, comm, stream)
                }
                Operation::AllGather => {
                    nccl::all_gather(send, receive, from.numel(), number, comm, stream)
                }
            }
        }
        .map(drop)
        .map_err(|error| words(&error))
    }

    fn record(&self) -> Result<Event, String> {
        self.bind()?;
        let flags = cuda_sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let event = cuda::event::create(flags).map(Event).map_err(|error| error.to_string())?;
        // SAFETY: the event was made just now in the current context, which is the stream's too.
        unsafe { cuda::event::record(event.0, self.stream) }.map_err(|error| error.to_string())?;
        Ok(event)
    }

    fn passed(&self, event: &Event) -> Result<bool, String> {
        // SAFETY: the event lives as long as its value.
        match unsafe { cuda::event::query(event.0) } {
            Ok(()) => Ok(true),
            Err(cuda::DriverError(cuda_sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(format!("the GPU reports {error}")),
        }
    }

    fn finalize(&self, handle: Handle) -> Result<(), String> {
        self.bind()?;
        // SAFETY: the handle is live.
        unsafe { nccl::comm_finalize(handle.0) }.map(drop).map_err(|error| words(&error))
    }

    fn destroy(&self, handle: Handle) {
        // SAFETY: the handle is live, and this is its end.
        let outcome = self.bind().and_then(|()| {
            unsafe { nccl::comm_destroy(handle.0) }.map(drop).map_err(|error| words(&error))
        });
        if let Err(error) = outcome {
            tracing::warn!(error, "destroying an NCCL communicator");
        }
    }

    fn abort(&self, handle: Handle) {
        // SAFETY: the handle is live, and this is its end; NCCL lets an abort come beside a call that stands still.
        let outcome = self.bind().and_then(|()| {
            unsafe { nccl::comm_abort(handle.0) }.map(drop).map_err(|error| words(&error))
        });
        if let Err(error) = outcome {
            tracing::warn!(error, "aborting an NCCL communicator");
        }
    }
}
