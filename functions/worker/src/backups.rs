//! One advance of one backup.

use backups_aws::ec2::tags::Whose;
use backups_aws::sdk::ATTEMPT;
use backups_aws::table::{Beside, Rotation, Stored, TableError, Written};
use backups_aws::telemetry::{self, Metric};
use backups_core::backup::{self, Action, Backup, Deletion, Status, Step};
use backups_core::brake::HELD;
use backups_core::id::{BackupId, DeploymentId, Nonce};
use backups_core::limits::{FAILED_KEPT, LEASE};
use backups_core::schedule::gives_way;
use backups_core::time::{Seconds, Time};
use futures_util::future::try_join_all;

use crate::Worker;
use crate::advance::{Advance, Deadline, LOOK, looked};
use crate::readable;

/// How many rows are written side by side.
const SIDE_BY_SIDE: usize = 8;

/// One invocation's work on one backup.
struct Advancing<'a> {
    advance: Advance<'a>,
    whose: Whose,
}

/// Advances a backup.
#[tracing::instrument(skip_all, fields(%deployment_id, backup_id = %id))]
pub(crate) async fn advance(
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
    let advance = Advance::begin(worker, announced, until).await?;
    // Boxed: its state is kilobytes, and callers move it around.
    Box::pin(Advancing { advance, whose }.run(row)).await
}

impl Advancing<'_> {
    async fn run(&mut self, mut row: Backup) -> Result<(), TableError> {
        loop {
            let now = self.advance.worker.clock.now();
            if self.advance.is_others(&row, now) {
                tracing::debug!("another worker has it");
                return Ok(());
            }
            self.advance.publish(&row).await;
            if !self.advance.until.fits(LOOK) {
                return self.advance.hand_over(row, now).await;
            }
            let step = self.next_step(&self.advance.without_published(&row)).await;
            let next = match step {
                // No call is begun that might not end in time.
                Step::Act { .. } if !self.advance.until.fits(ATTEMPT) => {
                    return self.advance.hand_over(row, now).await;
                }
                Step::Record(next) => {
                    let stored = self.advance.store(&row, next, Some(now + LEASE)).await?;
                    self.advance.got_on |= stored.is_some();
                    stored
                }
                Step::Act { intent, actions } => match self.act(&row, intent, actions).await? {
                    Some(begun) if has_begun(&row, &begun) => match self.begun(&begun).await? {
                        Some(next) => Some(next),
                        None => return Ok(()),
                    },
                    next => next,
                },
                Step::Wait { until, note } => match self.advance.wait(&row, until, note).await? {
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
            match self.advance.give_way(&row).await? {
                Some(other) => row = other,
                None => return Ok(()),
            }
        }
    }

    /// The snapshots were started this moment: EC2 needs its time, and does not even list
    /// them yet. They are not looked at before it says something of them.
    async fn begun(&mut self, row: &Backup) -> Result<Option<Backup>, TableError> {
        self.advance.publish(row).await;
        let worker = self.advance.worker;
        let told = self.advance.without_published(row);
        let until = backup::next_look(&told, &self.advance.limits, worker.clock.now());
        self.advance.wait(row, until, None).await
    }

    /// Looks, and decides.
    async fn next_step(&self, row: &Backup) -> Step {
        let now = self.advance.worker.clock.now();
        let limits = &self.advance.limits;
        if backup::is_held(row, &limits.hold) {
            tracing::info!("an operator has paused it");
            return Step::Wait { until: now + HELD, note: None };
        }
        let look = backup::look(row, now);
        let seen = if look.is_empty() {
            Ok(backup::Seen::default())
        } else {
            looked(self.advance.worker.ec2.look(&look, &self.whose), self.advance.until.look(), Err)
                .await
        };
        if let Err(error) = &seen {
            tracing::warn!(%error, "EC2 could not be looked at");
        }
        backup::step(row, seen.as_ref(), limits, now)
    }

    /// Stores the intent under a lease, makes the calls, and stores what they
    /// came to. None: somebody else was faster, and no call was made.
    async fn act(
        &mut self,
        row: &Backup,
        intent: Backup,
        actions: Vec<Action>,
    ) -> Result<Option<Backup>, TableError> {
        let Some(row) = self.advance.intend(row, intent).await? else {
            return Ok(None);
        };
        self.keep_volumes(&row, &actions).await?;
        let until = self.advance.until;
        let may_begin = move || until.fits(ATTEMPT);
        let outcomes = self.advance.worker.ec2.act(actions, &self.whose, may_begin).await;
        let got_on = outcomes.iter().any(|(_, one)| one.is_success());
        // If every round is lost: the calls' numbers are stored, their snapshots are found
        // by tag once the lease is over.
        self.advance.merge(row, got_on, |row, now| backup::apply(row, &outcomes, now)).await
    }

    /// Nothing more to do: the row leaves the index, but for its expiry.
    async fn rest(&mut self, row: Backup) -> Result<(), TableError> {
        let mut next = row.clone();
        next.lease = None;
        let mut kept = !self.advance.without_published(&row).outbox.is_empty();
        let at_rest = !kept && !self.advance.taken_out(&row) && row.lease.is_none();
        if at_rest && row.due_at == row.expires_at {
            return Ok(());
        }
        if row.status == Status::Failed {
            kept |= !prune_failed(&self.advance, &row).await;
        }
        // What the bus has not taken is a reason to come back, and one failed
        // backup too many is too.
        let pause = if self.advance.limits.hold.deletions { HELD } else { Seconds(60) };
        let due_at = kept.then(|| self.advance.worker.clock.now() + pause);
        if self.advance.store(&row, next, due_at).await?.is_none() {
            // A newer row has its own due time.
            tracing::debug!("changed while it came to rest");
        }
        Ok(())
    }

    /// Every trace is gone and announced: so goes the row.
    async fn remove(&mut self, row: Backup) -> Result<(), TableError> {
        let now = self.advance.worker.clock.now();
        match self.advance.worker.table.remove_backup(&row, now).await? {
            Written::Stored => {
                tracing::info!("backup removed");
            }
            Written::Conflict | Written::InProgress => {
                tracing::debug!("changed while it was removed");
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
                self.advance.worker.table.keep_volumes(row, *node, *attempt, volumes)
            });
            try_join_all(puts).await?;
        }
        Ok(())
    }
}

