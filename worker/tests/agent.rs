//! The agent against a scripted coordinator over real RPC, with an engine that only remembers: what a
//! run relies on whatever the numbers are.
#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use medevo_collective::{Collective, MemoryStore, Rendezvous};
use medevo_engine::EngineError;
use medevo_rpc::{Door, Doorkeeper, Refusal, Security, serve, service::Coordinator};
use medevo_types::{
    Digest, Generation, Incarnation, PolicyVersion, Step, UnitId, WorkerTag,
    messages::*,
    settings::{Dtype, OptimizerSettings, Sampling, TrainSettings},
};
use medevo_worker::{
    agent::{AgentError, Plan, run},
    fault::Fault,
    port::{Build, Engine},
    token::Token,
};
use serde_bytes::ByteBuf;
use tarpc::context::Context;
use tokio::net::TcpListener;

/// What the scripted coordinator does and has seen.
#[derive(Default)]
struct Script {
    orders: VecDeque<Result<Directive, Rejection>>,
    answers: VecDeque<Result<(), Rejection>>,
    refusal: Option<JoinRefused>,
    /// Told to leave once it has voted.
    leave: Option<tokio::sync::watch::Sender<bool>>,
    lives: Vec<Incarnation>,
    reports: Vec<Envelope>,
}

#[derive(Clone, Default)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    heartbeats: Arc<AtomicUsize>,
    board: Arc<MemoryStore>,
}

impl Coordinator for Scripted {
    async fn join(self, _: Context, hello: Hello) -> Result<Welcome, JoinRefused> {
        let mut script = self.script.lock().unwrap();
        script.lives.push(hello.tag.incarnation);
        if let Some(refusal) = &script.refusal {
            return Err(refusal.clone());
        }
        let engine = EngineSetup {
            model: "m".into(),
            dtype: Dtype::F32,
            seed: 0,
            threads: 1,
            max_prompt_tokens: 8,
            tokens_per_batch: 8,
            collective_timeout_ms: 3000,
            freeze_vision: true,
            train: TrainSettings::default(),
            lora: None,
        };
        Ok(Welcome { run_id: "r".to_owned(), lease_ttl_ms: 150, engine })
    }

    async fn heartbeat(self, _: Context, _: WorkerTag) -> Result<(), Rejection> {
        self.heartbeats.fetch_add(1, SeqCst);
        Ok(())
    }

    async fn next(self, _: Context, _: WorkerTag) -> Result<Directive, Rejection> {
        let order = self.script.lock().unwrap().orders.pop_front();
        order.unwrap_or(Ok(Directive::Stop { reason: "script is over".to_owned(), drained: false }))
    }

    async fn report(self, _: Context, envelope: Envelope) -> Result<(), Rejection> {
        let mut script = self.script.lock().unwrap();
        if let (Report::Ballot(_), Some(leave)) = (&envelope.body, &script.leave) {
            leave.send_replace(true);
        }
        script.reports.push(envelope);
        script.answers.pop_front().unwrap_or(Ok(()))
    }

    async fn rendezvous_set(
        self,
        _: Context,
        _: WorkerTag,
        key: String,
        value: ByteBuf,
    ) -> Result<(), Rejection> {
        self.board.set(&key, &value).map_err(|_| Rejection::Unexpected)
    }

    async fn rendezvous_get(
        self,
        _: Context,
        _: WorkerTag,
        key: String,
    ) -> Result<Option<ByteBuf>, Rejection> {
        let value = self.board.get(&key, Instant::now()).ok();
        if value.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(value.map(ByteBuf::from))
    }

    async fn rendezvous_add(
        self,
        _: Context,
        _: WorkerTag,
        key: String,
        delta: i64,
    ) -> Result<i64, Rejection> {
        self.board.add(&key, delta).map_err(|_| Rejection::Unexpected)
    }
}

/// Counts in place of weights; `update` really reduces.
struct Counting {
    policy: Option<PolicyVersion>,
    heartbeats: Arc<AtomicUsize>,
}

fn held(policy: PolicyVersion) -> Holding {
    Holding { policy, digest: Digest("d".to_owned()) }
}

impl Engine for Counting {
    fn restore(
        &mut self,
        _: &RestoreSource,
        policy: PolicyVersion,
        _: &mut dyn Collective,
    ) -> Result<Holding, EngineError> {
        self.policy = Some(policy);
        Ok(held(policy))
    }

