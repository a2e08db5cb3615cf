//! The end of a communicator: once, on a thread of its own, whatever the owner's thread is stuck in.
//!
//! NCCL promises that calls on a non-blocking communicator return at once. Where one does not, only an abort from
//! another thread frees the caller; and an abort that does not return must not take the owner with it.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use super::api::Api;

/// How long the owner waits for a communicator's end.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5000 });

/// How a communicator ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Abort,
    Destroy,
}

/// Holds the handle of a live communicator.
pub(super) struct Undertaker<A: Api> {
    shared: Arc<Shared<A>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<A: Api> {
    api: Arc<A>,
    state: Mutex<State<A::Handle>>,
    changed: Condvar,
}

struct State<H> {
    /// None from the moment when its end begins.
    handle: Option<H>,
    /// The owner is in a call, and this is when it must be back.
    due: Option<Instant>,
    order: Option<End>,
    ended: bool,
}

impl<A: Api> Shared<A> {
    // No code of ours that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State<A::Handle>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an order, or for a call that is overdue, and ends the communicator.
    fn stand_by(&self) {
        let mut state = self.lock();
        let end = loop {
            if let Some(end) = state.order {
                break end;
            }
            let left = state.due.map(|due| due.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => break End::Abort,
                Some(left) => {
                    let woken = self.changed.wait_timeout(state, left);
                    woken.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        };
        let handle = state.handle.take();
        drop(state);
        match (handle, end) {
            (Some(handle), End::Abort) => self.api.abort(handle),
            (Some(handle), End::Destroy) => self.api.destroy(handle),
            (None, _) => {}
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

impl<A: Api> Undertaker<A> {
    /// Takes `handle` into keeping. Without a thread there is no safe end, so then it ends here.
    pub(super) fn of(api: Arc<A>, handle: A::Handle) -> Result<Self, String> {
        let state = State { handle: Some(handle), due: None, order: None, ended: false };
        let shared = Arc::new(Shared { api, state: Mutex::new(state), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        match Builder::new().name("nccl-end".to_owned()).spawn(move || own.stand_by()) {
            Ok(thread) => Ok(Self { shared, thread: Some(thread) }),
            Err(error) => {
                shared.api.abort(handle);
                Err(format!("cannot start the thread that ends the communicator: {error}"))
            }
        }
    }

    /// Makes a call that may stand still: from `due` on the communicator is aborted under it. None when it was, or
    /// has ended before.
    pub(super) fn during<T>(&self, due: Instant, call: impl FnOnce(A::Handle) -> T) -> Option<T> {
        let handle = {
            let mut state = self.shared.lock();
            let handle = state.handle?;
            state.due = Some(due);
            handle
        };
        self.shared.changed.notify_all();
        let outcome = call(handle);
        let mut state = self.shared.lock();
        state.due = None;
        state.handle.is_some().then_some(outcome)
    }

    /// Makes a call that returns at once; the communicator cannot end under it. None when it has.
    pub(super) fn at_once<T>(&self, call: impl FnOnce(A::Handle) -> T) -> Option<T> {
        let state = self.shared.lock();
        state.handle.map(call)
    }

    /// Ends the communicator; whether that was over in time. If not, the thread is left with it.
    pub(super) fn end(mut self, end: End) -> bool {
        let until = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        state.order = Some(end);
        self.shared.changed.notify_all();
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        drop(state);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        true
    }
}

impl<A: Api> Drop for Undertaker<A> {
    /// For owners that panic: no thread may wait for orders for ever.
    fn drop(&mut self) {
        self.shared.lock().order.get_or_insert(End::Abort);
        self.shared.changed.notify_all();
    }
}
