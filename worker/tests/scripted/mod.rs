//! A coordinator that follows a script, an engine that only remembers, and orders for both.

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
    settings::{Dtype, Sampling, TrainSettings},
};
use medevo_worker::{
    agent::Plan,
    fault::Fault,
    port::{Build, Engine},
    token::Token,
};
use serde_bytes::ByteBuf;
use tarpc::context::Context;
use tokio::net::TcpListener;

/// What the scripted coordinator does and has seen.
#[derive(Default)]
pub struct Script {
    pub orders: VecDeque<Result<Directive, Rejection>>,
    pub answers: VecDeque<Result<(), Rejection>>,
    pub refusal: Option<JoinRefused>,
    /// Told to leave once it has voted.
    pub leave: Option<tokio::sync::watch::Sender<bool>>,
    pub lives: Vec<Incarnation>,
    pub reports: Vec<Envelope>,
}

#[derive(Clone, Default)]
pub struct Scripted {
    pub script: Arc<Mutex<Script>>,
    pub heartbeats: Arc<AtomicUsize>,
    pub board: Arc<MemoryStore>,
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
pub struct Counting {
    pub policy: Option<PolicyVersion>,
    pub heartbeats: Arc<AtomicUsize>,
}

pub fn held(policy: PolicyVersion) -> Holding {
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
pub fn build(coordinator: &Scripted) -> (Build, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let (count, heartbeats) = (Arc::clone(&made), Arc::clone(&coordinator.heartbeats));
    let build: Build = Box::new(move |_| {
        count.fetch_add(1, SeqCst);
        Ok(Box::new(Counting { policy: None, heartbeats: Arc::clone(&heartbeats) }))
    });
    (build, made)
}

pub fn plan(coordinator: &str, worker: &str) -> Plan {
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
pub struct TheSecret;

impl Doorkeeper for TheSecret {
    fn admits(&self, token: &str) -> bool {
        token == "secret"
    }

    fn turned_away(&self, _: std::net::SocketAddr, _: &Refusal) {}
}

pub async fn start(orders: Vec<Result<Directive, Rejection>>) -> (Scripted, String) {
    let coordinator = Scripted::default();
    coordinator.script.lock().unwrap().orders = orders.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let door = Door::new(Security::Plain, Arc::new(TheSecret));
    tokio::spawn(serve(listener, coordinator.clone(), door));
    (coordinator, address)
}

pub fn form(generation: u64, rank: usize, world: usize) -> Result<Directive, Rejection> {
    let member = |r: usize| Member {
        tag: WorkerTag { worker: format!("w{r}").as_str().into(), incarnation: Incarnation(1) },
        address: "127.0.0.1".to_owned(),
    };
    let members = (0..world).map(member).collect();
    Ok(Directive::Form(Roster { generation: Generation(generation), members, rank }))
}

pub fn restore(generation: u64) -> Result<Directive, Rejection> {
    let source = RestoreSource::Model { dir: "m".into() };
    let generation = Generation(generation);
    Ok(Directive::Restore(Restore { generation, policy: PolicyVersion(4), source }))
}

pub fn rollout(unit: u64) -> Result<Directive, Rejection> {
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

pub fn update(generation: u64) -> Result<Directive, Rejection> {
    Ok(Directive::Update(UpdateWork {
        generation: Generation(generation),
        step: Step(5),
        attempt: medevo_types::Attempt(2),
        policy: PolicyVersion(4),
        batch: Batch::Sft { examples: vec![] },
    }))
}

pub fn reports(coordinator: &Scripted) -> Vec<Envelope> {
    coordinator.script.lock().unwrap().reports.clone()
}
