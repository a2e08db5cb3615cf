//! The door: who comes in, who does not, what each side is told, and what a stranger can make the server do.
#![allow(clippy::unwrap_used)]

mod authority;
mod scripted;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use authority::Authority;
use medevo_rpc::{
    CallError, CertificateError, Client, ClientSecurity, Credentials, Door, Limits, Refusal,
    Security, ServerSecurity, codec, serve_within, service::CoordinatorRequest,
};
use scripted::{Keeper, Scripted, TOKEN, tag};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Nothing here may take as long as this: it would be a wait for somebody who never comes.
const PROMPT: Duration = Duration::from_secs(4);

struct Server {
    address: SocketAddr,
    keeper: Keeper,
    service: Scripted,
}

impl Server {
    async fn start(security: ServerSecurity, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (keeper, service) = (Keeper::default(), Scripted::default());
        let door = Door::new(security, Arc::new(keeper.clone()));
        tokio::spawn(serve_within(listener, service.clone(), door, limits));
        Self { address, keeper, service }
    }

    fn client(&self, security: ClientSecurity) -> Client {
        Client::new(self.address.to_string(), Credentials { token: TOKEN.into(), security })
    }

    /// The sentence with which a client is turned away, at once, and what the operator hears.
    async fn turns_away(&self, credentials: Credentials) -> (String, Refusal) {
        let start = Instant::now();
        let client = Client::new(self.address.to_string(), credentials);
        let error = client.next(&tag(), PATIENCE).await.unwrap_err();
        assert!(matches!(error, CallError::TurnedAway { .. }), "{error:?}");
        assert!(start.elapsed() < PROMPT, "took {:?}", start.elapsed());
        (error.to_string(), self.refusal().await)
    }

