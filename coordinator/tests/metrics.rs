//! What Prometheus is told.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use medevo_coord::{metrics, run_dir::Status};
use medevo_core::{Ending, View};
use medevo_types::{
    Generation, PolicyVersion, Step, Term,
    messages::{Rejection, WorkerView},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

fn status() -> Status {
    Status {
        run: "a \"quoted\" run".into(),
        view: View {
            phase: "rollout".into(),
            explain: "an answer from bed seven".into(),
            ending: None,
            stage: "adapt".into(),
            step: Step(3),
            total_steps: 150,
            generation: Generation(2),
            policy: PolicyVersion(4),
            term: Term(1),
            workers: vec![WorkerView {
                worker: "w0".into(),
                rank: Some(0),
                device: "cpu".into(),
                silent_ms: 250,
            }],
            rejected: [(Rejection::StaleIncarnation, 2)].into(),
        },
        pid: 1,
        host: "here".into(),
        born: 7,
        started_at: 1_000,
        updated_at: 2_500,
        tokens_per_s: Some(512.5),
        eta_s: None,
        figures: [("reward_mean".to_owned(), 0.75)].into(),
    }
}

async fn asked(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Fails when a figure is missing or has another name than before, which breaks people's dashboards, or when words that
/// may be a patient's get out.
#[test]
fn the_figures_are_openmetrics() {
    let mut status = status();
    let text = metrics::text(&status).unwrap();
    for line in [
        r#"medevo_committed_step{run="a \"quoted\" run"} 3.0"#,
        r#"medevo_steps{run="a \"quoted\" run"} 150.0"#,
        r#"medevo_policy_version{run="a \"quoted\" run"} 4.0"#,
        r#"medevo_workers{run="a \"quoted\" run"} 1.0"#,
        r#"medevo_updated_seconds{run="a \"quoted\" run"} 2.5"#,
        r#"medevo_tokens_per_second{run="a \"quoted\" run"} 512.5"#,
        r#"medevo_phase{run="a \"quoted\" run",phase="rollout",stage="adapt"} 1.0"#,
        r#"medevo_worker_silent_seconds{run="a \"quoted\" run",worker="w0"} 0.25"#,
        r#"medevo_rejected_reports{run="a \"quoted\" run",reason="StaleIncarnation"} 2.0"#,
        r#"medevo_step_figure{run="a \"quoted\" run",name="reward_mean"} 0.75"#,
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    assert!(!text.contains("medevo_left") && !text.contains("medevo_ended{"), "{text}");
    assert!(!text.contains("bed seven"), "{text}");
    status.view.ending = Some(Ending::Drained);
    let text = metrics::text(&status).unwrap();
    assert!(text.contains(r#"how="drained"} 1.0"#), "{text}");
}

/// Fails when Prometheus' question is not answered, or when callers that say nothing keep others out.
#[tokio::test]
async fn a_caller_is_answered_and_a_silent_one_keeps_nobody_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = watch::channel(status());
    let server = metrics::serve(listener, receiver);
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = asked(address, get).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    sender.send_modify(|status| status.view.step = Step(4));
    assert!(asked(address, get).await.contains("} 4.0\n"), "what is true now");
    for (request, code) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        assert!(
            asked(address, request).await.starts_with(&format!("HTTP/1.1 {code}")),
            "{request}"
        );
    }
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    drop(silent.drain(20..));
    assert!(asked(address, get).await.contains("200 OK"), "after the silent ones are cut off");
    server.abort();
}
