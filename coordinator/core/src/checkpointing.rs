//! Checkpointing: files, then the manifest, then the pointer (INV-5).

use std::{collections::BTreeMap, ops::Range};

use medevo_types::{
    Digest,
    messages::{FileEntry, Rejection},
};

use crate::{
    CheckpointRef, Core, Effect, Event, Millis, Outcome, Output, Record,
    phase::{Checkpointing, Phase, Save, SaveReason, SaveTurn, Work},
    plan::TrainStep,
    weights::Weights,
};

/// Tries at one checkpoint.
const MAX_SAVES: u32 = 3;
/// Directory numbers that one term may use for a step that an earlier term had reached already.
const TRIES_PER_TERM: u64 = 100;

impl Core {
    /// The checkpoint that is due after a cycle's last step, else the next piece of work. Within a cycle none is
    /// written: it would have to hold the scored groups.
    pub(crate) fn save_if_due(&self, at: TrainStep) -> Work {
        let why = if self.position.stage > at.stage {
            SaveReason::StageEnd
        } else if at.due(self.spec.checkpoint_every, at.step.0) {
            SaveReason::Periodic
        } else {
            return Work::Next;
        };
        Work::Save(Save { why, failures: 0 })
    }

    /// Whether the pointer already names exactly this state.
    pub(crate) fn saved(&self) -> bool {
        match &self.checkpoint {
            Some(c) => c.position == self.position && c.policy == self.policy,
            None => self.position == crate::Position::default(),
        }
    }

    /// The ranks that write a checkpoint's files.
    pub(crate) fn writers(&self) -> Range<usize> {
        0..if self.spec.sharded { self.seats.ranks.len() } else { 1 }
    }

    /// Asks for a checkpoint's files.
    pub(crate) fn save(&mut self, now: Millis, save: Save, out: &mut Output) {
        let Weights::Known(holding) = self.weights.clone() else {
            return self.form(now, Work::Save(save), "the weights are not agreed on", out);
        };
        if !self.seats.whole() {
            return self.form(now, Work::Save(save), "the roster changed", out);
        }
        let checkpoint = self.next_checkpoint(holding);
        let deadline = now + self.spec.deadlines.checkpoint_ms;
        let (turn, files) = (SaveTurn::Files, BTreeMap::new());
        let checkpointing = Checkpointing { save, checkpoint, turn, files, deadline };
        self.enter(now, Phase::Checkpointing(checkpointing), out);
    }

    /// A checkpoint of the current state in a directory that no try has used before: tries of this term
    /// are counted, and steps that an earlier term may have tried start at a number of this term's own.
    fn next_checkpoint(&mut self, holding: Digest) -> CheckpointRef {
        let tries = self.save_tries.entry(self.committed).or_insert(0);
        *tries += 1;
        let earlier = self.term.0.saturating_sub(1) * TRIES_PER_TERM;
        let number = if self.committed <= self.reached { earlier + *tries } else { *tries };
        let name = match number {
            1 => format!("step-{:06}", self.committed.0),
            _ => format!("step-{:06}-{number}", self.committed.0),
        };
        CheckpointRef {
            dir: self.spec.checkpoints.join(name),
            step: self.committed,
            policy: self.policy,
            position: self.position,
            holding,
            reference: self.reference.clone().filter(|_| self.position.done > 0),
            untrained: self.position.done > 0
                && self.stage_start == Some((self.position.stage, self.policy)),
        }
    }

    /// A rank has written its files. Once all are there, the driver checks them and writes the manifest.
    pub(crate) fn files_written(
        &mut self,
        now: Millis,
        rank: usize,
        files: Vec<FileEntry>,
        out: &mut Output,
    ) -> Result<(), Rejection> {
        let manifest_by = now + self.spec.deadlines.checkpoint_ms;
        let writers = self.writers();
        let Phase::Checkpointing(saving) = &mut self.phase else {
            return Err(Rejection::Unexpected);
        };
        if !writers.contains(&rank) {
            return Err(Rejection::Unexpected);
        }
        if saving.turn == SaveTurn::Manifest || saving.files.contains_key(&rank) {
            return Err(Rejection::Duplicate);
        }
        saving.files.insert(rank, files);
        if saving.files.len() < writers.len() {
            return Ok(());
        }
        let mut files: Vec<FileEntry> =
            std::mem::take(&mut saving.files).into_values().flatten().collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        saving.turn = SaveTurn::Manifest;
        saving.deadline = manifest_by;
        let checkpoint = saving.checkpoint.clone();
        out.effects.push(Effect::WriteManifest { checkpoint, files });
        Ok(())
    }

