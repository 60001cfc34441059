//! Where the sweep crashes a run.

use std::fmt;
use std::str::FromStr;

use super::plan::Fault;

/// A crash at a call of a recorded run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// The call, counted from the first one of a function. `u64::MAX`: none, the
    /// run is only recorded.
    pub call: u64,
    /// On which side of it.
    pub side: Side,
    /// And once more so many calls later, on the same side.
    pub again: Option<u64>,
}

impl CrashPoint {
    /// Whether this call is crashed at.
    pub(crate) fn is_at(self, number: u64) -> bool {
        let again = self.again.and_then(|after| self.call.checked_add(after));
        self.call == number || again == Some(number)
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.call, self.side.name())?;
        self.again.map_or(Ok(()), |after| write!(f, "+{after}"))
    }
}

impl FromStr for CrashPoint {
    type Err = String;

    /// As it is written: `17:after`, `17:after+5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let point = || {
            let (call, side) = text.split_once(':')?;
            let (side, again) = match side.split_once('+') {
                None => (side, None),
                Some((side, after)) => (side, Some(after.parse().ok()?)),
            };
            let side = Side::ALL.into_iter().find(|one| one.name() == side)?;
            Some(Self { call: call.parse().ok()?, side, again })
        };
        point()
            .ok_or_else(|| "not like 17:before, 17:after, 17:after-reply or 17:after+5".to_owned())
    }
}

/// Where a crash is, seen from a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Before it was sent.
    Before,
    /// AWS has carried it out, and nobody heard the reply.
    After,
    /// The reply was read, and nothing more was done.
    AfterReply,
}

impl Side {
    /// Every side.
    pub const ALL: [Self; 3] = [Self::Before, Self::After, Self::AfterReply];

    const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::AfterReply => "after-reply",
        }
    }

    /// The fault that crashes there.
    pub(crate) const fn fault(self) -> Fault {
        match self {
            Self::Before => Fault::CrashBefore,
            Self::After => Fault::CrashAfter,
            Self::AfterReply => Fault::CrashAfterReply,
        }
    }
}
