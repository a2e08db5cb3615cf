//! Where a run stands, for Prometheus: a view of its status at `/metrics` (OpenMetrics text). No question, no answer and
//! no path is in it.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::run_dir::Status;

/// Where they are.
pub const PATH: &str = "/metrics";
/// Callers at a time; more wait in the system's queue.
const CALLERS: usize = 16;
/// How long a call may take, from the connection to the last byte.
const CALL: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken.
const PAUSE: Duration = Duration::from_millis(200);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Number = Gauge<f64, AtomicU64>;

/// Answers until it is aborted.
#[must_use]
pub fn serve(listener: TcpListener, status: watch::Receiver<Status>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(CALLERS));
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let status = status.clone();
                    tokio::spawn(async move {
                        call(stream, &status).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!("a caller of {PATH} was lost: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

async fn call(stream: TcpStream, status: &watch::Receiver<Status>) {
    let service = service_fn(|request| {
        let answer = answer(&request, &status.borrow());
        async { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(CALL)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CALL, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a call of {PATH} broke off: {error}"),
        Err(_) => tracing::debug!("a call of {PATH} took too long"),
    }
}

fn answer(request: &Request<Incoming>, status: &Status) -> Response<Full<Bytes>> {
    let (code, name, value, text) = match (request.uri().path(), request.method()) {
        (PATH, &Method::GET) => match text(status) {
            Ok(text) => (StatusCode::OK, CONTENT_TYPE, OPENMETRICS, text),
            Err(error) => {
                let code = StatusCode::INTERNAL_SERVER_ERROR;
                (code, CONTENT_TYPE, "text/plain", error.to_string())
            }
        },
        (PATH, _) => (StatusCode::METHOD_NOT_ALLOWED, ALLOW, "GET", String::new()),
        _ => {
            let text = format!("the figures are at {PATH}\n");
            (StatusCode::NOT_FOUND, CONTENT_TYPE, "text/plain", text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    response
}

/// The status in OpenMetrics' text format, each figure with the run's name.
///
/// # Errors
/// None that is known: what the encoder says.
pub fn text(status: &Status) -> Result<String, std::fmt::Error> {
    let mut figures = Figures::of(&status.run);
    let view = &status.view;
    figures.one("committed_step", "Last committed step", view.step.0 as f64);
    figures.one("steps", "Steps of all training stages", view.total_steps as f64);
    figures.one("policy_version", "Version of the weights", view.policy.0 as f64);
    figures.one("generation", "Number of the workers' roster", view.generation.0 as f64);
    figures.one("term", "Number of the coordinator's lead", view.term.0 as f64);
    figures.one("workers", "Workers that are members", view.workers.len() as f64);
    let seconds = |ms: u64| ms as f64 / 1000.0;
    figures.timed("updated", "When this was true, since 1970", seconds(status.updated_at));
    figures.timed(
        "started",
        "When the coordinator started, since 1970",
        seconds(status.started_at),
    );
    if let Some(left) = status.eta_s {
        figures.timed("left", "Time left", left);
    }
    if let Some(tokens) = status.tokens_per_s {
        figures.one("tokens_per_second", "Tokens drawn and trained on, over all workers", tokens);
    }
    let phase = [("phase", view.phase.clone()), ("stage", view.stage.clone())];
    figures.family("phase", "1 for what the run does now", [(phase.into(), 1.0)]);
    let ending =
        view.ending.map(|ending| (vec![("how", format!("{ending:?}").to_lowercase())], 1.0));
    figures.family("ended", "1 for how the run has ended, once it has", ending);
    let silent = view.workers.iter();
    let silent = silent.map(|w| (vec![("worker", w.worker.0.clone())], seconds(w.silent_ms)));
    figures.family("worker_silent_seconds", "Since a worker was heard of last", silent);
    let rejected = view.rejected.iter();
    let rejected = rejected.map(|(why, n)| (vec![("reason", format!("{why:?}"))], *n as f64));
    figures.family("rejected_reports", "Reports that were turned away", rejected);
    let last = status.figures.iter().map(|(name, value)| (vec![("name", name.clone())], *value));
    figures.family("step_figure", "Figures of the last committed step", last);
    figures.text()
}

struct Figures(Registry);

impl Figures {
    fn of(run: &str) -> Self {
        let labels = [("run".into(), run.to_owned().into())];
        Self(Registry::with_prefix_and_labels("medevo", labels.into_iter()))
    }

    fn one(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Number::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    fn timed(&mut self, name: &str, help: &str, seconds: f64) {
        let gauge = Number::default();
        gauge.set(seconds);
        self.0.register_with_unit(name, help, Unit::Seconds, gauge);
    }

    fn family(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Number>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    fn text(self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}
