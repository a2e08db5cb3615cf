//! The driver, as far as it matters: one input at a time; records into the store, then events, effects, reply.

use std::collections::VecDeque;

use medevo_core::{Core, Event, Input, Millis, Order, Outcome, Output, Record, Reply};
use medevo_types::{
    Attempt, Generation, Step, Term, WorkerTag,
    messages::{Envelope, Report},
};

use super::{
    Mutation, World,
    coordinator::{Knock, Role},
    network::{Back, Response},
    queue::Happening,
    store::{Write, Written},
    told,
};
use crate::scorer::Scorer;

/// How long one write may take, all tries together, before the driver stops.
const STORE: Millis = 3_000;
/// How long a worker that asks is kept waiting for work.
const LONG_POLL: Millis = 300;

/// An input that waits for its turn.
#[derive(Debug)]
struct Arrived {
    at: Millis,
    input: Input,
    back: Option<Back>,
}

/// A worker that waits for work.
#[derive(Debug)]
struct Poll {
    tag: WorkerTag,
    back: Back,
    until: Millis,
}

/// An output whose records are on their way to the store.
#[derive(Debug)]
struct Writing {
    output: Output,
    back: Option<Back>,
    pulled: Option<WorkerTag>,
    since: Millis,
}

/// A coordinator that leads, or believes that it does.
#[derive(Debug)]
pub(super) struct Driver {
    pub core: Core,
    pub term: Term,
    /// Until when it may believe so, by its own clock.
    pub lease_until: Millis,
    now: Millis,
    pub scorer: Scorer,
    inbox: VecDeque<Arrived>,
    polls: Vec<Poll>,
    writing: Option<Writing>,
    /// Records written in this term.
    written: u64,
    /// The last update that was ordered, and the last ballot, for [`Mutation::StaleBallots`].
    trying: Option<(Generation, Step, Attempt)>,
    ballot: Option<Box<Envelope>>,
}

impl Driver {
    pub fn new(core: Core, term: Term, scorer: Scorer, lease_until: Millis) -> Self {
        Self {
            core,
            term,
            lease_until,
            now: 0,
            scorer,
            inbox: VecDeque::new(),
            polls: Vec::new(),
            writing: None,
            written: 0,
            trying: None,
            ballot: None,
        }
    }
}

impl World {
    pub(super) fn driver(&mut self, coordinator: usize) -> Option<&mut Driver> {
        match &mut self.coordinators[coordinator].role {
            Role::Leads(driver) => Some(driver),
            Role::StandsBy => None,
        }
    }

    /// An input arrives.
    pub(super) fn input(&mut self, coordinator: usize, input: Input, back: Option<Back>) {
        let at = self.clock(coordinator);
        let Some(driver) = self.driver(coordinator) else { return };
        driver.inbox.push_back(Arrived { at, input, back });
        self.pump(coordinator);
    }

    /// Takes inputs until one has to be written down.
    pub(super) fn pump(&mut self, coordinator: usize) {
        loop {
            let clock = self.clock(coordinator);
            let (fenced, mutation) = (self.plan.fenced, self.mutation);
            let Some(driver) = self.driver(coordinator) else { return };
            if driver.writing.is_some() || driver.inbox.is_empty() {
                return;
            }
            if fenced && clock >= driver.lease_until {
                return self.halt(coordinator, "its lease has run out");
            }
            let Some(Arrived { at, mut input, back }) = driver.inbox.pop_front() else { return };
            driver.now = driver.now.max(at);
            // The checker sees what was sent.
            let sent = input.clone();
            if mutation == Some(Mutation::StaleBallots) {
                freshen(&mut input, driver);
            }
            let now = driver.now;
            let mut output = driver.core.step(now, input);
            if mutation == Some(Mutation::SilentRejections) {
                output.events.retain(|event| !matches!(event, Event::Rejected { .. }));
            }
            let pulled = match &sent {
                Input::Pull(tag) => Some(tag.clone()),
                _ => None,
            };
            self.check(coordinator, now, &sent, &output);
            let early = mutation == Some(Mutation::ActBeforePersist);
            if output.records.is_empty() || early {
                if early && !output.records.is_empty() {
                    self.write(coordinator, output.records.clone());
                }
                self.act(coordinator, output, back, pulled);
            } else {
                let records = output.records.clone();
                let Some(driver) = self.driver(coordinator) else { return };
                driver.writing = Some(Writing { output, back, pulled, since: clock });
                self.write(coordinator, records);
            }
        }
    }

