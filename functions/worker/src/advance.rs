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
use backups_aws::sdk::{ATTEMPT, OPERATION, QUICK_OPERATION};
use backups_aws::table::{Stored, TableError, Written};
use backups_aws::telemetry::{self, Metric};
use backups_core::announce::OperationDue;
use backups_core::backup::{self, Action, Backup, CallError, Lease, Status, Step};
use backups_core::id::{BackupId, DeploymentId, Nonce};
use backups_core::limits::{FAILED_KEPT, LEASE};
use backups_core::time::{Seconds, Time};

use futures_util::future::try_join_all;

use crate::Worker;

/// A wait up to this is waited out in the invocation; a longer one is stored.
const SHORT: Seconds = Seconds(10);

/// What is kept of an invocation's time for its last store.
const RESERVE: Duration = Duration::from_secs(QUICK_OPERATION.as_secs() + 1);

/// How long one look may take, all its pages together. What takes longer is
/// looked at again, later and with fewer others.
const LOOK: Duration = OPERATION;

/// How many rows are written side by side.
const SIDE_BY_SIDE: usize = 8;

/// How long the bus may take: the row is due whether it answers or not.
const BUS: Duration = Duration::from_secs(3);

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
    /// Whether this invocation has brought the backup on: a look, or a call that AWS
    /// did not answer well, does not.
    got_on: bool,
    until: Deadline,
}

/// Advances a backup.
#[tracing::instrument(skip_all, fields(%deployment_id, backup_id = %id))]
pub(crate) async fn backup(
    worker: &Worker,
    deployment_id: DeploymentId,
    id: BackupId,
    announced: Option<Nonce>,
    until: Deadline,
) -> Result<(), TableError> {
    let Some(row) = worker.table.backup(deployment_id, id).await? else {
        tracing::debug!("no such backup any more");
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
        got_on: false,
        until,
    };
    // Boxed: its state is kilobytes, and callers move it around.
    Box::pin(advance.run(row)).await
}