/// Whether these calls have started the last of the snapshots, and left nothing behind that
/// is to be looked for.
fn has_begun(before: &Backup, after: &Backup) -> bool {
    before.status == Status::Pending
        && after.status == Status::InProgress
        && after.sweep_until.is_none()
}

/// Stores what an operation changed. The end of a backup that a schedule or an upgrade
/// asked for tells them, and one of the schedule's gives way if it completes above the
/// limit: all in one transaction.
pub(crate) async fn write(
    advance: &Advance<'_>,
    before: &Backup,
    after: Backup,
    due_at: Option<Time>,
) -> Result<Stored<Backup>, TableError> {
    let ends = before.status.active() && !after.status.active();
    if ends && before.rotates() {
        // Boxed: every write would bear the size of this rare one.
        Box::pin(end(advance, before, after, due_at)).await
    } else {
        advance.worker.table.write_backup(before, after, due_at).await
    }
}

/// The last write of a backup that a schedule or an upgrade asked for.
async fn end(
    advance: &Advance<'_>,
    before: &Backup,
    after: Backup,
    due_at: Option<Time>,
) -> Result<Stored<Backup>, TableError> {
    let (worker, id) = (advance.worker, before.deployment_id);
    let table = &worker.table;
    let mut beside = Beside::default();
    // A row that this release cannot read must not keep the backup from its end, and with
    // it the deployment's slot for ever: it ends without telling its cause, or without
    // another giving way.
    if before.schedule_slot.is_some() {
        beside.schedule = readable(table.schedule(id).await)?.flatten();
    }
    if let Some(upgrade) = &before.upgrade_id {
        beside.upgrade = readable(table.upgrade(id, upgrade).await)?.flatten();
    }
    // While nothing may be deleted nothing gives way: there is one above the limit then, as
    // above one that was lowered.
    if after.status == Status::Completed && !advance.limits.hold.deletions {
        beside.rotation = readable(rotation(worker, id).await)?.flatten();
    }
    table.end_backup(before, after, due_at, &beside).await
}

