//! Coordinators' processes: standing by, taking over, leading, ending.

use medevo_core::{CheckpointRef, Core, Input, Millis, Outcome, Record};
use medevo_types::{Generation, Step};

use super::{
    Mutation, World,
    driver::Driver,
    network::{Back, Call, Request, Response},
    queue::Happening,
    store::{LEAD_TTL, Written},
};
use crate::{
    replay,
    scorer::{Job, Scorer},
};

/// Time between two ticks of the core.
const TICK: Millis = 50;
/// Time between two looks of a standby, and between two renewals of a leader.
const WATCH: Millis = 300;

/// What a coordinator's process is told.
#[derive(Clone, Debug)]
pub(super) enum Knock {
    /// Time passes.
    Tick,
    /// Look after the lead.
    Watch,
    /// The store has answered a write.
    Written { number: u64, written: Written },
    /// A worker has waited long enough for work.
    PollEnds(Back),
    /// A round is scored.
    Scored(Box<Job>),
    /// A round could not be scored.
    NotScored(Step, u64),
    /// A checkpoint's files are looked at; and whether the manifest can be written.
    Checked(Box<CheckpointRef>, bool),
}

/// What a coordinator does.
#[derive(Debug)]
pub(super) enum Role {
    /// It waits for the lead.
    StandsBy,
    /// It leads, or believes so.
    Leads(Box<Driver>),
}

/// A place for coordinators' processes.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub process: u64,
    pub alive: bool,
    pub paused_until: Millis,
    /// By how much its clock is ahead.
    pub skew: i64,
    pub role: Role,
}

impl Coordinator {
    pub fn new() -> Self {
        Self { process: 0, alive: false, paused_until: 0, skew: 0, role: Role::StandsBy }
    }

    pub fn explain(&self) -> String {
        match &self.role {
            Role::Leads(driver) => {
                format!("term {}: {}", driver.term, driver.core.explain(driver.lease_until))
            }
            Role::StandsBy if self.alive => "stands by".to_owned(),
            Role::StandsBy => "gone".to_owned(),
        }
    }
}

impl World {
    /// A coordinator's own clock.
    pub(super) fn clock(&self, coordinator: usize) -> Millis {
        self.now.saturating_add_signed(self.coordinators[coordinator].skew)
    }

    /// A process starts, unless one runs already.
    pub(super) fn coordinator_starts(&mut self, coordinator: usize) {
        let place = &mut self.coordinators[coordinator];
        if place.alive || self.done {
            return;
        }
        place.process += 1;
        place.alive = true;
        place.paused_until = 0;
        place.role = Role::StandsBy;
        let process = place.process;
        self.trace.note(self.now, || format!("c{coordinator} starts as process {process}"));
        for knock in [Knock::Watch, Knock::Tick] {
            let at = self.now + 1;
            self.queue.at(at, Happening::Coordinator { coordinator, process, knock });
        }
    }

    /// A process ends, and is started again at a moment.
    pub(super) fn coordinator_ends(&mut self, coordinator: usize, why: &str, again: Millis) {
        let place = &mut self.coordinators[coordinator];
        if place.alive {
            self.trace.note(self.now, || format!("c{coordinator} ends: {why}"));
            place.alive = false;
            place.role = Role::StandsBy;
        }
        self.queue.at(again.max(self.now + 1), Happening::CoordinatorStarts(coordinator));
    }

    /// A driver stops before it acts; whoever watches over it starts it again.
    pub(super) fn halt(&mut self, coordinator: usize, why: &str) {
        let again = self.now + self.random.between(200, 1_500);
        self.coordinator_ends(coordinator, why, again);
    }

    /// Something for a process of a coordinator.
    pub(super) fn knock(&mut self, coordinator: usize, process: u64, knock: Knock) {
        let place = &self.coordinators[coordinator];
        if !place.alive || place.process != process {
            return;
        }
        if self.now < place.paused_until {
            let at = place.paused_until;
            return self.queue.at(at, Happening::Coordinator { coordinator, process, knock });
        }
        match knock {
            Knock::Tick => {
                let at = self.now + TICK;
                self.queue.at(at, Happening::Coordinator { coordinator, process, knock });
                self.input(coordinator, Input::Tick, None);
            }
            Knock::Watch => self.watch(coordinator, process),
            Knock::Written { number, written } => self.written(coordinator, number, written),
            Knock::PollEnds(back) => self.poll_ends(coordinator, back),
            Knock::Scored(_) | Knock::NotScored(..) | Knock::Checked(..) => {
                self.effect_done(coordinator, knock);
            }
        }
    }

    fn watch(&mut self, coordinator: usize, process: u64) {
        let again = Happening::Coordinator { coordinator, process, knock: Knock::Watch };
        self.queue.at(self.now + self.random.between(WATCH / 2, WATCH), again);
        if self.weather.store_away(coordinator) {
            return;
        }
        let clock = self.clock(coordinator);
        match &mut self.coordinators[coordinator].role {
            Role::Leads(driver) => {
                if self.store.renew(coordinator, driver.term, self.now) {
                    driver.lease_until = clock + LEAD_TTL;
                } else {
                    self.halt(coordinator, "another leads");
                }
            }
            Role::StandsBy => self.campaign(coordinator, clock),
        }
    }

    fn campaign(&mut self, coordinator: usize, clock: Millis) {
        let Some(term) = self.store.campaign(coordinator, self.now) else { return };
        if self.store.records().next_back() == Some(&Record::Finished(Outcome::Done)) {
            return;
        }
        let mut recovered = replay::recovered(term, self.store.records(), &self.rollouts);
        if self.mutation == Some(Mutation::ForgottenGenerations) {
            recovered.generation = Generation(0);
        }
        self.trace.note(self.now, || format!("c{coordinator} takes over: {recovered:?}"));
        self.checker.took_over(term);
        let core = Core::new(self.spec.clone(), recovered);
        let mut scorer = Scorer::default();
        scorer.scorings = term.0 << 20;
        (scorer.quiet_every, scorer.dull_every) = (self.plan.quiet_every, self.plan.dull_every);
        let driver = Driver::new(core, term, scorer, clock + LEAD_TTL);
        self.coordinators[coordinator].role = Role::Leads(Box::new(driver));
    }

    /// A call arrives where a coordinator may be.
    pub(super) fn arrives(&mut self, coordinator: usize, call: Call) {
        let place = &self.coordinators[coordinator];
        if place.alive && self.now < place.paused_until {
            let at = place.paused_until;
            return self.queue.at(at, Happening::Arrives { coordinator, call });
        }
        if !place.alive || matches!(place.role, Role::StandsBy) {
            return self.answer(coordinator, call.back, Response::NotHere);
        }
        let input = match call.request {
            Request::Join(tag) => {
                let (device, address) = ("cpu".to_owned(), "127.0.0.1".to_owned());
                Input::Join { tag, device, address }
            }
            Request::Heartbeat(tag) => Input::Heartbeat(tag),
            Request::Next(tag) => Input::Pull(tag),
            Request::Report(envelope) => Input::Report(envelope),
        };
        self.input(coordinator, input, Some(call.back));
    }
}
