//! Where checkpoints are copied to.

use medevo_common::config::ValidConfig;

use super::Finding;
use crate::copies::Destination;

const ADVICE: &str = "check checkpoint.copy_to and checkpoint.endpoint, and AWS_ACCESS_KEY_ID and its like in the environment";

/// Whether it can be written, by a small object that goes again; none for a run without copies.
pub(super) async fn finding(config: &ValidConfig) -> Option<Finding> {
    let opened = Destination::of_run(&config.checkpoint, &config.run.name).transpose()?;
    Some(match opened {
        Err(error) => Finding::failed("copies", format!("{error:#}"), ADVICE),
        Ok(destination) => match destination.probe().await {
            Ok(()) => Finding::ok("copies", format!("{} can be written", destination.url())),
            Err(error) => Finding::failed("copies", format!("{error:#}"), ADVICE),
        },
    })
}
