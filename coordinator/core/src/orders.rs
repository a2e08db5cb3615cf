//! What a worker that pulls is told to do.

use medevo_types::{
    WorkerTag,
    messages::{Rejection, Restore, Roster},
};

use crate::{
    Core, Millis, Order, Outcome, Output,
    phase::{Committing, Phase, SaveTurn},
    plan,
};

impl Core {
    /// The order for a worker; pulling again gives the same one until it is reported done.
    pub(crate) fn pull(
        &mut self,
        now: Millis,
        tag: &WorkerTag,
        out: &mut Output,
    ) -> Result<Order, Rejection> {
        if let Phase::Finished(outcome) = &self.phase {
            return Ok(farewell(outcome));
        }
        self.membership.hear(now, tag)?;
        let order = match self.seats.rank(tag) {
            Some(rank) if self.units().is_none() => self.rank_order(rank),
            Some(_) => self.pull_unit(now, tag, out),
            None => None,
        };
        Ok(order.unwrap_or_else(|| Order::Wait { reason: self.explain(now) }))
    }

    /// What a rank has still to do in this phase.
    fn rank_order(&self, rank: usize) -> Option<Order> {
        let generation = self.seats.generation;
        match &self.phase {
            Phase::Linking(linking) if !linking.formed.contains_key(&rank) => {
                let members = linking.members.clone();
                Some(Order::Form(Roster { generation, members, rank }))
            }
            Phase::Restoring(restoring) if !restoring.restored.contains_key(&rank) => {
                let (policy, source) = (self.policy, restoring.source.clone());
                Some(Order::Restore(Restore { generation, policy, source }))
            }
            Phase::Updating(updating) if !updating.ballots.contains_key(&rank) => {
                Some(Order::Update {
                    generation,
                    step: updating.learn.at.step,
                    attempt: updating.learn.attempt,
                    policy: self.policy,
                    share: updating.shares.get(rank)?.clone(),
                })
            }
            Phase::Committing(committing) if !committing.applied.contains_key(&rank) => {
                self.apply_order(committing)
            }
            Phase::Checkpointing(saving)
                if saving.turn == SaveTurn::Files
                    && self.writers().contains(&rank)
                    && !saving.files.contains_key(&rank) =>
            {
                Some(Order::Checkpoint {
                    generation,
                    step: saving.checkpoint.step,
                    policy: saving.checkpoint.policy,
                    dir: saving.checkpoint.dir.clone(),
                })
            }
            _ => None,
        }
    }

    fn apply_order(&self, committing: &Committing) -> Option<Order> {
        let (optimizer, _) = plan::optimizer(&self.spec, committing.at.stage)?;
        Some(Order::Apply {
            generation: self.seats.generation,
            step: committing.at.step,
            attempt: committing.attempt,
            policy: self.policy,
            optimizer: optimizer.clone(),
            lr: committing.lr,
            reset_moments: committing.reset_moments,
        })
    }
}

/// What a worker is told at the end.
fn farewell(outcome: &Outcome) -> Order {
    let reason = match outcome {
        Outcome::Done => "the run is done".to_owned(),
        Outcome::Drained { reason } => format!("the run is drained: {reason}"),
        Outcome::Stopped { reason } => format!("the run was stopped at once: {reason}"),
        Outcome::Failed { reason } => format!("the run failed: {reason}"),
    };
    Order::Stop { reason, drained: matches!(outcome, Outcome::Drained { .. }) }
}
