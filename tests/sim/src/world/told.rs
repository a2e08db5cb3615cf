//! Inputs and outputs in a few words, for the trace.

use medevo_core::{Effect, Input, Output, Reply};
use medevo_types::messages::{Envelope, Report};

/// An input in a few words.
pub(super) fn input(input: &Input) -> String {
    match input {
        Input::Report(envelope) => {
            let Envelope { from, generation, step, attempt, body } = &**envelope;
            let what = match body {
                Report::RolloutDone { unit, policy, .. } => format!("rollout {unit} v{policy}"),
                Report::Failed { what, error, .. } => format!("failed {what}: {error}"),
                other => other.name().to_owned(),
            };
            let life = from.incarnation;
            format!("{}/{life} reports g{generation} s{step} a{attempt} {what}", from.worker)
        }
        Input::Scored(scored) => format!("scored {} v{}", scored.step, scored.policy),
        other => format!("{other:?}"),
    }
}

/// An output in a few words.
pub(super) fn output(output: &Output) -> String {
    let reply = match &output.reply {
        Some(Reply::Ack(answer)) => format!("{answer:?}"),
        Some(Reply::Join(answer)) => format!("{answer:?}"),
        _ => String::new(),
    };
    let effects = output.effects.iter().map(|effect| match effect {
        Effect::Score { .. } => "score",
        Effect::WriteManifest { .. } => "manifest",
        Effect::Evaluated { .. } => "evaluated",
        Effect::Finish(_) => "finish",
    });
    let effects: Vec<_> = effects.collect();
    format!("{reply} {:?} {effects:?}", output.events)
}
