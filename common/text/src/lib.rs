//! Answer normalisation, answer metrics and intervals.
//!
//! Everything here is a pure function of its arguments. Token-level scores work on the tokens of the
//! strict normalisation; a [`Protocol`] decides what counts as correct; [`bootstrap`] says how sure a
//! mean is.

mod interval;
mod normalize;
mod protocol;
mod score;

pub use interval::{Interval, WinTieLoss, bootstrap, paired_bootstrap, win_tie_loss};
pub use normalize::{normalize, tokens};
pub use protocol::{Protocol, Verdict, judge};
pub use score::{bleu1, exact, rouge_l, token_f1, token_recall};
