//! What coordinator and workers say to each other. Small: ids, token ids, short texts, features.
//! No type here can hold a reference answer, except [`SftExample`], which only a supervised stage sends
//! (INV-9).

mod directive;
mod join;
mod report;
mod rollout;
mod update;

pub use directive::*;
pub use join::*;
pub use report::*;
pub use rollout::*;
pub use update::*;