    fn assemble(&mut self, _: &mut dyn Collective) -> Result<Option<Holding>, EngineError> {
        Ok(self.policy.map(held))
    }

    fn rollout(&mut self, unit: &RolloutUnit) -> Result<Vec<Group>, EngineError> {
        match unit.unit.0 {
            1 => Ok(Vec::new()),
            2 => Err(EngineError::Refused { what: "q7".to_owned(), why: "too long".to_owned() }),
            3 => {
                // Busy until the lease was kept five more times; hopeless after ten seconds.
                let (start, until) = (Instant::now(), self.heartbeats.load(SeqCst) + 5);
                while self.heartbeats.load(SeqCst) < until {
                    assert!(start.elapsed() < Duration::from_secs(10), "no heartbeats");
                    std::thread::yield_now();
                }
                Ok(Vec::new())
            }
            _ => panic!("tensor trouble\nbacktrace"),
        }
    }

    fn update(&mut self, _: &UpdateWork, c: &mut dyn Collective) -> Result<Ballot, EngineError> {
        let mut sum = tch::Tensor::from(1.0f32);
        c.all_reduce_sum(&mut sum)?;
        let grad_norm = sum.double_value(&[]);
        Ok(Ballot { gradient: Digest("g".to_owned()), finite: true, grad_norm, figures: vec![] })
    }

    fn apply(&mut self, work: &ApplyWork, _: &mut dyn Collective) -> Result<Holding, EngineError> {
        self.policy = Some(work.policy);
        Ok(held(work.policy))
    }

    fn discard(&mut self) {}

    fn save(&mut self, _: &CheckpointWork) -> Result<Vec<FileEntry>, EngineError> {
        Ok(Vec::new())
    }
}

/// An engine factory and the number of engines that it made.
fn build(coordinator: &Scripted) -> (Build, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let (count, heartbeats) = (Arc::clone(&made), Arc::clone(&coordinator.heartbeats));
    let build: Build = Box::new(move |_| {
        count.fetch_add(1, SeqCst);
        Ok(Box::new(Counting { policy: None, heartbeats: Arc::clone(&heartbeats) }))
    });
    (build, made)
}

fn plan(coordinator: &str, worker: &str) -> Plan {
    Plan {
        place: std::sync::Arc::new(coordinator.to_owned()),
        run_dir: None,
        worker: worker.into(),
        token: Token::new("secret").unwrap(),
        security: Security::Plain,
        device: "cpu".to_owned(),
        address: "127.0.0.1".to_owned(),
        join_deadline: Duration::from_secs(10),
        leader_grace: Duration::from_secs(10),
        alive: None,
        fault: Fault::none(),
        leaving: tokio::sync::watch::Sender::new(false).subscribe(),
    }
}

/// Lets in who knows the secret.
struct TheSecret;

impl Doorkeeper for TheSecret {
    fn admits(&self, token: &str) -> bool {
        token == "secret"
    }

    fn turned_away(&self, _: std::net::SocketAddr, _: &Refusal) {}
}

async fn start(orders: Vec<Result<Directive, Rejection>>) -> (Scripted, String) {
    let coordinator = Scripted::default();
    coordinator.script.lock().unwrap().orders = orders.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let door = Door::new(Security::Plain, Arc::new(TheSecret));
    tokio::spawn(serve(listener, coordinator.clone(), door));
    (coordinator, address)
}

fn form(generation: u64, rank: usize, world: usize) -> Result<Directive, Rejection> {
    let member = |r: usize| Member {
        tag: WorkerTag { worker: format!("w{r}").as_str().into(), incarnation: Incarnation(1) },
        address: "127.0.0.1".to_owned(),
    };
    let members = (0..world).map(member).collect();
    Ok(Directive::Form(Roster { generation: Generation(generation), members, rank }))
}

fn restore(generation: u64) -> Result<Directive, Rejection> {
    let source = RestoreSource::Model { dir: "m".into() };
    let generation = Generation(generation);
    Ok(Directive::Restore(Restore { generation, policy: PolicyVersion(4), source }))
}

