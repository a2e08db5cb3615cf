//! `data check` and `data mini-slake`.

use std::path::Path;

use anyhow::Context;
use medevo_common::{
    dataset,
    mini_slake::{MiniSlake, generate},
};

use super::arguments::MiniSlakeArguments;
use crate::{launch::Exit, say::say};

/// Prints what a check found; bad data is bad input.
pub(super) fn check(path: &Path) -> anyhow::Result<Exit> {
    let report = dataset::check(path);
    say(&report);
    Ok(if report.is_clean() { Exit::Done } else { Exit::BadInput })
}

/// Generates the data set, or finds it already there.
pub(super) fn mini_slake(arguments: &MiniSlakeArguments) -> anyhow::Result<Exit> {
    let usual = MiniSlake::default();
    let options = MiniSlake {
        seed: arguments.seed,
        source_images: arguments.source_images.unwrap_or(usual.source_images),
        target_images: arguments.target_images.unwrap_or(usual.target_images),
        heldout_images: arguments.heldout_images.unwrap_or(usual.heldout_images),
        questions_per_image: arguments.questions_per_image.unwrap_or(usual.questions_per_image),
    };
    let summary = generate(&arguments.out, &options)
        .with_context(|| format!("generating mini-SLAKE in {}", arguments.out.display()))?;
    say(&summary);
    Ok(Exit::Done)
}
