//! A link that can be slow or dead: a TCP relay between a process and the address that it talks to.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// A link to one address. Dropped, it breaks.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    delay_ms: AtomicU64,
    bytes_per_s: AtomicU64,
    dead: AtomicBool,
    over: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// A link to `target`, as fast as the machine.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            delay_ms: AtomicU64::new(0),
            bytes_per_s: AtomicU64::new(u64::MAX),
            dead: AtomicBool::new(false),
            over: AtomicBool::new(false),
            sockets: Mutex::default(),
        });
        let relay = shared.clone();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if relay.over.load(Ordering::Relaxed) {
                    return;
                }
                relay.connect(near);
            }
        });
        Self { address, shared }
    }

    /// Where to reach the target through this link.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on each way takes so long, and no more than so many bytes a second pass.
    pub fn slow(&self, delay: Duration, bytes_per_s: u64) {
        let delay = u64::try_from(delay.as_millis()).expect("a short delay");
        self.shared.delay_ms.store(delay, Ordering::Relaxed);
        self.shared.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// While it is dead, nothing passes and nobody is told, as in a partitioned network.
    pub fn dead(&self, dead: bool) {
        self.shared.dead.store(dead, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for socket in self.shared.sockets.lock().expect("no relay panics").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then leaves.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, near: TcpStream) {
        let Ok(far) = TcpStream::connect(&self.target) else { return };
        let both = [near.try_clone(), far.try_clone()].map(|socket| socket.expect("a handle"));
        self.sockets.lock().expect("no relay panics").extend(both);
        let (near_too, far_too) =
            (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
        for (from, to) in [(near, far), (far_too, near_too)] {
            let shared = self.clone();
            thread::spawn(move || shared.carry(from, to));
        }
    }

    /// Carries one direction until an end closes.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let at_rate = count as f64 / self.bytes_per_s.load(Ordering::Relaxed) as f64;
            let delay = Duration::from_millis(self.delay_ms.load(Ordering::Relaxed));
            thread::sleep(delay + Duration::from_secs_f64(at_rate));
            while self.dead.load(Ordering::Relaxed) && !self.over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