/// What gives way now that one more completes.
async fn rotation(worker: &Worker, id: DeploymentId) -> Result<Option<Rotation>, TableError> {
    let Some((deployment, backups)) = worker.table.all(id).await? else { return Ok(None) };
    let limit = deployment.registry.backup_limit(&worker.limits);
    // Without a plan there is no limit that it could be above: nothing of what is there
    // is taken away.
    if limit.is_none_or(|limit| deployment.backup_count <= limit) {
        return Ok(None);
    }
    let Some(victim) = gives_way(&backups) else { return Ok(None) };
    let Ok(Deletion::Begin(deleting)) = backup::start_delete(victim) else { return Ok(None) };
    tracing::info!(gives_way = %victim.id, "above the limit, the schedule's oldest backup goes");
    Ok(Some(Rotation::new(&deployment, victim, *deleting, worker.clock.now())))
}

/// What follows from a write of a backup.
pub(crate) async fn stored(
    advance: &Advance<'_>,
    before: &Backup,
    after: &Backup,
) -> Result<(), TableError> {
    let worker = advance.worker;
    let held = |row: &Backup| row.held.as_ref().map_or(0, |held| held.times);
    if held(after) > held(before) {
        telemetry::count(Metric::DeletesHeld, 1);
    }
    if after.owners != before.owners {
        // After the row: a crash in between costs the events, and the tick makes up for
        // them; before it, it would leave rows that nobody removes.
        for wave in after.owners.chunks(SIDE_BY_SIDE) {
            try_join_all(wave.iter().map(|one| worker.table.own(one, after))).await?;
        }
    }
    if after.status != before.status {
        tell(before.status, after);
        if after.status == Status::Failed {
            // For now; that it is done is seen to when this one rests.
            prune_failed(advance, after).await;
        }
    }
    Ok(())
}

/// Logs and counts a change of status.
fn tell(before: Status, row: &Backup) {
    let failure = row.failure.as_ref().map(|failure| failure.reason.as_str());
    tracing::info!(from = before.as_str(), to = row.status.as_str(), failure, "status");
    match row.status {
        Status::Completed => telemetry::count(Metric::BackupsCompleted, 1),
        Status::Failed => telemetry::count(Metric::BackupsFailed, 1),
        Status::Pending | Status::InProgress | Status::Deleting => {}
    }
}

/// Failed backups beyond the newest few go by themselves. False: not all of
/// them, this time.
async fn prune_failed(advance: &Advance<'_>, newest: &Backup) -> bool {
    let worker = advance.worker;
    let table = &worker.table;
    let rows = match table.all(newest.deployment_id).await {
        // Those that reconciliation has failed neither count nor go: they may hold all that
        // there is.
        Ok(Some((_, mut rows))) => {
            rows.retain(|row| !row.is_lost());
            rows
        }
        Ok(None) => return true,
        Err(error) => {
            tracing::warn!(%error, "failed backups not pruned");
            return false;
        }
    };
    let mut all = true;
    let failed = rows.iter().filter(|row| row.status == Status::Failed);
    for row in failed.skip(FAILED_KEPT) {
        if advance.limits.hold.deletions {
            return false;
        }
        let Ok(Deletion::Begin(next)) = backup::start_delete(row) else { continue };
        let now = worker.clock.now();
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
