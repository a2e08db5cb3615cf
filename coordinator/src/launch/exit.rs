//! How a command ends.

use std::process::ExitCode;

use medevo_core::Ending;

/// Exit codes; `medevo-coord --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The run (or command) did what it was asked to.
    Done,
    /// The run failed; the reason is printed.
    Failed,
    /// Something that was given is not usable; nothing was started.
    BadInput,
    /// The run was drained on request and can be resumed.
    Drained,
    /// Another coordinator has taken the run over.
    Deposed,
    /// The run was stopped at once on request; it can be resumed from its last checkpoint.
    Stopped,
    /// The run goes on, without this command.
    LeftAlone,
}

impl Exit {
    /// What a coordinator's exit code says of its run; none where it says nothing.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Done, Self::Failed, Self::BadInput, Self::Drained, Self::Deposed, Self::Stopped]
            .into_iter()
            .zip(0..)
            .find_map(|(exit, number)| (number == code).then_some(exit))
    }
}

impl From<Ending> for Exit {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Done => Self::Done,
            Ending::Drained => Self::Drained,
            Ending::Stopped => Self::Stopped,
            Ending::Failed => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::BadInput => 2,
            Exit::Drained => 3,
            Exit::Deposed => 4,
            Exit::Stopped => 5,
            Exit::LeftAlone => 6,
        })
    }
}
