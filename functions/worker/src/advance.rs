//! What an advance of any operation is made of: as far as it goes in one invocation.
//!
//! ```text
//!   read ─▶ publish outbox ─▶ look ─▶ step ─┬─ Record ─▶ store ──────────┐
//!     ▲                                     ├─ Act ─▶ store, call, store ┤
//!     │                                     ├─ Wait ─▶ store when, end   │
//!     │                                     └─ Rest, Remove ─▶ end       │
//!     └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Every store compares the row's revision: of two workers that meet, one goes
//! on and the other reads again. Calls that change EC2 are made under a lease
//! that the very store before them takes.

use std::time::Duration;

use backups_aws::random;
use backups_aws::sdk::{OPERATION, QUICK_OPERATION};
use backups_aws::table::{Stored, TableError};
use backups_core::brake::Brake;
use backups_core::id::Nonce;
use backups_core::limits::{LEASE, Limits};
use backups_core::operation::{CallError, Lease};
use backups_core::time::{Seconds, Time};

use crate::Worker;
use crate::operation::Operation;

/// A wait up to this is waited out in the invocation; a longer one is stored.
const SHORT: Seconds = Seconds(10);

/// What is kept of an invocation's time for its last store.
const RESERVE: Duration = Duration::from_secs(QUICK_OPERATION.as_secs() + 1);

/// How long one look may take, all its pages together. What takes longer is
/// looked at again, later and with fewer others.
pub(crate) const LOOK: Duration = OPERATION;

/// The least time for a look while a deployment is down, so that the worker need not hand
/// over with half of its time left. One that is cut off for want of time is looked at anew
/// by the next worker, at once.
const GLANCE: Duration = Duration::from_secs(8);

/// How long the bus may take: the row is due whether it answers or not.
pub(crate) const BUS: Duration = Duration::from_secs(3);

/// How often a store that met another's is tried anew with what EC2 answered.
const MERGES: u32 = 5;

/// When the invocation ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(tokio::time::Instant);

impl Deadline {
    pub(crate) fn after(remaining: Duration) -> Self {
        Self(tokio::time::Instant::now() + remaining)
    }

    /// Whether something that takes up to `span` fits, with the last store after it.
    pub(crate) fn fits(self, span: Duration) -> bool {
        tokio::time::Instant::now() + span + RESERVE < self.0
    }

    /// How long one look may take.
    pub(crate) fn look(self) -> Duration {
        let left = self.0.saturating_duration_since(tokio::time::Instant::now() + RESERVE);
        left.min(LOOK)
    }
}

/// One invocation's work on one operation.
pub(crate) struct Advance<'a> {
    pub(crate) worker: &'a Worker,
    /// What an operator has paused, read once for the invocation.
    pub(crate) brake: Brake,
    /// The stack's limits, as that holds them up.
    pub(crate) limits: Limits,
    /// Holds the leases of this invocation.
    owner: Nonce,
    /// Announcements that the bus surely has, and that the next store takes out.
    published: Vec<Nonce>,
    /// Whether this invocation has brought the operation on: a look, or a call that AWS
    /// did not answer well, does not.
    pub(crate) got_on: bool,
    pub(crate) until: Deadline,
}

impl<'a> Advance<'a> {
    /// # Errors
    /// The brake could not be read: then it is not known what may be done.
    pub(crate) async fn begin(
        worker: &'a Worker,
        announced: Option<Nonce>,
        until: Deadline,
    ) -> Result<Self, TableError> {
        let brake = worker.table.brake().await?;
        let limits = worker.limits_under(brake.hold());
        let published = announced.into_iter().collect();
        let owner = random::nonce();
        Ok(Self { worker, brake, limits, owner, published, got_on: false, until })
    }

    /// Whether somebody else acts on the row.
    pub(crate) fn is_others(&self, row: &impl Operation, now: Time) -> bool {
        is_others(row, &self.owner, now)
    }

    /// The lease under which the next calls are made.
    pub(crate) fn lease(&self, now: Time) -> Lease {
        Lease { owner: self.owner.clone(), until: now + LEASE }
    }