fn rollout(unit: u64) -> Result<Directive, Rejection> {
    Ok(Directive::Rollout(RolloutUnit {
        unit: UnitId(unit),
        policy: PolicyVersion(4),
        step: Step(5),
        purpose: Purpose::Train,
        sampling: Sampling::default(),
        features: false,
        prompts: vec![],
    }))
}

fn update(generation: u64) -> Result<Directive, Rejection> {
    Ok(Directive::Update(UpdateWork {
        generation: Generation(generation),
        step: Step(5),
        attempt: medevo_types::Attempt(2),
        policy: PolicyVersion(4),
        batch: Batch::Sft { examples: vec![] },
    }))
}

fn reports(coordinator: &Scripted) -> Vec<Envelope> {
    coordinator.script.lock().unwrap().reports.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_directive_is_reported_with_its_counters() {
    let (coordinator, address) =
        start(vec![form(3, 0, 1), restore(3), rollout(1), update(3)]).await;
    let reason = run(plan(&address, "w0"), build(&coordinator).0).await.unwrap().reason;
    assert_eq!(reason, "script is over");
    let seen: Vec<_> =
        reports(&coordinator).iter().map(|e| (e.generation.0, e.step.0, e.attempt.0)).collect();
    assert_eq!(seen, [(3, 0, 0), (3, 0, 0), (3, 5, 0), (3, 5, 2)]);
    let bodies: Vec<Report> = reports(&coordinator).into_iter().map(|e| e.body).collect();
    assert_eq!(bodies[0], Report::Formed { holding: None });
    assert_eq!(bodies[1], Report::Restored { holding: held(PolicyVersion(4)) });
    assert!(matches!(&bodies[2], Report::RolloutDone { unit: UnitId(1), .. }));
    assert!(matches!(&bodies[3], Report::Ballot(b) if b.grad_norm == 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_worker_joins_in_a_later_life_and_keeps_its_weights() {
    let orders = vec![form(3, 0, 1), restore(3), Err(Rejection::UnknownWorker), form(4, 0, 1)];
    let (coordinator, address) = start(orders).await;
    let (build, made) = build(&coordinator);
    run(plan(&address, "w0"), build).await.unwrap();
    let lives = coordinator.script.lock().unwrap().lives.clone();
    assert!(lives.len() == 2 && lives[0] < lives[1], "{lives:?}");
    let last = reports(&coordinator).pop().unwrap();
    assert_eq!(last.body, Report::Formed { holding: Some(held(PolicyVersion(4))) });
    assert_eq!(last.from.incarnation, lives[1]);
    assert_eq!(made.load(SeqCst), 1);
}

/// Without the farewell everyone would wait for the lease of a worker that was asked to leave.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_to_leave_says_so_and_takes_no_more_orders() {
    let (coordinator, address) = start(vec![rollout(1)]).await;
    let mut plan = plan(&address, "w0");
    plan.leaving = tokio::sync::watch::Sender::new(true).subscribe();
    let reason = run(plan, build(&coordinator).0).await.unwrap().reason;
    assert_eq!(reason, "it was asked to leave");
    let bodies: Vec<Report> = reports(&coordinator).into_iter().map(|e| e.body).collect();
    assert_eq!(bodies, [Report::Leaving]);
    assert_eq!(coordinator.script.lock().unwrap().orders.len(), 1);
}

/// One that left between its vote and the others' would make the whole step void.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_voted_stays_for_the_step() {
    let wait = || Ok(Directive::Wait { reason: "waiting on w1 (ballot)".to_owned() });
    let apply = Ok(Directive::Apply(ApplyWork {
        generation: Generation(3),
        step: Step(5),
        attempt: medevo_types::Attempt(2),
        policy: PolicyVersion(5),
        optimizer: OptimizerSettings::default(),
        lr: 1e-3,
        reset_moments: false,
    }));
    let orders = vec![form(3, 0, 1), restore(3), update(3), wait(), wait(), apply, rollout(1)];
    let (coordinator, address) = start(orders).await;
    let mut plan = plan(&address, "w0");
    let leave = tokio::sync::watch::Sender::new(false);
    plan.leaving = leave.subscribe();
    coordinator.script.lock().unwrap().leave = Some(leave);
    let departure = run(plan, build(&coordinator).0).await.unwrap();
    assert_eq!(departure.reason, "it was asked to leave");
    let bodies: Vec<Report> = reports(&coordinator).into_iter().map(|e| e.body).collect();
    let [.., Report::Ballot(_), Report::Applied { .. }, Report::Leaving] = &bodies[..] else {
        panic!("{bodies:?}")
    };
    assert_eq!(coordinator.script.lock().unwrap().orders.len(), 1, "no rollout");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_report_is_not_the_end() {
    let (coordinator, address) = start(vec![form(3, 0, 1), form(4, 0, 1)]).await;
    coordinator.script.lock().unwrap().answers = [Err(Rejection::StaleGeneration)].into();
    run(plan(&address, "w0"), build(&coordinator).0).await.unwrap();
    assert_eq!(reports(&coordinator).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_or_replaced_worker_leaves_with_a_sentence() {
    let (coordinator, address) = start(vec![]).await;
    let mut stranger = plan(&address, "w0");
    stranger.token = Token::new("a guess").unwrap();
    let error = run(stranger, build(&coordinator).0).await.unwrap_err().to_string();
    assert!(error.contains("MEDEVO_TOKEN") && !error.contains("guess"), "{error}");
    coordinator.script.lock().unwrap().refusal = Some(JoinRefused::OldLife("w0".into()));
    let error = run(plan(&address, "w0"), build(&coordinator).0).await.unwrap_err().to_string();
    assert!(error.contains("a name of its own"), "{error}");
    let (coordinator, address) = start(vec![Err(Rejection::StaleIncarnation)]).await;
    let error = run(plan(&address, "w0"), build(&coordinator).0).await.unwrap_err();
    assert!(matches!(error, AgentError::Replaced(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_coordinator_is_an_error_at_the_deadline() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let mut plan = plan(&free, "w0");
    plan.join_deadline = Duration::from_millis(300);
    let error = run(plan, build(&Scripted::default()).0).await.unwrap_err().to_string();
    assert!(error.contains(&free), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_is_kept_while_the_engine_is_busy() {
    let (coordinator, address) = start(vec![form(3, 0, 1), rollout(3)]).await;
    run(plan(&address, "w0"), build(&coordinator).0).await.unwrap();
    assert!(matches!(reports(&coordinator)[1].body, Report::RolloutDone { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_errors_are_reported_and_a_panic_ends_the_worker() {
    let (coordinator, address) = start(vec![form(3, 0, 1), rollout(2), rollout(4)]).await;
    let error = run(plan(&address, "w0"), build(&coordinator).0).await.unwrap_err().to_string();
    assert!(error.contains("tensor trouble") && !error.contains("backtrace"), "{error}");
    let bodies: Vec<Report> = reports(&coordinator).into_iter().map(|e| e.body).collect();
    assert!(
        matches!(&bodies[1], Report::Failed { retryable: false, error, .. } if error.contains("q7"))
    );
    assert!(matches!(&bodies[2], Report::Failed { what, .. } if what == "rollout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn update_of_another_generation_is_a_failed_collective() {
    let (coordinator, address) = start(vec![form(3, 0, 1), update(2), update(3)]).await;
    run(plan(&address, "w0"), build(&coordinator).0).await.unwrap();
    for report in &reports(&coordinator)[1..] {
        // The second fails too: after an error only a new generation helps.
        assert!(matches!(&report.body, Report::CollectiveFailed { .. }), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_form_over_rpc_and_a_lone_one_fails_in_time() {
    let (first, one) = start(vec![form(3, 0, 2), update(3), form(4, 0, 2)]).await;
    let second = Scripted { board: Arc::clone(&first.board), ..Scripted::default() };
    second.script.lock().unwrap().orders = [form(3, 1, 2), update(3)].into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let two = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener, second.clone(), Door::open()));
    let (a, b) = tokio::join!(
        run(plan(&one, "w0"), build(&first).0),
        run(plan(&two, "w1"), build(&second).0)
    );
    assert!(a.is_ok() && b.is_ok());
    for reports in [reports(&first), reports(&second)] {
        assert!(matches!(&reports[1].body, Report::Ballot(ballot) if ballot.grad_norm == 2.0));
    }
    let alone = reports(&first).pop().unwrap();
    assert!(
        matches!(&alone.body, Report::CollectiveFailed { operation, .. } if operation == "form"),
        "{alone:?}"
    );
}
