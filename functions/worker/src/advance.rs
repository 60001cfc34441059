//! One advance of one backup: as far as it goes in one invocation.
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

use backups_aws::ec2::tags::Whose;
use backups_aws::random;
use backups_aws::sdk::OPERATION;
use backups_aws::table::{Stored, TableError, Written};
use backups_aws::telemetry::{self, Metric};
use backups_core::announce::OperationDue;
use backups_core::backup::{self, Action, Backup, Lease, Status, Step};
use backups_core::id::{BackupId, DeploymentId, Nonce};
use backups_core::limits::{FAILED_KEPT, LEASE};
use backups_core::time::{Seconds, Time};

use crate::Worker;

/// A wait up to this is waited out in the invocation; a longer one is stored.
const SHORT: Seconds = Seconds(10);

/// What is kept of an invocation's time for its last store and nudge.
const RESERVE: Duration = Duration::from_secs(5);

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
    fn fits(self, span: Duration) -> bool {
        tokio::time::Instant::now() + span + RESERVE < self.0
    }
}

/// One invocation's work on one backup.
struct Advance<'a> {
    worker: &'a Worker,
    whose: Whose,
    /// Holds the leases of this invocation.
    owner: Nonce,
    /// Announcements that the bus surely has, and that the next store takes out.
    published: Vec<Nonce>,
    until: Deadline,
}

/// Advances a backup.
pub(crate) async fn backup(
    worker: &Worker,
    deployment_id: DeploymentId,
    id: BackupId,
    announced: Option<Nonce>,
    until: Deadline,
) -> Result<(), TableError> {
    let Some(row) = worker.table.backup(deployment_id, id).await? else {
        tracing::debug!(deployment = %deployment_id, backup = %id, "no such backup any more");
        return Ok(());
    };
    let whose = Whose {
        stack: worker.ec2.stack().to_owned(),
        table: worker.table_id().await?.to_owned(),
        deployment: deployment_id,
        backup: id,
    };
    let mut advance = Advance {
        worker,
        whose,
        owner: random::nonce(),
        published: announced.into_iter().collect(),
        until,
    };
    advance.run(row).await
}

