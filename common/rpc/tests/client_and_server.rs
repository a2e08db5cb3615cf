//! The client against real servers on loopback: what a worker relies on when the line is bad.
#![allow(clippy::unwrap_used)]

mod scripted;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use medevo_rpc::{CallError, Client, Credentials, Door, Limits, Security, serve, serve_within};
use medevo_types::{
    Attempt, Generation, Step, UnitId,
    messages::{Candidate, Directive, Envelope, Group, Rejection, Report},
};
use scripted::{Keeper, Scripted, TOKEN, tag};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(20);

fn door() -> Door {
    Door::new(Security::Plain, Arc::new(Keeper::default()))
}

fn credentials() -> Credentials {
    Credentials::plain(TOKEN)
}

fn envelope(groups: Vec<Group>) -> Envelope {
    Envelope {
        from: tag(),
        generation: Generation(3),
        step: Step(4),
        attempt: Attempt(5),
        body: Report::RolloutDone { unit: UnitId(6), policy: Default::default(), groups },
    }
}

fn group(text: String, feature: Option<Vec<f32>>) -> Group {
    let candidate =
        Candidate { ids: vec![1, 2], text, logprobs: vec![-0.5, -1e-7], finished: true, feature };
    Group { sample: "s".into(), prompt_tokens: 9, candidates: [candidate].into(), entropy: 0.25 }
}

async fn start(service: Scripted) -> (String, tokio::task::JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, tokio::spawn(serve(listener, service, door())))
}

#[tokio::test]
async fn messages_arrive_as_they_were_sent_up_to_tens_of_mebibytes() {
    let service = Scripted::default();
    let (address, _server) = start(service.clone()).await;
    let client = Client::connect(address, credentials(), PATIENCE).await.unwrap();
    assert!(matches!(client.next(&tag(), PATIENCE).await.unwrap(), Ok(Directive::Stop { .. })));
    let large = group("héllo".to_owned(), Some(vec![0.125; 10_000_000]));
    for groups in [vec![], vec![group(String::new(), None), large]] {
        let sent = envelope(groups);
        assert_eq!(client.report(&sent, PATIENCE).await.unwrap(), Err(Rejection::StaleStep));
        assert!(service.last.lock().unwrap().take() == Some(sent), "changed on its way");
    }
}

#[tokio::test]
async fn oversize_fails_at_once_and_the_connection_goes_on() {
    let (address, _server) = start(Scripted::default()).await;
    let client = Client::new(address, credentials());
    let start = Instant::now();
    let large = envelope(vec![group("x".repeat(65 << 20), None)]);
    let error = client.report(&large, PATIENCE).await.unwrap_err();
    assert!(matches!(error, CallError::Unsendable { call: "report", .. }), "{error}");
    assert!(error.to_string().contains("64 MiB"), "{error}");
    assert!(start.elapsed() < PATIENCE / 2);
    assert!(client.next(&tag(), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn nobody_listening_is_an_error_within_the_patience() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let client = Client::new(&free, credentials());
    let start = Instant::now();
    let error = client.next(&tag(), Duration::from_millis(700)).await.unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(error.contains(&free) && error.contains("next"), "{error}");
    assert!(Client::connect(&free, credentials(), Duration::from_millis(100)).await.is_err());
}

#[tokio::test]
async fn server_that_comes_late_or_comes_back_is_found() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(place.to_string(), credentials());
    let from = tag();
    for _ in 0..2 {
        let call = client.next(&from, PATIENCE);
        let late = async {
            // Long enough for the client's first try to fail.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let listener = TcpListener::bind(place).await.unwrap();
            // Wrapped, because the task is to be left running, not awaited.
            Some(tokio::spawn(serve(listener, Scripted::default(), door())))
        };
        let (answer, server) = tokio::join!(call, late);
        assert!(answer.unwrap().is_ok());
        let server = server.unwrap();
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn silent_server_does_not_hold_a_call_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap().to_string(), credentials());
    let start = Instant::now();
    assert!(client.next(&tag(), Duration::from_millis(500)).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn counter_is_never_added_to_twice() {
    let service = Scripted::default();
    let (address, _server) = start(service.clone()).await;
    let client = Client::new(address, credentials());
    assert_eq!(client.rendezvous_add(&tag(), "k", 2, PATIENCE).await.unwrap(), Ok(2));
    service.silent_adds.store(1, SeqCst);
    let short = Duration::from_millis(400);
    assert!(client.rendezvous_add(&tag(), "k", 3, short).await.is_err());
    assert_eq!(service.adds.load(SeqCst), 5);
}

#[tokio::test]
async fn requests_of_one_connection_are_bounded_and_all_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = Scripted::default();
    let limits = Limits { connections: 4, requests_per_connection: 3, ..Limits::default() };
    tokio::spawn(serve_within(listener, service.clone(), door(), limits));
    let client = Arc::new(Client::new(address, credentials()));
    let calls: Vec<_> = (0..30)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.heartbeat(&tag(), PATIENCE).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap().unwrap();
    }
    assert_eq!(service.most_busy.load(SeqCst), 3);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_its_place_is_given_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limits = Limits { connections: 1, requests_per_connection: 3, ..Limits::default() };
    tokio::spawn(serve_within(listener, Scripted::default(), door(), limits));
    let first = Client::new(&address, credentials());
    first.next(&tag(), PATIENCE).await.unwrap().unwrap();
    let second = Client::new(&address, credentials());
    assert!(second.next(&tag(), Duration::from_millis(300)).await.is_err());
    drop(first);
    assert!(second.next(&tag(), PATIENCE).await.is_ok());
}