    /// The next refusal that the operator hears of.
    async fn refusal(&self) -> Refusal {
        let heard = async {
            loop {
                if let Some(refusal) = self.keeper.refusals.lock().unwrap().pop() {
                    return refusal;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, heard).await.expect("the operator hears of it")
    }

    /// That a worker with the right things is let in and answered.
    async fn serves(&self, security: ClientSecurity) {
        assert!(self.client(security).next(&tag(), PATIENCE).await.unwrap().is_ok());
    }
}

fn coordinator(dir: &Path) -> ServerSecurity {
    Security::of_coordinator(Some(dir)).unwrap()
}

fn worker(dir: &Path) -> ClientSecurity {
    Security::of_worker(Some(dir)).unwrap()
}

fn with_token(security: ClientSecurity) -> Credentials {
    Credentials { token: TOKEN.into(), security }
}

#[tokio::test]
async fn right_certificates_and_the_right_token_are_let_in_under_any_address() {
    let run = Authority::new("run").directory();
    let server = Server::start(coordinator(run.path()), Limits::default()).await;
    server.serves(worker(run.path())).await;
    let by_name = format!("localhost:{}", server.address.port());
    let client = Client::new(by_name, with_token(worker(run.path())));
    assert!(client.next(&tag(), PATIENCE).await.unwrap().is_ok());
    let (said, why) = server
        .turns_away(Credentials { token: "a guess".into(), security: worker(run.path()) })
        .await;
    assert_eq!(why, Refusal::WrongToken, "certificates do not replace the token");
    assert!(said.contains("MEDEVO_TOKEN") && !said.contains("guess"), "{said}");
}

#[tokio::test]
async fn a_worker_without_a_certificate_of_this_run_is_turned_away_with_a_reason_for_the_operator()
{
    let run = Authority::new("run");
    let (ours, theirs) = (run.directory(), Authority::new("other").directory());
    let server = Server::start(coordinator(ours.path()), Limits::default()).await;

    let (_, why) = server.turns_away(with_token(authority::without_certificate(ours.path()))).await;
    assert_eq!(why, Refusal::NoCertificate);
    assert!(why.to_string().contains("--certificates"), "{why}");

    // It trusts the right CA, but shows another's certificate.
    std::fs::copy(ours.path().join("ca.pem"), theirs.path().join("ca.pem")).unwrap();
    let (said, why) = server.turns_away(with_token(worker(theirs.path()))).await;
    assert!(matches!(why, Refusal::ForeignCertificate(_)), "{why:?}");
    assert!(why.to_string().contains("worker.pem"), "{why}");
    assert!(said.contains("certs init"), "{said}");

    let expired = run.expired_worker();
    let (said, why) = server.turns_away(with_token(expired)).await;
    assert_eq!(why, Refusal::ExpiredCertificate);
    assert!(said.contains("certs init"), "{said}");
    server.serves(worker(ours.path())).await;
    assert_eq!(server.service.asked.load(SeqCst), 1, "nobody else has reached the service");
}

#[tokio::test]
async fn a_worker_does_not_talk_to_a_coordinator_of_another_ca_or_to_a_worker_that_poses_as_one() {
    let (ours, theirs) = (Authority::new("run").directory(), Authority::new("other").directory());
    let server = Server::start(coordinator(theirs.path()), Limits::default()).await;
    let (said, why) = server.turns_away(with_token(worker(ours.path()))).await;
    assert!(said.contains("certs init"), "{said}");
    assert!(matches!(why, Refusal::Distrusts(_)), "{why:?}");
    assert!(why.to_string().contains("ca.pem"), "{why}");

    let posing = ours.path();
    for (from, to) in [("worker.pem", "coordinator.pem"), ("worker.key", "coordinator.key")] {
        std::fs::copy(posing.join(from), posing.join(to)).unwrap();
    }
    let server = Server::start(coordinator(posing), Limits::default()).await;
    let (said, _) = server.turns_away(with_token(worker(posing))).await;
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(server.service.asked.load(SeqCst), 0);
}

#[tokio::test]
async fn plain_and_tls_that_meet_say_so_on_both_sides_at_once() {
    let run = Authority::new("run").directory();
    let server = Server::start(coordinator(run.path()), Limits::default()).await;
    let (said, why) = server.turns_away(Credentials::plain(TOKEN)).await;
    assert!(said.contains("--certificates"), "{said}");
    assert_eq!(why, Refusal::SpeaksPlain);

    let server = Server::start(Security::Plain, Limits::default()).await;
    let (said, why) = server.turns_away(with_token(worker(run.path()))).await;
    assert!(said.contains("--certificates"), "{said}");
    assert_eq!(why, Refusal::SpeaksTls);
    assert!(why.to_string().contains("cluster.certificates"), "{why}");
}

#[tokio::test]
async fn who_says_nothing_is_dropped_at_the_deadline_while_others_are_served() {
    let run = Authority::new("run").directory();
    let limits = Limits { greeting: Duration::from_millis(300), ..Limits::default() };
    for (server, client) in
        [(Security::Plain, Security::Plain), (coordinator(run.path()), worker(run.path()))]
    {
        let server = Server::start(server, limits).await;
        let mut silent = TcpStream::connect(server.address).await.unwrap();
        server.serves(client).await;
        let end = timeout(PROMPT, silent.read(&mut [0; 8])).await.expect("dropped");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        assert_eq!(server.refusal().await, Refusal::Silent);
    }
}

#[tokio::test]
async fn so_many_may_wait_at_the_door_and_no_more() {
    let limits = Limits { waiting: 2, greeting: PATIENCE, ..Limits::default() };
    let server = Server::start(Security::Plain, limits).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let end = timeout(PROMPT, third.read(&mut [0; 8])).await.expect("closed at once");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(server.refusal().await, Refusal::Crowded);
    drop(held);
    server.serves(Security::Plain).await;
}

#[tokio::test]
async fn a_stranger_reaches_neither_the_decoder_nor_the_service() {
    let server = Server::start(Security::Plain, Limits::default()).await;
    let call = request(Duration::from_secs(5));
    let huge = [&[0x7f; 4][..], &call].concat();
    for words in [call, b"GET / HTTP/1.1\r\n\r\n".to_vec(), huge, greeting(0xffff, b"x")] {
        let mut stranger = TcpStream::connect(server.address).await.unwrap();
        stranger.write_all(&words).await.unwrap();
        let mut answer = Vec::new();
        timeout(PROMPT, stranger.read_to_end(&mut answer)).await.expect("parted with").unwrap();
        assert_eq!(answer, b"-----", "little is said to strangers");
        assert_eq!(server.refusal().await, Refusal::NotAWorker);
    }
    assert_eq!(server.service.asked.load(SeqCst), 0);
}

#[tokio::test]
async fn every_new_connection_shows_the_token_again() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(place.to_string(), Credentials::plain(TOKEN));
    for _ in 0..2 {
        let listener = TcpListener::bind(place).await.unwrap();
        let door = Door::new(Security::Plain, Arc::new(Keeper::default()));
        let server =
            tokio::spawn(serve_within(listener, Scripted::default(), door, Limits::default()));
        assert!(client.next(&tag(), PATIENCE).await.unwrap().is_ok());
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
    }
}

/// tarpc adds a deadline from the wire to the present, and sets a timer: both panic when it lies far
/// ahead. All connections share one future, so that would end the coordinator.
#[tokio::test]
async fn an_absurd_deadline_costs_its_own_connection_only() {
    let server = Server::start(Security::Plain, Limits::default()).await;
    for deadline in [Duration::MAX, Duration::from_secs(100 * 365 * 24 * 60 * 60)] {
        let mut odd = TcpStream::connect(server.address).await.unwrap();
        odd.write_all(&greeting(TOKEN.len() as u16, TOKEN.as_bytes())).await.unwrap();
        assert_eq!(odd.read_u8().await.unwrap(), b'+');
        odd.write_all(&request(deadline)).await.unwrap();
        let end = timeout(PROMPT, odd.read(&mut [0; 8])).await.expect("closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    server.serves(Security::Plain).await;
    assert_eq!(server.service.asked.load(SeqCst), 1);
}

#[test]
fn certificates_that_are_missing_or_out_of_date_are_named_at_start() {
    let empty = tempfile::tempdir().unwrap();
    let said = Security::of_worker(Some(empty.path())).unwrap_err().to_string();
    assert!(said.contains("ca.pem") && said.contains("certs init"), "{said}");
    let old = Authority::new("run").expired_directory();
    let error = Security::of_coordinator(Some(old.path())).unwrap_err();
    assert!(matches!(error, CertificateError::Expired { days: 1.., .. }), "{error:?}");
    assert!(error.to_string().contains("certs init"), "{error}");
}

/// A greeting that says its token is `length` long.
fn greeting(length: u16, token: &[u8]) -> Vec<u8> {
    [b"medevo\0\x01", &length.to_be_bytes()[..], token].concat()
}

/// A call as it stands on the wire, frame and all.
fn request(deadline: Duration) -> Vec<u8> {
    let trace = tarpc::context::current().trace_context;
    let body = CoordinatorRequest::Heartbeat { from: tag() };
    let message = codec::encode(&(0_u32, (deadline, trace), 1_u64, body)).unwrap();
    [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
}