impl Advance<'_> {
    async fn run(&mut self, mut row: Backup) -> Result<(), TableError> {
        loop {
            let now = self.worker.clock.now();
            if row.leased_to_other(&self.owner, now) {
                tracing::debug!("another worker has it");
                return Ok(());
            }
            self.publish(&row).await;
            if !self.until.fits(LOOK) {
                return self.hand_over(row, now).await;
            }
            let step = self.next_step(&self.without_published(&row)).await;
            let next = match step {
                // No call is begun that might not end in time.
                Step::Act { .. } if !self.until.fits(ATTEMPT) => {
                    return self.hand_over(row, now).await;
                }
                Step::Record(next) => {
                    let stored = self.store(&row, next, Some(now + LEASE)).await?;
                    self.got_on |= stored.is_some();
                    stored
                }
                Step::Act { intent, actions } => self.act(&row, intent, actions).await?,
                Step::Wait { until, note } => match self.wait(&row, until, note).await? {
                    Some(next) => Some(next),
                    None => return Ok(()),
                },
                Step::Rest => return self.rest(row).await,
                Step::Remove => return self.remove(row).await,
            };
            if let Some(next) = next {
                row = next;
                continue;
            }
            // Somebody else wrote it: what they wrote is what counts.
            self.worker.clock.sleep(random::jitter(Duration::from_millis(200))).await;
            match self.reread(&row).await? {
                Some(other) => row = other,
                None => return Ok(()),
            }
        }
    }

    /// Looks, and decides.
    async fn next_step(&self, row: &Backup) -> Step {
        let now = self.worker.clock.now();
        let look = backup::look(row, now);
        let seen = if look.is_empty() {
            Ok(backup::Seen::default())
        } else {
            let looked = self.worker.ec2.look(&look, &self.whose);
            tokio::time::timeout(LOOK, looked).await.unwrap_or_else(|_| {
                let said = format!("EC2 could not be described within {} s", LOOK.as_secs());
                Err(CallError::Unknown(said))
            })
        };
        if let Err(error) = &seen {
            tracing::warn!(%error, "EC2 could not be looked at");
        }
        backup::step(row, seen.as_ref(), &self.worker.limits, now)
    }

    /// Stores the intent under a lease, makes the calls, and stores what they
    /// came to. None: somebody else was faster, and no call was made.
    async fn act(
        &mut self,
        row: &Backup,
        mut intent: Backup,
        actions: Vec<Action>,
    ) -> Result<Option<Backup>, TableError> {
        let now = self.worker.clock.now();
        let until = now + LEASE;
        intent.lease = Some(Lease { owner: self.owner.clone(), until });
        let Some(mut row) = self.store(row, intent, Some(until)).await? else { return Ok(None) };
        self.keep_volumes(&row, &actions).await?;
        let until = self.until;
        let may_begin = move || until.fits(ATTEMPT);
        let outcomes = self.worker.ec2.act(actions, &self.whose, may_begin).await;
        for _ in 0..MERGES {
            let now = self.worker.clock.now();
            let mut next = row.clone();
            backup::apply(&mut next, &outcomes, now);
            next.lease = None;
            if let Some(stored) = self.store(&row, next, Some(now + LEASE)).await? {
                self.got_on |= outcomes.iter().any(|(_, one)| one.is_success());
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
        &self,
        row: &Backup,
        next: Backup,
        due_at: Option<Time>,
    ) -> Result<Option<Backup>, TableError> {
        let next = self.without_published(&next);
        match self.worker.table.write_backup(row, next, due_at).await? {
            Stored::Yes(stored) => {
                let held = |row: &Backup| row.held.as_ref().map_or(0, |held| held.times);
                if held(&stored) > held(row) {
                    telemetry::count(Metric::DeletesHeld, 1, self.worker.clock.timestamp());
                }
                if stored.owners != row.owners {
                    // After the row: a crash in between costs the events, and
                    // the tick makes up for them; before it, it would leave
                    // rows that nobody removes.
                    for wave in stored.owners.chunks(SIDE_BY_SIDE) {
                        let table = &self.worker.table;
                        try_join_all(wave.iter().map(|one| table.own(one, &stored))).await?;
                    }
                }
                if stored.status != row.status {
                    self.tell(row.status, &stored);
                    if stored.status == Status::Failed {
                        // For now; that it is done is seen to when this one rests.
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
            let publish = self.worker.bus.publish(row, &open);
            match tokio::time::timeout(BUS, publish).await {
                Ok(taken) => self.published.extend(taken),
                Err(_) => {
                    tracing::warn!("the bus did not answer; announcements stay in the outbox");
                }
            }
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
        next.lease = None;
        if short {
            // Stored first, or a crash would forget the pause and its cause.
            let row = if changed || self.taken_out(row) {
                match self.store(row, next, Some(until)).await? {
                    Some(stored) => stored,
                    None => return self.reread(row).await,
                }
            } else {
                row.clone()
            };
            if self.worker.clock.sleep(seconds(span.max(Seconds(1)))).await {
                return Ok(Some(row));
            }
            // Cut short: the tick goes on from what is stored.
            if row.due_at.is_none_or(|at| at > until) {
                self.store(&row, row.clone(), Some(until)).await?;
            }
            return Ok(None);
        }
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
        let mut kept = !self.without_published(&row).outbox.is_empty();
        let at_rest = !kept && !self.taken_out(&row) && row.lease.is_none();
        if at_rest && row.due_at == row.expires_at {
            return Ok(());
        }
        if row.status == Status::Failed {
            kept |= !self.prune_failed(&row).await;
        }
        // What the bus has not taken is a reason to come back, and one failed
        // backup too many is too.
        let due_at = kept.then(|| self.worker.clock.now() + Seconds(60));
        if self.store(&row, next, due_at).await?.is_none() {
            // A newer row has its own due time.
            tracing::debug!("changed while it came to rest");
        }
        Ok(())
    }

    /// Every trace is gone and announced: so goes the row.
    async fn remove(&mut self, row: Backup) -> Result<(), TableError> {
        let now = self.worker.clock.now();
        match self.worker.table.remove_backup(&row, now).await? {
            Written::Stored => {
                tracing::info!("backup removed");
            }
            Written::Conflict => {
                tracing::debug!("changed while it was removed");
            }
        }
        Ok(())
    }

    /// The invocation's time runs low: another one goes on at once, unless this
    /// one got nowhere; then it waits for the tick, and longer each time.
    async fn hand_over(&mut self, row: Backup, now: Time) -> Result<(), TableError> {
        let got_on = self.got_on;
        let mut next = row.clone();
        next.lease = None;
        if !got_on {
            next.troubles = next.troubles.saturating_add(1);
        }
        let pause = if got_on { Seconds(0) } else { Seconds(30_i64 << next.troubles.min(4)) };
        // Of two that hand over one nudges, the one that wrote: else each of them
        // would go on in another for ever, and a doubled event would double them.
        let wrote = self.store(&row, next, Some(now + pause)).await?.is_some();
        if got_on && wrote {
            let due = OperationDue::backup(row.deployment_id, row.id);
            match tokio::time::timeout(BUS, self.worker.bus.due(&due)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "not nudged; the tick will"),
                Err(_) => tracing::warn!("the bus did not answer; the tick nudges"),
            }
        }
        Ok(())
    }

    /// Keeps the volumes of each set that is about to be taken. Under the lease:
    /// of two workers that looked, only the one that acts writes what it saw.
    async fn keep_volumes(&self, row: &Backup, actions: &[Action]) -> Result<(), TableError> {
        let sets: Vec<_> = actions
            .iter()
            .filter_map(|action| match action {
                Action::CreateSnapshots { node_id, attempt, volumes, .. } => {
                    Some((*node_id, *attempt, volumes.as_slice()))
                }
                Action::DeleteSnapshot(_) => None,
            })
            .collect();
        for wave in sets.chunks(SIDE_BY_SIDE) {
            let puts = wave.iter().map(|(node, attempt, volumes)| {
                self.worker.table.keep_volumes(row, *node, *attempt, volumes)
            });
            try_join_all(puts).await?;
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
        tracing::info!(from = before.as_str(), to = row.status.as_str(), failure, "status");
        let at = self.worker.clock.timestamp();
        match row.status {
            Status::Completed => telemetry::count(Metric::BackupsCompleted, 1, at),
            Status::Failed => telemetry::count(Metric::BackupsFailed, 1, at),
            Status::Pending | Status::InProgress | Status::Deleting => {}
        }
    }

    /// Failed backups beyond the newest few go by themselves. False: not all of
    /// them, this time.
    async fn prune_failed(&self, newest: &Backup) -> bool {
        let table = &self.worker.table;
        let rows = match table.list(newest.deployment_id).await {
            Ok(Some((_, rows))) => rows,
            Ok(None) => return true,
            Err(error) => {
                tracing::warn!(%error, "failed backups not pruned");
                return false;
            }
        };
        let mut all = true;
        let failed = rows.iter().filter(|row| row.status == Status::Failed);
        for row in failed.skip(FAILED_KEPT) {
            let Ok(backup::Deletion::Begin(next)) = backup::start_delete(row) else { continue };
            let now = self.worker.clock.now();
            match table.write_backup(row, *next, Some(now)).await {
                Ok(Stored::Yes(_)) => {}
                // Somebody wrote it meanwhile: perhaps that it goes, perhaps not.
                Ok(Stored::Conflict) => all = false,
                Err(error) => {
                    tracing::warn!(%error, failed = %row.id, "failed backup not pruned");
                    all = false;
                }
            }
        }
        all
    }
}

/// A span as the runtime counts it.
fn seconds(span: Seconds) -> Duration {
    Duration::from_secs(u64::try_from(span.0).unwrap_or(0))
}
