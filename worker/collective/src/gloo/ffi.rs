//! The one unsafe module: `shim/gloo.h` in Rust, behind a safe [`Group`].
#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use tch::Tensor;

use crate::rendezvous::Rendezvous;

/// How the other side hands bytes over; its sink decides what becomes of them.
type Write = unsafe extern "C" fn(sink: *mut c_void, bytes: *const u8, length: usize);

/// `medevo_store`
#[repr(C)]
struct StoreCalls {
    context: *mut c_void,
    set: unsafe extern "C" fn(
        *mut c_void,
        *const u8,
        usize,
        *const u8,
        usize,
        Write,
        *mut c_void,
    ) -> c_int,
    get: unsafe extern "C" fn(
        *mut c_void,
        *const u8,
        usize,
        i64,
        Write,
        *mut c_void,
        *mut c_void,
    ) -> c_int,
    add: unsafe extern "C" fn(
        *mut c_void,
        *const u8,
        usize,
        i64,
        *mut i64,
        Write,
        *mut c_void,
    ) -> c_int,
    check: unsafe extern "C" fn(
        *mut c_void,
        *const *const u8,
        *const usize,
        usize,
        *mut c_int,
        Write,
        *mut c_void,
    ) -> c_int,
    release: unsafe extern "C" fn(*mut c_void),
}

/// `medevo_gloo`
#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn medevo_gloo_form(
        store: *const StoreCalls,
        rank: c_int,
        world: c_int,
        address: *const c_char,
        timeout_ms: i64,
        write: Write,
        error: *mut c_void,
    ) -> *mut Opaque;
    fn medevo_gloo_drop(group: *mut Opaque);
    fn medevo_gloo_all_reduce_sum(
        group: *mut Opaque,
        tensor: *mut c_void,
        write: Write,
        error: *mut c_void,
    ) -> c_int;
    fn medevo_gloo_broadcast(
        group: *mut Opaque,
        tensor: *mut c_void,
        root: c_int,
        write: Write,
        error: *mut c_void,
    ) -> c_int;
    fn medevo_gloo_all_gather(
        group: *mut Opaque,
        output: *mut c_void,
        input: *mut c_void,
        write: Write,
        error: *mut c_void,
    ) -> c_int;
    fn medevo_gloo_reduce_scatter_sum(
        group: *mut Opaque,
        output: *mut c_void,
        input: *mut c_void,
        write: Write,
        error: *mut c_void,
    ) -> c_int;
    fn medevo_gloo_barrier(group: *mut Opaque, write: Write, error: *mut c_void) -> c_int;
}

/// The rendezvous and the prefix of a group's keys; lives as long as the C++ store does.
struct StoreContext {
    rendezvous: Arc<dyn Rendezvous>,
    prefix: String,
}

impl StoreContext {
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }
}

/// A `ProcessGroupGloo`. All its calls block; errors are libtorch's messages.
pub(super) struct Group(NonNull<Opaque>);

// SAFETY: the group may be used from any thread, one at a time, which `&mut self` sees to; c10d asks
// for no more than that the calls come in the same order on every rank.
unsafe impl Send for Group {}

impl Group {
    pub(super) fn form(
        rendezvous: Arc<dyn Rendezvous>,
        prefix: &str,
        rank: c_int,
        world: c_int,
        address: &str,
        timeout: Duration,
    ) -> Result<Self, String> {
        let address = CString::new(address)
            .map_err(|_| format!("the address {address:?} holds a zero byte"))?;
        let context = Box::new(StoreContext { rendezvous, prefix: prefix.to_owned() });
        let calls = StoreCalls {
            context: Box::into_raw(context).cast(),
            set: store_set,
            get: store_get,
            add: store_add,
            check: store_check,
            release: store_release,
        };
        let millis = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let mut error = Vec::new();
        // SAFETY: all pointers are valid for the call; `calls` is copied, and its context passes to
        // the C++ store, whose destructor gives it to `store_release` once.
        let group = unsafe {
            medevo_gloo_form(
                &raw const calls,
                rank,
                world,
                address.as_ptr(),
                millis,
                write_vec,
                sink(&mut error),
            )
        };
        NonNull::new(group).map(Self).ok_or_else(|| message(&error))
    }

