//! A worker's session, as worker/src/agent.rs has it: join, ask, do, report, join again. One call at a time, tried
//! again until it is answered; the lease is kept beside it.

use medevo_core::{Millis, Order};
use medevo_types::{
    Attempt, Generation, Incarnation, Step, WorkerId, WorkerTag,
    messages::{Envelope, Rejection, Report},
};

use super::{
    World,
    engine::{Engine, Job},
    network::{Back, Call, Request, Response},
    queue::Happening,
};

/// One try of a call.
const ONE_TRY: Millis = 800;
/// How long a call is tried before the process gives up.
const LEADER_GRACE: Millis = 20_000;

/// What a worker's process is told.
#[derive(Clone, Debug)]
pub(super) enum Nudge {
    /// An answer to a call.
    Answer { id: u64, response: Response },
    /// A try has had no answer.
    NoAnswer { id: u64, tries: u64 },
    /// Try a call again.
    Again { id: u64 },
    /// Keep the lease.
    Beat,
    /// The model is loaded.
    Loaded,
    /// Ask for work.
    Ask,
    /// The engine has computed what it can by itself.
    Computed { job: u64 },
    /// A collective operation has taken too long.
    TooLong { job: u64 },
    /// The engine is done.
    Done { job: u64, envelope: Box<Envelope> },
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Outgoing {
    id: u64,
    request: Request,
    since: Millis,
    tries: u64,
}

/// A place for a worker's processes.
#[derive(Debug)]
pub(super) struct Worker {
    pub name: WorkerId,
    pub process: u64,
    pub alive: bool,
    pub paused_until: Millis,
    /// Times slower than others.
    pub slow: u64,
    pub life: Incarnation,
    /// Lives of the process that runs.
    pub lives: Vec<Incarnation>,
    /// Where it believes the leader to be.
    pub target: usize,
    pub outgoing: Option<Outgoing>,
    pub calls: u64,
    pub loaded: bool,
    pub engine: Engine,
    pub jobs: u64,
    pub job: Option<Job>,
}

impl Worker {
    pub fn new(name: WorkerId) -> Self {
        Self {
            name,
            process: 0,
            alive: false,
            paused_until: 0,
            slow: 1,
            life: Incarnation(0),
            lives: Vec::new(),
            target: 0,
            outgoing: None,
            calls: 0,
            loaded: false,
            engine: Engine::default(),
            jobs: 0,
            job: None,
        }
    }

    pub fn tag(&self) -> WorkerTag {
        WorkerTag { worker: self.name.clone(), incarnation: self.life }
    }
}

impl World {
    pub(super) fn nudge_at(&mut self, w: usize, at: Millis, nudge: Nudge) {
        let process = self.workers[w].process;
        self.queue.at(at, Happening::Worker { worker: w, process, nudge });
    }

    /// A process starts, unless one runs already.
    pub(super) fn worker_starts(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        if worker.alive {
            return;
        }
        let (name, process, life) = (worker.name.clone(), worker.process + 1, worker.life);
        *worker = Worker { process, life, alive: true, slow: worker.slow, ..Worker::new(name) };
        worker.target = self.random.index(self.coordinators.len());
        self.trace.note(self.now, || format!("w{w} starts as process {process}"));
        self.join(w);
        self.nudge_at(w, self.now + 1, Nudge::Beat);
    }

    /// A process ends, and with it what it held; it is started again at a moment.
    pub(super) fn worker_ends(&mut self, w: usize, why: &str, again: Millis) {
        if self.workers[w].alive {
            self.trace.note(self.now, || format!("w{w} ends: {why}"));
            self.workers[w].alive = false;
            self.leaves_groups(w);
        }
        self.queue.at(again.max(self.now + 1), Happening::WorkerStarts(w));
    }

    /// As [`World::worker_ends`], and the coordinator is told once.
    pub(super) fn worker_leaves(&mut self, w: usize, again: Millis) {
        let worker = &self.workers[w];
        if worker.alive {
            let (from, body) = (worker.tag(), Report::Leaving);
            let (generation, step, attempt) = (Generation(0), Step(0), Attempt(0));
            let envelope = Box::new(Envelope { from, generation, step, attempt, body });
            let back = Back { worker: w, process: worker.process, id: 0 };
            self.send(worker.target, Call { back, request: Request::Report(envelope) });
        }
        self.worker_ends(w, "leaves", again);
    }

    fn exits(&mut self, w: usize, why: &str) {
        let again = self.now + self.random.between(200, 1_500);
        self.worker_ends(w, why, again);
    }

    /// Begins a later life.
    fn join(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        worker.life = Incarnation(self.now * 1000).max(worker.life.next());
        worker.lives.push(worker.life);
        let tag = worker.tag();
        self.checker.lives(&tag);
        self.call(w, Request::Join(tag));
    }

    fn ask(&mut self, w: usize) {
        let tag = self.workers[w].tag();
        self.call(w, Request::Next(tag));
    }

