//! What a new coordinator makes of the records that it finds: the one place that knows how a run is recovered.

use medevo_core::{Record, Recovered};
use medevo_types::Term;

/// What the records say to a coordinator whose term is `term`.
#[must_use]
pub fn recovered<'a>(term: Term, records: impl IntoIterator<Item = &'a Record>) -> Recovered {
    let mut recovered = Recovered { term, ..Recovered::default() };
    for record in records {
        match record {
            Record::Generation(generation) => recovered.generation = *generation,
            Record::Commit { step, .. } => {
                recovered.committed = *step;
                recovered.reached = recovered.reached.max(*step);
            }
            Record::Rollback { step } => {
                recovered.committed = *step;
                if recovered.checkpoint.as_ref().is_some_and(|saved| saved.step > *step) {
                    recovered.checkpoint = None;
                }
            }
            Record::Checkpoint(checkpoint) => recovered.checkpoint = Some(checkpoint.clone()),
            Record::Finished(_) => {}
        }
    }
    recovered.reference = recovered.checkpoint.as_ref().and_then(|saved| saved.reference.clone());
    recovered
}