    pub(super) fn all_reduce_sum(&mut self, t: &mut Tensor) -> Result<(), String> {
        let mut error = Vec::new();
        // SAFETY: `t` is a live at::Tensor for the whole call, which returns when Gloo is done with it.
        let status = unsafe {
            medevo_gloo_all_reduce_sum(
                self.0.as_ptr(),
                t.as_ptr().cast_mut().cast(),
                write_vec,
                sink(&mut error),
            )
        };
        outcome(status, &error)
    }

    pub(super) fn broadcast(&mut self, t: &mut Tensor, root: c_int) -> Result<(), String> {
        let mut error = Vec::new();
        // SAFETY: as in `all_reduce_sum`.
        let status = unsafe {
            medevo_gloo_broadcast(
                self.0.as_ptr(),
                t.as_ptr().cast_mut().cast(),
                root,
                write_vec,
                sink(&mut error),
            )
        };
        outcome(status, &error)
    }

    pub(super) fn all_gather(&mut self, output: &mut Tensor, input: &Tensor) -> Result<(), String> {
        let mut error = Vec::new();
        // SAFETY: as in `all_reduce_sum`; Gloo only reads `input`.
        let status = unsafe {
            medevo_gloo_all_gather(
                self.0.as_ptr(),
                output.as_ptr().cast_mut().cast(),
                input.as_ptr().cast_mut().cast(),
                write_vec,
                sink(&mut error),
            )
        };
        outcome(status, &error)
    }

    pub(super) fn reduce_scatter_sum(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), String> {
        let mut error = Vec::new();
        // SAFETY: as in `all_gather`.
        let status = unsafe {
            medevo_gloo_reduce_scatter_sum(
                self.0.as_ptr(),
                output.as_ptr().cast_mut().cast(),
                input.as_ptr().cast_mut().cast(),
                write_vec,
                sink(&mut error),
            )
        };
        outcome(status, &error)
    }

    pub(super) fn barrier(&mut self) -> Result<(), String> {
        let mut error = Vec::new();
        // SAFETY: the group is live.
        let status = unsafe { medevo_gloo_barrier(self.0.as_ptr(), write_vec, sink(&mut error)) };
        outcome(status, &error)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `medevo_gloo_form` and is given back once.
        unsafe { medevo_gloo_drop(self.0.as_ptr()) }
    }
}

fn sink(bytes: &mut Vec<u8>) -> *mut c_void {
    std::ptr::from_mut(bytes).cast()
}

fn message(error: &[u8]) -> String {
    String::from_utf8_lossy(error).trim().to_owned()
}

fn outcome(status: c_int, error: &[u8]) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(message(error)) }
}

/// The [`Write`] of this side: the sink is a `Vec<u8>`.
unsafe extern "C" fn write_vec(to: *mut c_void, bytes: *const u8, length: usize) {
    // SAFETY: `to` comes from `sink` and lives through the call that it was given to; the other side
    // gives `length` readable bytes.
    unsafe {
        let target = &mut *to.cast::<Vec<u8>>();
        target.clear();
        target.extend_from_slice(slice(bytes, length));
    }
}

/// A slice from C++, whose empty containers may have a null pointer.
///
/// # Safety
/// `bytes` is null with length 0, or points to `length` bytes that live for `'a`.
unsafe fn slice<'a>(bytes: *const u8, length: usize) -> &'a [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(bytes, length) }
}

