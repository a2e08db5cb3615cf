//! Words for people, on standard output and standard error.
//!
//! The standard macros panic when nobody reads any more (`status RUN | head -1`, a terminal that was
//! closed); a run of hours must not end for that.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Prints a line on standard output.
pub(crate) fn say(text: impl Display) {
    // Nobody reads it any more if this fails.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints a line on standard error.
pub(crate) fn complain(text: impl Display) {
    // As above.
    let _ = writeln!(io::stderr(), "{text}");
}
