//! Carrying out one directive: engine and communicator, from the engine thread only.

use std::{sync::Arc, time::Duration};

use medevo_collective::{Collective, CollectiveError, Gloo, Nccl, Solo};
use medevo_engine::EngineError;
use medevo_rpc::Client;
use medevo_types::{
    Generation, WorkerTag,
    messages::{Directive, Envelope, Report, Roster},
};
use tch::Device;
use tokio::runtime::Handle;

use crate::{
    directive::{Place, name},
    fault::{Fault, Point},
    port::Engine,
    rendezvous::OverRpc,
};

/// The communicator of one generation.
struct Standing {
    generation: Generation,
    group: Box<dyn Collective>,
}

/// Everything that a directive can touch.
pub(crate) struct Executor {
    pub engine: Box<dyn Engine>,
    pub collective_timeout: Duration,
    pub runtime: Handle,
    pub client: Arc<Client>,
    pub fault: Fault,
    standing: Option<Standing>,
    /// The last generation that was formed or tried, for reports that belong to none.
    last: Generation,
}

impl Executor {
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        collective_timeout: Duration,
        runtime: Handle,
        client: Arc<Client>,
        fault: Fault,
    ) -> Self {
        let last = Generation::default();
        Self { engine, collective_timeout, runtime, client, fault, standing: None, last }
    }

    /// The last generation that this worker took part in.
    pub(crate) fn generation(&self) -> Generation {
        self.last
    }

    /// Does what is asked and says what came of it.
    pub(crate) fn carry_out(&mut self, from: &WorkerTag, directive: &Directive) -> Envelope {
        let place = Place::of(directive, self.last);
        let body = match self.attempt(from, directive) {
            Ok(report) => report,
            Err(EngineError::Collective(error)) => self.collective_failed(error),
            Err(error) => Report::Failed {
                what: name(directive).to_owned(),
                retryable: error.retryable(),
                error: error.to_string(),
            },
        };
        place.envelope(from.clone(), body)
    }

    fn attempt(&mut self, from: &WorkerTag, directive: &Directive) -> Result<Report, EngineError> {
        let fault = self.fault.clone();
        match directive {
            Directive::Form(roster) => {
                fault.reached(Point::Form, roster.generation.0);
                self.form(from, roster)?;
                let group = standing(&mut self.standing, roster.generation, "form")?;
                let holding = self.engine.assemble(group)?;
                Ok(Report::Formed { holding })
            }
            Directive::Restore(restore) => {
                fault.reached(Point::Restore, restore.generation.0);
                let group = standing(&mut self.standing, restore.generation, "restore")?;
                let holding = self.engine.restore(&restore.source, restore.policy, group)?;
                Ok(Report::Restored { holding })
            }
            Directive::Rollout(unit) => {
                fault.reached(Point::Rollout, unit.step.0);
                let groups = self.engine.rollout(unit)?;
                Ok(Report::RolloutDone { unit: unit.unit, policy: unit.policy, groups })
            }
            Directive::Update(work) => {
                fault.reached(Point::Update, work.step.0);
                let group = standing(&mut self.standing, work.generation, "update")?;
                let ballot = self.engine.update(work, group)?;
                fault.reached(Point::Ballot, work.step.0);
                Ok(Report::Ballot(ballot))
            }
            Directive::Apply(work) => {
                fault.reached(Point::Apply, work.step.0);
                let group = standing(&mut self.standing, work.generation, "apply")?;
                let holding = self.engine.apply(work, group)?;
                fault.reached(Point::Applied, work.step.0);
                Ok(Report::Applied { holding })
            }
            Directive::Checkpoint(work) => {
                fault.reached(Point::Checkpoint, work.step.0);
                let files = self.engine.save(work)?;
                Ok(Report::CheckpointWritten { files })
            }
            Directive::Wait { .. } | Directive::Stop { .. } => Err(EngineError::Refused {
                what: name(directive).to_owned(),
                why: "it is no work; the agent keeps it to itself".to_owned(),
            }),
        }
    }

    /// Drops the old communicator and forms the roster's. A gradient that was reduced over the old one
    /// is void with it.
    fn form(&mut self, from: &WorkerTag, roster: &Roster) -> Result<(), CollectiveError> {
        self.standing = None;
        self.engine.discard();
        self.last = roster.generation;
        let world = roster.members.len();
        let Some(me) = roster.members.get(roster.rank) else {
            let rank = roster.rank;
            let message =
                format!("the roster names {world} members and gives this worker rank {rank}");
            return Err(CollectiveError::new("form", message));
        };
        let rendezvous = OverRpc {
            runtime: self.runtime.clone(),
            client: Arc::clone(&self.client),
            from: from.clone(),
        };
        let prefix = roster.generation.to_string();
        let (rank, timeout) = (roster.rank, self.collective_timeout);
        let group: Box<dyn Collective> = match self.engine.device() {
            _ if world == 1 => Box::new(Solo),
            Device::Cuda(gpu) => {
                Box::new(Nccl::form(&rendezvous, &prefix, rank, world, gpu, timeout)?)
            }
            _ => {
                let rendezvous = Arc::new(rendezvous);
                Box::new(Gloo::form(rendezvous, &prefix, rank, world, &me.address, timeout)?)
            }
        };
        self.standing = Some(Standing { generation: roster.generation, group });
        Ok(())
    }

    /// Gives the communicator up: its peers may have left it at another point.
    fn collective_failed(&mut self, error: CollectiveError) -> Report {
        self.standing = None;
        self.engine.discard();
        Report::CollectiveFailed { operation: error.operation, error: error.message }
    }
}

/// The communicator of `generation`; without it a directive cannot be carried out, and only a new
/// generation helps.
fn standing<'a>(
    held: &'a mut Option<Standing>,
    generation: Generation,
    operation: &str,
) -> Result<&'a mut dyn Collective, CollectiveError> {
    let message = match held {
        Some(Standing { generation: of, group }) if *of == generation => {
            return Ok(group.as_mut());
        }
        Some(Standing { generation: of, .. }) => format!(
            "generation {generation} is asked for and the communicator is that of generation {of}"
        ),
        None => format!("there is no communicator of generation {generation}"),
    };
    Err(CollectiveError::new(operation, message))
}