/// Runs a callback's body: an error or a panic becomes a message on the other side.
fn answer<T>(
    write: Write,
    error: *mut c_void,
    body: impl FnOnce() -> anyhow::Result<T>,
) -> Option<T> {
    let text = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(e)) => format!("{e:#}"),
        Err(_) => "the rendezvous panicked".to_owned(),
    };
    // SAFETY: `write` and `error` belong together; the C++ side gives both to every callback.
    unsafe { write(error, text.as_ptr(), text.len()) };
    None
}

/// # Safety
/// `context` is the one that [`Group::form`] made and has not been released.
unsafe fn context_at<'a>(context: *mut c_void) -> &'a StoreContext {
    // SAFETY: the caller's promise; shared access only.
    unsafe { &*context.cast::<StoreContext>() }
}

/// # Safety
/// As for [`slice`].
unsafe fn name_at(key: *const u8, length: usize) -> String {
    // SAFETY: the caller's promise.
    String::from_utf8_lossy(unsafe { slice(key, length) }).into_owned()
}

unsafe extern "C" fn store_set(
    context: *mut c_void,
    key: *const u8,
    key_length: usize,
    value: *const u8,
    value_length: usize,
    write: Write,
    error: *mut c_void,
) -> c_int {
    // SAFETY: the C++ store passes its own context, key and value, live for this call.
    let (store, name, value) =
        unsafe { (context_at(context), name_at(key, key_length), slice(value, value_length)) };
    status(answer(write, error, || store.rendezvous.set(&store.key(&name), value)))
}

unsafe extern "C" fn store_get(
    context: *mut c_void,
    key: *const u8,
    key_length: usize,
    timeout_ms: i64,
    write: Write,
    value: *mut c_void,
    error: *mut c_void,
) -> c_int {
    // SAFETY: as in `store_set`.
    let (store, name) = unsafe { (context_at(context), name_at(key, key_length)) };
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    status(answer(write, error, || {
        let bytes = store.rendezvous.get(&store.key(&name), Instant::now() + timeout)?;
        // SAFETY: `value` is a sink of the same kind as `error`.
        unsafe { write(value, bytes.as_ptr(), bytes.len()) };
        Ok(())
    }))
}

unsafe extern "C" fn store_add(
    context: *mut c_void,
    key: *const u8,
    key_length: usize,
    delta: i64,
    result: *mut i64,
    write: Write,
    error: *mut c_void,
) -> c_int {
    // SAFETY: as in `store_set`.
    let (store, name) = unsafe { (context_at(context), name_at(key, key_length)) };
    status(answer(write, error, || {
        let new = store.rendezvous.add(&store.key(&name), delta)?;
        // SAFETY: `result` points to a live int64_t of the C++ caller.
        unsafe { result.write(new) };
        Ok(())
    }))
}

unsafe extern "C" fn store_check(
    context: *mut c_void,
    keys: *const *const u8,
    lengths: *const usize,
    count: usize,
    result: *mut c_int,
    write: Write,
    error: *mut c_void,
) -> c_int {
    // SAFETY: as in `store_set`; `keys` and `lengths` hold `count` entries each.
    let (store, names) = unsafe {
        let names: Vec<String> =
            (0..count).map(|i| name_at(*keys.add(i), *lengths.add(i))).collect();
        (context_at(context), names)
    };
    status(answer(write, error, || {
        let full: Vec<String> = names.iter().map(|name| store.key(name)).collect();
        let full: Vec<&str> = full.iter().map(String::as_str).collect();
        let all = store.rendezvous.check(&full)?;
        // SAFETY: `result` points to a live int of the C++ caller.
        unsafe { result.write(c_int::from(all)) };
        Ok(())
    }))
}

unsafe extern "C" fn store_release(context: *mut c_void) {
    // SAFETY: `context` is the box from `Group::form`; the C++ store's destructor runs once.
    let context = unsafe { Box::from_raw(context.cast::<StoreContext>()) };
    // A panic in somebody's Drop must not cross into C++.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(context)));
}

fn status(done: Option<()>) -> c_int {
    c_int::from(done.is_none())
}