    /// The manifest is on disk: the pointer moves.
    pub(crate) fn manifest_written(
        &mut self,
        now: Millis,
        written: CheckpointRef,
        out: &mut Output,
    ) {
        let Phase::Checkpointing(saving) = &self.phase else { return };
        if saving.turn != SaveTurn::Manifest || saving.checkpoint != written {
            return;
        }
        let why = saving.save.why;
        let (step, dir) = (written.step, written.dir.clone());
        out.records.push(Record::Checkpoint(written.clone()));
        out.events.push(Event::CheckpointPublished { step, dir });
        self.checkpoint = Some(written);
        self.rollbacks = 0;
        match why {
            SaveReason::Drain => self.finish_drained(now, None, out),
            _ => self.start(now, Work::Next, out),
        }
    }

    /// A try at a checkpoint came to nothing: another rank tries in a fresh directory.
    pub(crate) fn save_failed(&mut self, now: Millis, error: &str, out: &mut Output) {
        let Phase::Checkpointing(saving) = &mut self.phase else { return };
        saving.save.failures += 1;
        if saving.save.failures < MAX_SAVES {
            let reason = format!("checkpoint failed: {error}");
            return self.regroup(now, &reason, out);
        }
        let (why, step, dir) =
            (saving.save.why, saving.checkpoint.step, saving.checkpoint.dir.clone());
        let error = format!("{MAX_SAVES} tries failed, last in {}: {error}", dir.display());
        out.events.push(Event::CheckpointFailed { step, error: error.clone() });
        match why {
            SaveReason::Periodic | SaveReason::StageEnd => {
                self.phase = Phase::Starting;
                self.start(now, Work::Next, out);
            }
            SaveReason::Reference => {
                let reason = format!(
                    "the stage that begins needs a checkpoint after step {step} as its KL \
                     reference: {error}; free some space or set objective.beta = 0"
                );
                self.fail(now, reason, out);
            }
            SaveReason::Drain => self.finish_drained(now, Some(&error), out),
        }
    }

    /// The driver found files or manifest bad.
    pub(crate) fn manifest_failed(
        &mut self,
        now: Millis,
        step: medevo_types::Step,
        error: &str,
        out: &mut Output,
    ) {
        if let Phase::Checkpointing(saving) = &self.phase
            && saving.turn == SaveTurn::Manifest
            && saving.checkpoint.step == step
        {
            self.save_failed(now, error, out);
        }
    }

    /// Workers are lost while a checkpoint is written; only those that write are missed.
    pub(crate) fn writer_lost(
        &mut self,
        now: Millis,
        ranks: &[usize],
        reason: &str,
        out: &mut Output,
    ) {
        if let Phase::Checkpointing(saving) = &self.phase
            && saving.turn == SaveTurn::Files
            && ranks.iter().any(|rank| self.writers().contains(rank))
        {
            self.save_failed(now, reason, out);
        }
    }

    /// Time is up for files or manifest.
    pub(crate) fn saving_overdue(&mut self, now: Millis, out: &mut Output) {
        let Phase::Checkpointing(saving) = &self.phase else { return };
        let late = match saving.turn {
            SaveTurn::Files => {
                self.seats.names(self.writers().filter(|rank| !saving.files.contains_key(rank)))
            }
            SaveTurn::Manifest => "the manifest".to_owned(),
        };
        self.save_failed(now, &format!("{late} was not ready in time"), out);
    }

    /// Ends a drained run.
    pub(crate) fn finish_drained(&mut self, now: Millis, lost: Option<&str>, out: &mut Output) {
        let why = self.drain.clone().unwrap_or_else(|| "drained".to_owned());
        let reason = match lost {
            None => why,
            Some(error) => {
                let from = self.checkpoint.as_ref().map_or(0, |c| c.step.0);
                format!(
                    "{why}; but WITHOUT a last checkpoint, resume goes on from step {from}: {error}"
                )
            }
        };
        self.finish(now, Outcome::Drained { reason }, out);
    }
}