    /// Stores `next` over `row`, without what the bus has taken. None: somebody
    /// else wrote the row since it was read.
    pub(crate) async fn store<O: Operation>(
        &self,
        row: &O,
        next: O,
        due_at: Option<Time>,
    ) -> Result<Option<O>, TableError> {
        let next = self.without_published(&next);
        match row.write(self, next, due_at).await? {
            Stored::Yes(stored) => {
                row.stored(self, &stored).await?;
                Ok(Some(*stored))
            }
            Stored::Conflict => Ok(None),
        }
    }

    /// Stores what is about to be done, under a lease. None: somebody else was faster, and
    /// no call may be made.
    pub(crate) async fn intend<O: Operation>(
        &self,
        row: &O,
        mut intent: O,
    ) -> Result<Option<O>, TableError> {
        let now = self.worker.clock.now();
        intent.set_lease(Some(self.lease(now)));
        self.store(row, intent, Some(now + LEASE)).await
    }

    /// Stores what calls came to, and ends the lease. What AWS answered is merged into the
    /// newer row if there is one, never dropped. None: the row is gone, or every round was
    /// lost to others.
    pub(crate) async fn merge<O: Operation>(
        &mut self,
        mut row: O,
        got_on: bool,
        put: impl Fn(&mut O, Time) + Send + Sync,
    ) -> Result<Option<O>, TableError> {
        for _ in 0..MERGES {
            let now = self.worker.clock.now();
            let mut next = row.clone();
            put(&mut next, now);
            let_go(&mut next, &self.owner, now);
            if let Some(stored) = self.store(&row, next, Some(now + LEASE)).await? {
                self.got_on |= got_on;
                return Ok(Some(stored));
            }
            match row.reread(&self.worker.table).await? {
                Some(newer) => row = newer,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Publishes what the outbox holds and the bus has not taken yet.
    pub(crate) async fn publish(&mut self, row: &impl Operation) {
        let open = self.without_published(row).announcements();
        if !open.is_empty() {
            self.published.extend(self.worker.bus.publish(&open, BUS).await.taken);
        }
    }

    /// Waits if it is short and there is time; else stores when to look again.
    pub(crate) async fn wait<O: Operation>(
        &mut self,
        row: &O,
        until: Time,
        note: Option<O>,
    ) -> Result<Option<O>, TableError> {
        let now = self.worker.clock.now();
        let span = until - now;
        let short = span <= SHORT && self.until.fits(seconds(span) + least_look(row));
        let changed = note.is_some();
        let mut next = note.unwrap_or_else(|| row.clone());
        next.set_lease(None);
        if short {
            // Stored first, or a crash would forget the pause and its cause.
            let row = if changed || self.taken_out(row) {
                match self.store(row, next, Some(until)).await? {
                    Some(stored) => stored,
                    None => return row.reread(&self.worker.table).await,
                }
            } else {
                row.clone()
            };
            if self.worker.clock.sleep(seconds(span.max(Seconds(1)))).await {
                return Ok(Some(row));
            }
            // Cut short: the tick goes on from what is stored.
            if row.due_at().is_none_or(|at| at > until) {
                self.store(&row, row.clone(), Some(until)).await?;
            }
            return Ok(None);
        }
        // An event brought nothing new, and the row is due soon enough already, and not
        // much sooner than it need be: half of the pause is left at least.
        let due = row.due_at().is_some_and(|at| at <= until && at - now >= until - at);
        if due && !changed && row.lease().is_none() && !self.taken_out(row) {
            return Ok(None);
        }
        let spread = random::jitter(seconds(span).min(Duration::from_mins(5)).div_f64(5.0));
        let spread = Seconds(i64::try_from(spread.as_secs()).unwrap_or(0));
        match self.store(row, next, Some(until + spread)).await? {
            Some(_) => Ok(None),
            None => row.reread(&self.worker.table).await,
        }
    }

    /// The invocation's time runs low: another one goes on at once, unless this
    /// one got nowhere; then it waits for the tick, and longer each time.
    pub(crate) async fn hand_over(&self, row: impl Operation, now: Time) -> Result<(), TableError> {
        let got_on = self.got_on;
        let mut next = row.clone();
        next.set_lease(None);
        let mut pause = Seconds(0);
        if !got_on {
            let troubles = next.troubles();
            *troubles = troubles.saturating_add(1);
            pause = Seconds(30_i64 << (*troubles).min(4));
        }
        let due = next.nudge();
        // Of two that hand over one nudges, the one that wrote: else each of them
        // would go on in another for ever, and a doubled event would double them.
        let wrote = self.store(&row, next, Some(now + pause)).await?.is_some();
        if got_on
            && wrote
            && let Err(error) = self.worker.bus.due(&due, BUS).await
        {
            tracing::warn!(%error, "not nudged; the tick will");
        }
        Ok(())
    }

    /// Lets others finish who wrote the same row, and reads what they wrote.
    pub(crate) async fn give_way<O: Operation>(&self, row: &O) -> Result<Option<O>, TableError> {
        self.worker.clock.give_way().await;
        row.reread(&self.worker.table).await
    }

    /// The row as the next store will have it: without what the bus has taken.
    pub(crate) fn without_published<O: Operation>(&self, row: &O) -> O {
        let mut bare = row.clone();
        bare.forget(&self.published);
        bare
    }

    /// Whether the outbox holds what the bus has taken.
    pub(crate) fn taken_out(&self, row: &impl Operation) -> bool {
        self.without_published(row).announcements().len() < row.announcements().len()
    }
}

/// Whether somebody else than `owner` acts on the row.
fn is_others(row: &impl Operation, owner: &Nonce, now: Time) -> bool {
    row.lease().is_some_and(|lease| lease.owner != *owner && lease.until > now)
}

/// Ends the lease under which calls were made. If the reply to the store that ended it was
/// lost, the row was free, and somebody else may hold it by now.
fn let_go(row: &mut impl Operation, owner: &Nonce, now: Time) {
    if !is_others(row, owner, now) {
        row.set_lease(None);
    }
}

/// The time that must be left for a look to begin.
pub(crate) fn least_look(row: &impl Operation) -> Duration {
    if row.is_urgent() { GLANCE } else { LOOK }
}

/// What a look saw, or that it did not come back in time.
pub(crate) async fn looked<T>(
    look: impl Future<Output = T>,
    most: Duration,
    late: impl FnOnce(CallError) -> T,
) -> T {
    tokio::time::timeout(most, look).await.unwrap_or_else(|_| {
        late(CallError::Unknown(format!("EC2 could not be described within {} s", most.as_secs())))
    })
}

/// A span as the runtime counts it.
pub(crate) fn seconds(span: Seconds) -> Duration {
    Duration::from_secs(u64::try_from(span.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use backups_core::restore::Restore;
    use serde_json::json;

    use super::*;

    const NOW: Time = Time::from_unix(1_800_000_000);

    fn held_by(owner: &str, until: Time) -> Restore {
        let row = json!({
            "deployment_id": 1, "id": 1, "tenant_id": "t", "region": "us-west-1",
            "backup_id": 1, "requested_at": NOW, "token": "token", "revision": 1,
            "nonce": "nonce", "status": "in_progress", "nodes": [],
            "lease": { "owner": owner, "until": until },
        });
        serde_json::from_value(row).expect("a row")
    }

    #[test]
    fn what_came_of_a_call_ends_its_own_lease_and_nobody_elses() {
        let me = Nonce::from("me");
        let let_go = |mut row: Restore| {
            let_go(&mut row, &me, NOW);
            row.lease.map(|lease| lease.owner)
        };
        assert_eq!(let_go(held_by("me", NOW + LEASE)), None);
        assert_eq!(let_go(held_by("other", NOW + LEASE)), Some("other".into()));
        assert_eq!(let_go(held_by("other", NOW)), None, "it is over");
    }
}
