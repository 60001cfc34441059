//! What is done in a run, and how often.

use fastrand::Rng;

use super::people::Person;
use super::plan::Kind;
use crate::drawn;

/// A thing that somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Make a backup; at the limit, delete the oldest first.
    Routine,
    /// Make one with all that a body may have.
    Create,
    /// Several at once.
    Burst,
    List,
    Delete,
    DeleteTwice,
    /// Look at one.
    Show,
    /// Change one.
    Patch,
    /// Make one and do not wait for the answer.
    GiveUp,
    /// Somebody without the right key.
    Stranger,
    /// Requests that are wrong.
    Malformed,
    /// A key is revoked, and there is another one.
    Keys,
    /// The control plane changes something, this if it is named, and mends it later.
    Registry(Option<u8>),
    /// An event that is not ours, or not one at all.
    ForeignEvent,
    /// Restore a backup.
    Restore,
    /// Look at the restores.
    Restores,
    /// An operator orders something of a restore.
    Order,
    /// Set, read, or delete a schedule.
    Schedule,
    /// Set one of every twenty minutes.
    SetSchedule,
    /// Delete it, until that is answered.
    Unschedule,
    /// Ask more often than a key may.
    Rush,
    /// Many deployments come and go at once.
    Crowd,
    /// A restore of a backup whose time is nearly over.
    RestoreLate,
    /// Read it.
    ReadSchedule,
    /// The control plane is about to upgrade a deployment.
    Upgrade,
}

impl Doing {
    /// Each, with how often it is drawn.
    const ALL: [(Self, u32); 19] = [
        (Self::Routine, 50),
        (Self::Create, 14),
        (Self::Burst, 6),
        (Self::List, 6),
        (Self::Delete, 8),
        (Self::DeleteTwice, 3),
        (Self::Show, 2),
        (Self::Patch, 6),
        (Self::GiveUp, 4),
        (Self::Stranger, 4),
        (Self::Malformed, 4),
        (Self::Keys, 3),
        (Self::Registry(None), 5),
        (Self::ForeignEvent, 3),
        // Seeds of their own do these: a restore costs as much as five backups.
        (Self::Restore, 0),
        (Self::Restores, 0),
        (Self::Order, 0),
        // So do these: what runs by itself goes on until the end.
        (Self::Schedule, 0),
        (Self::Upgrade, 0),
    ];

    /// What is done where schedules and upgrades are what it is about.
    const SCHEDULING: [(Self, u32); 10] = [
        (Self::Schedule, 34),
        (Self::Registry(Some(Person::STATUS)), 8),
        (Self::Upgrade, 18),
        (Self::Patch, 4),
        (Self::Routine, 14),
        (Self::Create, 6),
        (Self::Delete, 8),
        (Self::List, 4),
        (Self::Registry(None), 12),
        (Self::Stranger, 4),
    ];

    /// What is done where slots fall into restores.
    const BOTH: [(Self, u32); 8] = [
        (Self::Schedule, 34),
        (Self::Restore, 24),
        (Self::Upgrade, 10),
        (Self::Routine, 16),
        (Self::Delete, 4),
        (Self::Order, 4),
        (Self::Restores, 4),
        (Self::Registry(None), 4),
    ];

    /// What is done in weeks of schedules: limits go up and down, backups expire, and
    /// people delete some.
    const WEEKS: [(Self, u32); 10] = [
        (Self::Schedule, 26),
        (Self::Registry(Some(Person::STATUS)), 8),
        (Self::Registry(Some(Person::LIMIT)), 22),
        (Self::Delete, 18),
        (Self::Patch, 14),
        (Self::Routine, 10),
        (Self::Upgrade, 8),
        (Self::List, 4),
        (Self::Registry(None), 10),
        (Self::Stranger, 2),
    ];

    /// What is done where restores are what it is about.
    const RESTORING: [(Self, u32); 11] = [
        (Self::Routine, 30),
        (Self::Create, 4),
        (Self::Delete, 4),
        (Self::Show, 2),
        (Self::Patch, 4),
        (Self::List, 2),
        (Self::Restore, 40),
        (Self::Restores, 8),
        (Self::Order, 4),
        (Self::Registry(None), 5),
        (Self::Stranger, 3),
    ];

    /// One, as often as it is done.
    pub(crate) fn draw(rng: &mut Rng, kind: Kind) -> Self {
        let all = match kind {
            Kind::Restores => &Self::RESTORING[..],
            Kind::Schedules => &Self::SCHEDULING,
            Kind::ScheduledWeeks => &Self::WEEKS,
            Kind::ScheduledRestores => &Self::BOTH,
            _ => &Self::ALL,
        };
        drawn(rng, all)
    }

    /// Each of them but schedules, which have a script of their own: they go on when all
    /// is to be at rest.
    pub(crate) fn every() -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter().map(|(doing, _)| doing);
        all.filter(|doing| *doing != Self::Schedule)
    }
}