    fn call(&mut self, w: usize, request: Request) {
        let worker = &mut self.workers[w];
        worker.calls += 1;
        worker.outgoing = Some(Outgoing { id: worker.calls, request, since: self.now, tries: 0 });
        self.try_call(w);
    }

    fn try_call(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        let (target, process) = (worker.target, worker.process);
        let Some(outgoing) = &mut worker.outgoing else { return };
        outgoing.tries += 1;
        let (id, tries) = (outgoing.id, outgoing.tries);
        let request = outgoing.request.clone();
        self.send(target, Call { back: Back { worker: w, process, id }, request });
        self.nudge_at(w, self.now + ONE_TRY, Nudge::NoAnswer { id, tries });
    }

    /// Something for a process of a worker.
    pub(super) fn nudge(&mut self, w: usize, process: u64, nudge: Nudge) {
        let worker = &self.workers[w];
        if !worker.alive || worker.process != process {
            return;
        }
        if self.now < worker.paused_until {
            let at = worker.paused_until;
            return self.queue.at(at, Happening::Worker { worker: w, process, nudge });
        }
        match nudge {
            Nudge::Beat => {
                let third = self.spec.deadlines.lease_ttl_ms / 3;
                let back = Back { worker: w, process, id: 0 };
                let (target, tag) = (worker.target, worker.tag());
                self.send(target, Call { back, request: Request::Heartbeat(tag) });
                self.nudge_at(w, self.now + third, Nudge::Beat);
            }
            Nudge::Answer { id, response } => self.answered(w, id, response),
            Nudge::NoAnswer { id, tries } => {
                let current = |o: &Outgoing| o.id == id && o.tries == tries;
                if worker.outgoing.as_ref().is_some_and(current) {
                    self.next_try(w);
                }
            }
            Nudge::Again { id } => {
                if worker.outgoing.as_ref().is_some_and(|o| o.id == id) {
                    self.try_call(w);
                }
            }
            Nudge::Loaded => {
                self.workers[w].loaded = true;
                self.ask(w);
            }
            Nudge::Ask => self.ask(w),
            Nudge::Computed { job } => self.computed(w, job),
            Nudge::TooLong { job } => self.too_long(w, job),
            Nudge::Done { job, envelope } => {
                if self.workers[w].job.as_ref().is_some_and(|current| current.number == job) {
                    self.workers[w].job = None;
                    self.call(w, Request::Report(envelope));
                }
            }
        }
    }

    /// A try came to nothing: the next one goes to the next coordinator, after a pause.
    fn next_try(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        let Some(outgoing) = &worker.outgoing else { return };
        let id = outgoing.id;
        if self.now >= outgoing.since + LEADER_GRACE {
            return self.exits(w, "no coordinator answers");
        }
        worker.target = (worker.target + 1) % self.coordinators.len();
        let at = self.now + self.random.between(20, 200);
        self.nudge_at(w, at, Nudge::Again { id });
    }

    fn answered(&mut self, w: usize, id: u64, response: Response) {
        if self.workers[w].outgoing.as_ref().is_none_or(|o| o.id != id) {
            return;
        }
        if matches!(response, Response::NotHere) {
            return self.next_try(w);
        }
        let Some(outgoing) = self.workers[w].outgoing.take() else { return };
        match (outgoing.request, response) {
            (Request::Join(_), Response::Join(Ok(()))) => {
                if self.workers[w].loaded {
                    self.ask(w);
                } else {
                    let at = self.now + self.random.delay(60, 800);
                    self.nudge_at(w, at, Nudge::Loaded);
                }
            }
            (Request::Join(_), Response::Join(Err(refused))) => {
                self.exits(w, &format!("refused: {refused}"));
            }
            (Request::Next(_), Response::Order(Ok(order))) => match *order {
                Order::Stop { reason, .. } => self.exits(w, &format!("stop: {reason}")),
                Order::Wait { .. } => self.pause(w, outgoing.since),
                order => self.begin(w, order),
            },
            (Request::Next(_), Response::Order(Err(rejection))) => {
                self.turned_away(w, rejection, outgoing.since);
            }
            (Request::Report(_), Response::Ack(Ok(()))) => self.ask(w),
            (Request::Report(_), Response::Ack(Err(rejection))) => {
                self.turned_away(w, rejection, outgoing.since);
            }
            _ => {}
        }
    }

    fn turned_away(&mut self, w: usize, rejection: Rejection, since: Millis) {
        self.trace.note(self.now, || format!("w{w} is turned away: {rejection:?}"));
        match rejection {
            Rejection::UnknownWorker => self.join(w),
            Rejection::StaleIncarnation => self.exits(w, "replaced"),
            _ => self.pause(w, since),
        }
    }

    /// Asks again, not at once where the answer came at once.
    fn pause(&mut self, w: usize, since: Millis) {
        let quick = self.now < since + 200;
        let wait = if quick { self.random.between(10, 200) } else { 1 };
        self.nudge_at(w, self.now + wait, Nudge::Ask);
    }
}