    fn leads(&self, coordinator: usize) -> bool {
        match &self.coordinators[coordinator].role {
            Role::Leads(driver) => driver.term == self.store.term,
            Role::StandsBy => false,
        }
    }

    fn check(&mut self, coordinator: usize, now: Millis, input: &Input, output: &Output) {
        if let Role::Leads(driver) = &self.coordinators[coordinator].role {
            self.checker.explained(&driver.core, now);
            if driver.term == self.store.term {
                self.checker.reported(input, output, &driver.core, now);
                self.checker.stepped(input, output);
            }
            let heartbeat = matches!(input, Input::Heartbeat(_) | Input::Tick | Input::Pull(_));
            if !heartbeat || !output.events.is_empty() {
                let term = driver.term;
                self.trace.note(self.now, || {
                    let (input, output) = (told::input(input), told::output(output));
                    format!("c{coordinator} t{term} {input} -> {output}")
                });
            }
        }
    }

    fn write(&mut self, coordinator: usize, records: Vec<Record>) {
        let process = self.coordinators[coordinator].process;
        let Some(driver) = self.driver(coordinator) else { return };
        let (term, number) = (driver.term, driver.written);
        let at = self.now + self.random.delay(2, 30);
        let write = Write { coordinator, process, term, number, records };
        self.queue.at(at, Happening::Store(write));
    }

    /// The store has answered.
    pub(super) fn written(&mut self, coordinator: usize, number: u64, written: Written) {
        let clock = self.clock(coordinator);
        let mutated = self.mutation == Some(Mutation::ActBeforePersist);
        let Some(driver) = self.driver(coordinator) else { return };
        if mutated {
            return;
        }
        let current = driver.written == number;
        let Some(writing) = driver.writing.take_if(|_| current) else { return };
        match written {
            Written::Done => {
                driver.written += writing.output.records.len() as u64;
                self.act(coordinator, writing.output, writing.back, writing.pulled);
                self.pump(coordinator);
            }
            Written::NotYours => self.halt(coordinator, "another leads"),
            Written::Unavailable if clock >= writing.since + STORE => {
                self.halt(coordinator, "the store does not answer");
            }
            Written::Unavailable => {
                let records = writing.output.records.clone();
                driver.writing = Some(writing);
                self.write(coordinator, records);
            }
        }
    }

    /// The records are in the store: events, effects, reply.
    fn act(
        &mut self,
        coordinator: usize,
        output: Output,
        back: Option<Back>,
        pulled: Option<WorkerTag>,
    ) {
        let leads = self.leads(coordinator);
        let clock = self.clock(coordinator);
        let Some(driver) = self.driver(coordinator) else { return };
        if output.records.iter().any(|record| matches!(record, Record::Rollback { .. })) {
            driver.scorer.go_back();
        }
        let now = driver.now;
        if leads {
            self.checker.acted(now, &output);
            for event in &output.events {
                self.look(event);
            }
        }
        let Output { events, effects, reply, wake, .. } = output;
        for event in &events {
            if let Event::Finished(Outcome::Failed { reason }) = event {
                self.failed(reason);
            }
        }
        for effect in effects {
            self.carry_out(coordinator, effect);
        }
        if wake && let Some(driver) = self.driver(coordinator) {
            let polls = std::mem::take(&mut driver.polls);
            for Poll { tag, back, until } in polls {
                driver.polls.push(Poll { tag: tag.clone(), back, until });
                let input = Input::Pull(tag);
                driver.inbox.push_back(Arrived { at: clock, input, back: Some(back) });
            }
        }
        // A heartbeat's answer is not looked at.
        if let (Some(reply), Some(back)) = (reply, back.filter(|back| back.id > 0)) {
            self.reply(coordinator, back, reply, pulled);
        }
    }

