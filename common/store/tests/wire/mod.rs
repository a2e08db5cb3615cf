//! A wire between a store and etcd that can lose an answer, or hold a request back and bring it late.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// The wire. Its threads end with the test's process.
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    trick: Option<(Trick, Vec<u8>)>,
    /// New connections wait while this is set.
    closed: bool,
    /// etcd's sides of connections whose callers are cut off.
    half_open: Vec<TcpStream>,
    /// A held request, and where it goes.
    held: Option<(TcpStream, Vec<u8>)>,
    /// A request was refused.
    answered: bool,
}

#[derive(Clone, Copy)]
enum Trick {
    Lose,
    Hold,
}

impl Wire {
    /// A wire to `endpoint` (`http://host:port`).
    pub fn to(endpoint: &str) -> Self {
        let target: SocketAddr =
            endpoint.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let shared = Arc::new(Shared::default());
        let wire = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let open = wire.lock();
                drop(wire.changed.wait_while(open, |state| state.closed).expect("no panic"));
                let server = TcpStream::connect(target).expect("etcd listens");
                wire.join(client, server);
            }
        });
        Self { address, shared }
    }

    /// What to connect to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request that holds `needle` reaches etcd, but the caller's connection breaks before it hears
    /// of the answer; no other connection is made until [`Wire::open`].
    pub fn lose_the_answer_to(&self, needle: &str) {
        self.shared.lock().trick = Some((Trick::Lose, needle.into()));
    }

    /// Lets connections through again, once the answer is lost.
    pub fn open(&self) {
        let limit = Duration::from_secs(30);
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, limit, |state| !state.closed);
        let (mut state, timed) = waited.expect("no panic");
        assert!(!timed.timed_out(), "a request came by");
        state.closed = false;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The next request that holds `needle` stays in the wire, and the caller's connection breaks.
    pub fn hold_the_request_with(&self, needle: &str) {
        self.shared.lock().trick = Some((Trick::Hold, needle.into()));
    }

    /// Brings the held request to etcd and waits until it is refused.
    pub fn deliver(&self) {
        let mut state = self.shared.lock();
        let (mut server, request) = state.held.take().expect("a request is held");
        state.answered = false;
        server.write_all(&request).expect("etcd still listens");
        let limit = Duration::from_secs(30);
        let waited = self.shared.changed.wait_timeout_while(state, limit, |state| !state.answered);
        assert!(!waited.expect("no panic").1.timed_out(), "etcd refused the late request");
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the wire panics")
    }

    /// Carries one connection, each direction by a thread.
    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let (up, down) = (self.clone(), self.clone());
        let (client_too, server_too) =
            (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
        thread::spawn(move || up.requests(client, server));
        thread::spawn(move || down.answers(server_too, client_too));
    }

    fn requests(&self, mut client: TcpStream, mut server: TcpStream) {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(count) = client.read(&mut chunk) {
            if count == 0 {
                break;
            }
            let bytes = &chunk[..count];
            let mut state = self.lock();
            let hit = state.trick.as_ref().is_some_and(|(_, needle)| {
                bytes.windows(needle.len()).any(|window| window == needle)
            });
            match hit.then(|| state.trick.take()).flatten() {
                Some((Trick::Hold, _)) => {
                    state.held = Some((server, bytes.to_vec()));
                    let _ = client.shutdown(Shutdown::Both);
                    return;
                }
                Some((Trick::Lose, _)) => {
                    // etcd's side stays open: what is on its way is carried out.
                    state.closed = true;
                    self.changed.notify_all();
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = server.write_all(bytes);
                    state.half_open.push(server);
                    return;
                }
                None => {}
            }
            drop(state);
            if server.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }

    fn answers(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(count) = server.read(&mut chunk) {
            if count == 0 {
                break;
            }
            // The refusal of a transaction brings the counter's key with it.
            if chunk[..count].windows(8).any(|window| window == b".writes/") {
                self.lock().answered = true;
                self.changed.notify_all();
            }
            // A caller that has left hears nothing, but etcd is heard out.
            let _ = client.write_all(&chunk[..count]);
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}