impl Advance<'_> {
    async fn run(&mut self, mut row: Backup) -> Result<(), TableError> {
        loop {
            let now = self.worker.clock.now();
            if row.leased_to_other(&self.owner, now) {
                tracing::debug!(deployment = %row.deployment_id, backup = %row.id, "another worker has it");
                return Ok(());
            }
            self.publish(&row).await;
            if !self.until.fits(OPERATION) {
                return self.hand_over(row, now).await;
            }
            let step = self.next_step(&self.without_published(&row)).await?;
            let next = match step {
                // No call is begun that might not end in time.
                Step::Act { .. } if !self.until.fits(OPERATION) => {
                    return self.hand_over(row, now).await;
                }
                Step::Record(next) => self.store(&row, next, Some(now + LEASE)).await?,
                Step::Act { intent, actions } => self.act(&row, intent, actions).await?,
                Step::Wait { until, note } => match self.wait(&row, until, note).await? {
                    Some(next) => Some(next),
                    None => return Ok(()),
                },
                Step::Rest => return self.rest(row).await,
                Step::Remove => return self.remove(row).await,
            };
            match next {
                Some(next) => row = next,
                // Somebody else wrote it: what they wrote is what counts.
                None => match self.reread(&row).await? {
                    Some(other) => row = other,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Looks, and decides.
    async fn next_step(&self, row: &Backup) -> Result<Step, TableError> {
        let now = self.worker.clock.now();
        let look = backup::look(row, now);
        let seen = if look.is_empty() {
            Ok(backup::Seen::default())
        } else {
            self.worker.ec2.look(&look, &self.whose).await
        };
        if let Err(error) = &seen {
            tracing::warn!(deployment = %row.deployment_id, backup = %row.id, %error, "EC2 could not be looked at");
        }
        Ok(backup::step(row, seen.as_ref(), &self.worker.limits, now))
    }

    /// Stores the intent under a lease, makes the calls, and stores what they
    /// came to. None: somebody else was faster, and no call was made.
    async fn act(
        &mut self,
        row: &Backup,
        mut intent: Backup,
        actions: Vec<Action>,
    ) -> Result<Option<Backup>, TableError> {
        for action in &actions {
            if let Action::CreateSnapshots { node_id, attempt, volumes, .. } = action {
                self.worker.table.keep_volumes(row, *node_id, *attempt, volumes).await?;
            }
        }
        let now = self.worker.clock.now();
        let until = now + LEASE;
        intent.lease = Some(Lease { owner: self.owner.clone(), until });
        let Some(mut row) = self.store(row, intent, Some(until)).await? else { return Ok(None) };
        let outcomes = self.worker.ec2.act(actions, &self.whose).await;
        for _ in 0..MERGES {
            let now = self.worker.clock.now();
            let mut next = row.clone();
            backup::apply(&mut next, &outcomes, now);
            next.lease = None;
            if next.held.as_ref().map(|held| held.times) != row.held.as_ref().map(|held| held.times)
                && next.held.is_some()
            {
                telemetry::count(Metric::DeletesHeld, 1, self.worker.clock.timestamp());
            }
            if let Some(stored) = self.store(&row, next, Some(now + LEASE)).await? {
                return Ok(Some(stored));
            }
            // What EC2 answered is merged into the newer row, never dropped.
            match self.reread(&row).await? {
                Some(newer) => row = newer,
                None => return Ok(None),
            }
        }
        // Every round lost: the calls' numbers are stored, their snapshots are
        // found by tag once the lease is over.
        Ok(None)
    }

    /// Stores `next` over `row`, without what the bus has taken. None: somebody
    /// else wrote the row since it was read.
    async fn store(
        &mut self,
        row: &Backup,
        next: Backup,
        due_at: Option<Time>,
    ) -> Result<Option<Backup>, TableError> {
        let next = self.without_published(&next);
        if next.owners != row.owners {
            for smallest in &next.owners {
                self.worker.table.own(smallest, row).await?;
            }
        }
        match self.worker.table.write_backup(row, next, due_at).await? {
            Stored::Yes(stored) => {
                if stored.status != row.status {
                    self.tell(row.status, &stored);
                    if stored.status == Status::Failed {
                        self.prune_failed(&stored).await;
                    }
                }
                Ok(Some(*stored))
            }
            Stored::Conflict => Ok(None),
        }
    }

    /// Publishes what the outbox holds and the bus has not taken yet.
    async fn publish(&mut self, row: &Backup) {
        let open = self.without_published(row).outbox;
        if !open.is_empty() {
            self.published.extend(self.worker.bus.publish(row, &open).await);
        }
    }

    /// Waits if it is short and there is time; else stores when to look again.
    async fn wait(
        &mut self,
        row: &Backup,
        until: Time,
        note: Option<Backup>,
    ) -> Result<Option<Backup>, TableError> {
        let now = self.worker.clock.now();
        let span = until - now;
        let short = span <= SHORT && self.until.fits(seconds(span) + OPERATION);
        let changed = note.is_some();
        let mut next = note.unwrap_or_else(|| row.clone());
        if short {
            // Stored first, or a crash would forget the pause and its cause.
            let row = if changed || self.taken_out(row) {
                next.lease = None;
                match self.store(row, next, Some(until + LEASE)).await? {
                    Some(stored) => stored,
                    None => return self.reread(row).await,
                }
            } else {
                row.clone()
            };
            self.worker.clock.sleep(seconds(span.max(Seconds(1)))).await;
            return Ok(Some(row));
        }
        next.lease = None;
        // An event brought nothing new, and the row is due soon enough already.
        let due = row.due_at.is_some_and(|at| at > now && at <= until);
        if due && !changed && row.lease.is_none() && !self.taken_out(row) {
            return Ok(None);
        }
        let spread = random::jitter(seconds(span).min(Duration::from_mins(5)).div_f64(5.0));
        let spread = Seconds(i64::try_from(spread.as_secs()).unwrap_or(0));
        match self.store(row, next, Some(until + spread)).await? {
            Some(_) => Ok(None),
            None => self.reread(row).await,
        }
    }

    /// Nothing more to do: the row leaves the index, but for its expiry.
    async fn rest(&mut self, row: Backup) -> Result<(), TableError> {
        let mut next = row.clone();
        next.lease = None;
        let kept =
            next.outbox.iter().any(|pending| !self.published.contains(&pending.announcement_id));
        // What the bus has not taken is a reason to come back.
        let due_at = kept.then(|| self.worker.clock.now() + Seconds(60));
        let at_rest = !kept && !self.taken_out(&row) && row.lease.is_none();
        if at_rest && row.due_at == row.expires_at {
            return Ok(());
        }
        if self.store(&row, next, due_at).await?.is_none() {
            // A newer row has its own due time.
            tracing::debug!(deployment = %row.deployment_id, backup = %row.id, "changed while it came to rest");
        }
        Ok(())
    }

    /// Every trace is gone and announced: so goes the row.
    async fn remove(&mut self, row: Backup) -> Result<(), TableError> {
        let now = self.worker.clock.now();
        match self.worker.table.remove_backup(&row, now).await? {
            Written::Stored => {
                tracing::info!(deployment = %row.deployment_id, backup = %row.id, "backup removed");
            }
            Written::Conflict => {
                tracing::debug!(deployment = %row.deployment_id, backup = %row.id, "changed while it was removed");
            }
        }
        Ok(())
    }

    /// The invocation's time runs low: another one goes on at once.
    async fn hand_over(&mut self, row: Backup, now: Time) -> Result<(), TableError> {
        let mut next = row.clone();
        next.lease = None;
        self.store(&row, next, Some(now)).await?;
        let due = OperationDue::backup(row.deployment_id, row.id);
        if let Err(error) = self.worker.bus.due(&due).await {
            tracing::warn!(%error, "not nudged; the tick will");
        }
        Ok(())
    }

    /// The row as it is now.
    async fn reread(&self, row: &Backup) -> Result<Option<Backup>, TableError> {
        self.worker.table.backup(row.deployment_id, row.id).await
    }

    /// The row as the next store will have it: without what the bus has taken.
    fn without_published(&self, row: &Backup) -> Backup {
        let mut bare = row.clone();
        bare.outbox.retain(|pending| !self.published.contains(&pending.announcement_id));
        bare
    }

    /// Whether the outbox holds what the bus has taken.
    fn taken_out(&self, row: &Backup) -> bool {
        self.without_published(row).outbox.len() < row.outbox.len()
    }

    /// Logs and counts a change of status.
    fn tell(&self, before: Status, row: &Backup) {
        let failure = row.failure.as_ref().map(|failure| failure.reason.as_str());
        tracing::info!(
            deployment = %row.deployment_id, backup = %row.id,
            from = before.as_str(), to = row.status.as_str(), failure, "status"
        );
        let at = self.worker.clock.timestamp();
        match row.status {
            Status::Completed => telemetry::count(Metric::BackupsCompleted, 1, at),
            Status::Failed => telemetry::count(Metric::BackupsFailed, 1, at),
            Status::Pending | Status::InProgress | Status::Deleting => {}
        }
    }

    /// Failed backups beyond the newest few go by themselves. Best effort: the
    /// next failure tries again.
    async fn prune_failed(&self, newest: &Backup) {
        let table = &self.worker.table;
        let rows = match table.list(newest.deployment_id).await {
            Ok(Some((_, rows))) => rows,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "failed backups not pruned");
                return;
            }
        };
        let failed = rows.iter().filter(|row| row.status == Status::Failed);
        for row in failed.skip(FAILED_KEPT) {
            let Ok(backup::Deletion::Begin(next)) = backup::start_delete(row) else { continue };
            let now = self.worker.clock.now();
            if let Err(error) = table.write_backup(row, *next, Some(now)).await {
                tracing::warn!(%error, backup = %row.id, "failed backup not pruned");
            }
        }
    }
}

/// A span as the runtime counts it.
fn seconds(span: Seconds) -> Duration {
    Duration::from_secs(u64::try_from(span.0).unwrap_or(0))
}