    fn reply(&mut self, coordinator: usize, back: Back, reply: Reply, pulled: Option<WorkerTag>) {
        let clock = self.clock(coordinator);
        let process = self.coordinators[coordinator].process;
        let stale = self.mutation == Some(Mutation::StaleBallots);
        let Role::Leads(driver) = &mut self.coordinators[coordinator].role else { return };
        let response = match reply {
            Reply::Join(answer) => Response::Join(answer),
            Reply::Ack(answer) => Response::Ack(answer),
            Reply::Order(Ok(Order::Wait { .. })) => {
                let waiting = driver.polls.iter().position(|poll| {
                    poll.back.id == back.id
                        && poll.back.worker == back.worker
                        && poll.back.process == back.process
                });
                let until = match (waiting, pulled) {
                    (Some(index), _) => driver.polls[index].until,
                    (None, Some(tag)) => {
                        let until = clock + LONG_POLL;
                        driver.polls.push(Poll { tag, back, until });
                        let knock = Knock::PollEnds(back);
                        let at = self.now + LONG_POLL;
                        self.queue.at(at, Happening::Coordinator { coordinator, process, knock });
                        until
                    }
                    (None, None) => return,
                };
                if clock < until {
                    return;
                }
                Response::Order(Ok(Box::new(Order::Wait { reason: String::new() })))
            }
            Reply::Order(answer) => {
                if let Ok(Order::Update { generation, step, attempt, .. }) = &answer {
                    driver.trying = Some((*generation, *step, *attempt));
                    if stale && let Some(ballot) = driver.ballot.take_if(|b| b.step == *step) {
                        let input = Input::Report(ballot);
                        driver.inbox.push_back(Arrived { at: clock, input, back: None });
                    }
                }
                Response::Order(answer.map(Box::new))
            }
        };
        driver.polls.retain(|poll| poll.back.id != back.id || poll.back.worker != back.worker);
        self.answer(coordinator, back, response);
    }

    /// A worker has waited long enough.
    pub(super) fn poll_ends(&mut self, coordinator: usize, back: Back) {
        let Some(driver) = self.driver(coordinator) else { return };
        let same = |poll: &Poll| poll.back.id == back.id && poll.back.worker == back.worker;
        let Some(index) = driver.polls.iter().position(same) else { return };
        driver.polls.remove(index);
        let wait = Order::Wait { reason: String::new() };
        self.answer(coordinator, back, Response::Order(Ok(Box::new(wait))));
    }

    /// Ranks that agree are looked at.
    fn look(&self, event: &Event) {
        let Event::DigestsAgree { generation, .. } = event else { return };
        for worker in self.workers.iter().filter(|worker| worker.alive) {
            if worker.engine.standing == Some(*generation) {
                self.checker.ranks_hold(&worker.name, worker.engine.holding.as_ref());
            }
        }
    }

    /// A run that fails while things go wrong is resumed by somebody; later it must not.
    fn failed(&mut self, reason: &str) {
        let late = self.plan.faults_end + 30_000;
        assert!(self.now < late, "the run failed long after the last fault: {reason}");
        self.figures.resumed += 1;
        self.reasons.insert(reason.to_owned());
    }
}

/// What [`Mutation::StaleBallots`] does to a ballot: it counts for the try under way, and comes again.
fn freshen(input: &mut Input, driver: &mut Driver) {
    if let (Input::Report(envelope), Some((generation, step, attempt))) = (input, driver.trying)
        && matches!(envelope.body, Report::Ballot(_))
        && envelope.step == step
    {
        driver.ballot = Some(envelope.clone());
        (envelope.generation, envelope.attempt) = (generation, attempt);
    }
}
