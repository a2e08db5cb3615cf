//! The five counters (ARCHITECTURE.md) and the names of things. A newtype each, so that the compiler
//! refuses a step where a generation is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// The next value; counters only ever move by this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Leadership of the coordinator; bumped by a coordinator that takes over; never repeats.
    Term
);
counter!(
    /// One life of one worker process; chosen by the worker at start; never reused after a crash.
    Incarnation
);
counter!(
    /// One roster of ranks and one communicator; never repeats, even across coordinator restarts.
    Generation
);
counter!(
    /// One set of weights: the number of committed updates behind it. Moves only when one commits, and
    /// back only with an explicit rollback to a checkpoint.
    PolicyVersion
);
counter!(
    /// One try at an update of one step; bumped when a try is voided.
    Attempt
);
counter!(
    /// Position in the run: steps are numbered from 1 over all training stages; 0 is before the first.
    Step
);
counter!(
    /// One unit of rollout work. Unique over the whole run (the high bits hold the term), so a report
    /// from before a restart can never be taken for a current one.
    UnitId
);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.to_owned())
            }
        }
    };
}

name!(
    /// A worker's name, stable over its lives ("w0").
    WorkerId
);
name!(
    /// A question's id, unique in its data set.
    SampleId
);
name!(
    /// A BLAKE3 digest as 64 lower-case hex digits.
    Digest
);

/// A worker in one of its lives: the sender of every report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerTag {
    /// Which worker.
    pub worker: WorkerId,
    /// Which life of it.
    pub incarnation: Incarnation,
}
