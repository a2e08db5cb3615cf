//! Which evaluations of a run are "before", which are "after", and which data was adapted on.

use medevo_common::config::{DataSection, RunConfig, StageSection};

use crate::run_dir::{EvalKind, EvaluationRecord};

/// What a run's stages say about its evaluations.
///
/// *Before* is the last evaluate stage ahead of the first rl stage: it measures the very weights that the
/// adaptation starts from. *After* is the last evaluate stage behind an rl stage. In a run without an rl
/// stage they are the first and the last evaluate stage, if there are two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names of data sets that an rl stage trains on, or that show the same questions under another name.
    pub adapted: Vec<String>,
    /// Names of the other data sets that are evaluated.
    pub held_out: Vec<String>,
    /// Name of the stage that measured before.
    pub before: Option<String>,
    /// Name of the stage that measured after.
    pub after: Option<String>,
    /// Names of the rl stages; they may evaluate on their way.
    pub training: Vec<String>,
}

impl Selection {
    /// Reads the selection off the run file.
    #[must_use]
    pub fn of(config: &RunConfig) -> Self {
        let stages = &config.stage;
        let is_rl = |stage: &StageSection| matches!(stage, StageSection::Rl(_));
        let is_evaluate = |stage: &&StageSection| matches!(stage, StageSection::Evaluate(_));
        let name = |stage: &StageSection| stage.name().to_owned();
        let (before, after) = match stages.iter().position(is_rl) {
            Some(first) => (
                stages[..first].iter().rfind(is_evaluate).map(name),
                stages[first..].iter().rfind(is_evaluate).map(name),
            ),
            None => {
                let first = stages.iter().find(is_evaluate).map(name);
                let last = stages.iter().rfind(is_evaluate).map(name);
                (first.clone(), last.filter(|last| Some(last) != first.as_ref()))
            }
        };
        let trained: Vec<&DataSection> = stages
            .iter()
            .filter_map(|stage| match stage {
                StageSection::Rl(rl) => config.data.get(&rl.data),
                _ => None,
            })
            .collect();
        let mut selection = Self { before, after, ..Self::default() };
        for stage in stages {
            let evaluated: &[String] = match stage {
                StageSection::Sft(_) => &[],
                StageSection::Rl(rl) => {
                    selection.training.push(rl.name.clone());
                    &rl.evaluate
                }
                StageSection::Evaluate(evaluate) => &evaluate.data,
            };
            for data in evaluated {
                let adapted = config
                    .data
                    .get(data)
                    .is_some_and(|section| trained.iter().any(|t| same_questions(t, section)));
                let names = if adapted { &mut selection.adapted } else { &mut selection.held_out };
                if !names.contains(data) {
                    names.push(data.clone());
                }
            }
        }
        selection
    }

    /// Data sets that are evaluated: those adapted on first.
    pub fn data(&self) -> impl Iterator<Item = &String> {
        self.adapted.iter().chain(&self.held_out)
    }

    /// The record of this data before adaptation.
    #[must_use]
    pub fn before<'a>(
        &self,
        records: &'a [EvaluationRecord],
        data: &str,
        kind: EvalKind,
    ) -> Option<&'a EvaluationRecord> {
        let stage = self.before.as_ref()?;
        records.iter().rfind(|r| r.stage == *stage && r.data == data && r.kind == kind)
    }

    /// The record of this data after adaptation; while there is none, the latest that an rl stage made on
    /// its way.
    #[must_use]
    pub fn after<'a>(
        &self,
        records: &'a [EvaluationRecord],
        data: &str,
        kind: EvalKind,
    ) -> Option<&'a EvaluationRecord> {
        let of = |stage: &str| {
            records.iter().rfind(|r| r.stage == stage && r.data == data && r.kind == kind)
        };
        let last = self.after.as_deref().and_then(of);
        last.or_else(|| self.training.iter().rev().find_map(|stage| of(stage)))
    }
}

/// Whether two sections show the same questions; how many of them does not matter.
fn same_questions(a: &DataSection, b: &DataSection) -> bool {
    (&a.path, a.format, &a.split) == (&b.path, b.format, &b.split)
}
