//! The stack's reconciliation: page by page, as far as one invocation goes.
//!
//! ```text
//!   read ─▶ publish ─▶ lease, begin ─▶ one page ─┬─▶ store the place ─┐
//!                          ▲                     └ look, judge, count │
//!                          │                       the deletes, store,│
//!                          │                       delete             │
//!                          └──────────────────────────────────────────┘
//! ```
//!
//! The place is stored after each page: a crash costs that page. What a page deletes is
//! counted before it is asked for, so that no number of crashes lifts the cap.

use std::collections::BTreeMap;

use backups_aws::ec2::Deleted;
use backups_aws::sdk::ATTEMPT;
use backups_aws::table::{Stored, TableError};
use backups_aws::telemetry::{self, Metric};
use backups_core::backup::{self, Backup, Presence};
use backups_core::id::{BackupId, DeploymentId, RestoreId, SnapshotId};
use backups_core::limits::{LEASE, MISSING_AGAIN};
use backups_core::operation::CallError;
use backups_core::reconcile::{
    Judged, Phase, Place, Reconciliation, Run, SeenSnapshot, SeenVolume, Tags, Thing, Verdict,
    Vouching, VouchingRestore, judge_snapshot, judge_volume,
};
use backups_core::time::Seconds;
use futures_util::future::join_all;

use crate::Worker;
use crate::advance::{Advance, Deadline, LOOK, looked};
use crate::readable;

/// How many rows are read or written side by side.
const SIDE_BY_SIDE: usize = 10;

/// How many of a backup's snapshots are asked for by their ids at most: if EC2 knows these
/// and did not list them, it lists badly today, and tomorrow is another day.
const ASKED: usize = 3;

/// How long a run waits that cannot get on, the first time. Doubled each time.
const PAUSE: Seconds = Seconds::minutes(1);

/// Works the stack's reconciliation.
#[tracing::instrument(skip_all)]
pub(crate) async fn advance(worker: &Worker, until: Deadline) -> Result<(), TableError> {
    let Some(row) = worker.table.reconciliation().await? else {
        tracing::debug!("no tick has made the row yet");
        return Ok(());
    };
    // Read anew, and not kept from an earlier invocation: the table may have been lost and
    // made anew since.
    let table_id = worker.table.table_id().await?;
    let advance = Advance::begin(worker, None, until).await?;
    Box::pin(Reconciling { advance, table_id }.run(row)).await
}

/// The backup that a snapshot's tags name, as far as they can be read.
type BackupKey = (Option<DeploymentId>, Option<BackupId>);

/// The same of a volume's restore.
type RestoreKey = (Option<DeploymentId>, Option<RestoreId>);

/// One invocation's work.
struct Reconciling<'a> {
    advance: Advance<'a>,
    table_id: String,
}

/// Why a page was not worked.
enum Trouble {
    Table(TableError),
    Ec2(CallError),
    /// Somebody else wrote the row in between.
    Overtaken,
}

impl From<TableError> for Trouble {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Ec2(error)
    }
}

/// The things of a page, sorted by what becomes of them.
struct Sorted {
    doomed: Vec<Thing>,
    judged: Judged,
}

impl Reconciling<'_> {
    async fn run(&mut self, mut row: Reconciliation) -> Result<(), TableError> {
        loop {
            let now = self.advance.worker.clock.now();
            if self.advance.is_others(&row, now) {
                tracing::debug!("another worker has it");
                return Ok(());
            }
            self.advance.publish(&row).await;
            // Deletes are begun only if they have their own time after it; those that have
            // not are the next invocation's.
            if !self.advance.until.fits(LOOK) {
                return self.advance.hand_over(row, now).await;
            }
            let Some(begun) = row.begun(now) else { return self.rest(row).await };
            let Some(begun) = self.advance.intend(&row, begun).await? else { return Ok(()) };
            match self.page(begun.clone()).await {
                Ok(next) => row = next,
                Err(Trouble::Table(error)) => return Err(error),
                Err(Trouble::Overtaken) => return Ok(()),
                Err(Trouble::Ec2(error)) => return self.trouble(begun, &error).await,
            }
        }
    }

    /// One page of what the run is at. Gives the row with the place after it.
    async fn page(&mut self, row: Reconciliation) -> Result<Reconciliation, Trouble> {
        let Some(run) = &row.run else { return Ok(row) };
        let token = match &run.place {
            Some(Place::Token(token)) => Some(token.clone()),
            Some(Place::After { .. }) | None => None,
        };
        let worker = self.advance.worker;
        let (sorted, next) = match run.phase {
            Phase::Snapshots => {
                let look = worker.ec2.tagged_snapshots(token);
                let page = looked(look, self.advance.until.look(), Err).await?;
                (self.snapshots(&page.found).await?, page.next.map(Place::Token))
            }
            Phase::Volumes => {
                let look = worker.ec2.tagged_volumes(token);
                let page = looked(look, self.advance.until.look(), Err).await?;
                (self.volumes(&page.found).await?, page.next.map(Place::Token))
            }
            Phase::Backups => {
                let (backups, next) = worker.table.completed_backups(run.place.clone()).await?;
                let judged = self.backups(&backups).await?;
                (Sorted { doomed: Vec::new(), judged }, next)
            }
        };
        let (row, judged, whole) = self.delete(row.clone(), sorted).await?;
        let mut done = row.clone();
        if whole {
            done.page_done(&judged, next, worker.clock.now());
        }
        let stored = self.advance.intend(&row, done).await?.ok_or(Trouble::Overtaken)?;
        self.advance.got_on |= whole;
        if stored.run.is_none() {
            told(&stored);
        }
        Ok(stored)
    }

    /// Judges the snapshots of a page by their backups' rows, which are read now.
    async fn snapshots(&self, found: &[SeenSnapshot]) -> Result<Sorted, Trouble> {
        let worker = self.advance.worker;
        let key = |tags: &Tags| -> BackupKey { (tags.deployment, tags.backup) };
        let wanted: BTreeMap<BackupKey, &Tags> =
            found.iter().map(|one| (key(&one.tags), &one.tags)).collect();
        let wanted: Vec<(BackupKey, &Tags)> = wanted.into_iter().collect();
        let mut rows: BTreeMap<BackupKey, Option<Vouching>> = BTreeMap::new();
        for wave in wanted.chunks(SIDE_BY_SIDE) {
            let read = wave.iter().map(|(_, tags)| worker.table.vouching(tags));
            for ((key, _), read) in wave.iter().zip(join_all(read).await) {
                rows.insert(*key, readable(read)?);
            }
        }
        let now = worker.clock.now();
        let verdicts = found.iter().map(|one| {
            let vouching = rows.get(&key(&one.tags)).and_then(Option::as_ref);
            // Of a row that cannot be read nothing follows.
            let verdict = vouching.map_or(Verdict::UnderWay, |vouching| {
                judge_snapshot(one, &self.table_id, vouching, now)
            });
            (Thing::Snapshot(one.id.clone()), verdict)
        });
        Ok(sort(verdicts))
    }

    /// The same of volumes, by their restores' rows.
    async fn volumes(&self, found: &[SeenVolume]) -> Result<Sorted, Trouble> {
        let worker = self.advance.worker;
        let key = |tags: &Tags| -> RestoreKey { (tags.deployment, tags.restore) };
        let wanted: BTreeMap<RestoreKey, &Tags> =
            found.iter().map(|one| (key(&one.tags), &one.tags)).collect();
        let wanted: Vec<(RestoreKey, &Tags)> = wanted.into_iter().collect();
        let mut rows: BTreeMap<RestoreKey, Option<VouchingRestore>> = BTreeMap::new();
        for wave in wanted.chunks(SIDE_BY_SIDE) {
            let read = wave.iter().map(|(_, tags)| worker.table.vouching_restore(tags));
            for ((key, _), read) in wave.iter().zip(join_all(read).await) {
                rows.insert(*key, readable(read)?);
            }
        }
        let now = worker.clock.now();
        let verdicts = found.iter().map(|one| {
            let row = rows.get(&key(&one.tags)).and_then(Option::as_ref);
            let verdict =
                row.map_or(Verdict::UnderWay, |row| judge_volume(one, &self.table_id, row, now));
            (Thing::Volume(one.id.clone()), verdict)
        });
        Ok(sort(verdicts))
    }

    /// Deletes what there is evidence against, as far as the cap goes. False: its time was
    /// over before the last of them, and the page is to be worked again.
    async fn delete(
        &mut self,
        row: Reconciliation,
        sorted: Sorted,
    ) -> Result<(Reconciliation, Judged, bool), Trouble> {
        let Sorted { mut doomed, mut judged } = sorted;
        // What is held is withheld today, and judged anew tomorrow.
        let run = row.run.as_ref().filter(|_| !self.advance.limits.hold.deletions);
        let allowance = run.map_or(0, Run::allowance);
        let within = usize::try_from(allowance).unwrap_or(usize::MAX).min(doomed.len());
        judged.withheld = count(doomed.len() - within);
        doomed.truncate(within);
        if doomed.is_empty() {
            return Ok((row, judged, true));
        }
        // Stored before they are asked for: the cap holds after a crash, too.
        let mut next = row.clone();
        if let Some(run) = &mut next.run {
            run.reserve(count(within));
        }
        let mut row = self.advance.intend(&row, next).await?.ok_or(Trouble::Overtaken)?;
        let until = self.advance.until;
        let done = self.advance.worker.ec2.delete(doomed, || until.fits(ATTEMPT)).await;
        let (mut not_begun, mut refused) = (0, 0);
        for (thing, done) in done {
            match done {
                Deleted::Taken => tracing::info!(id = %thing, "nobody needs it: deleted"),
                // Tomorrow it is judged again.
                Deleted::Refused(error) => {
                    tracing::warn!(id = %thing, %error, "it could not be deleted");
                    refused += 1;
                }
                Deleted::NotBegun => not_begun += 1,
            }
        }
        if let Some(run) = &mut row.run {
            run.settle(not_begun, refused);
        }
        self.advance.got_on |= not_begun < count(within);
        Ok((row, judged, not_begun == 0))
    }

    /// Asks EC2 for the snapshots of some completed backups, and remembers in a backup's
    /// own row that one of them is surely not there.
    async fn backups(&self, backups: &[Backup]) -> Result<Judged, Trouble> {
        let worker = self.advance.worker;
        // One that a restore needs is that restore's to look at.
        let free = || backups.iter().filter(|row| row.pinned_by.is_none() && row.missing.is_none());
        let ids: Vec<SnapshotId> =
            free().flat_map(|row| row.snapshots().map(|taken| taken.snapshot_id.clone())).collect();
        let most = self.advance.until.look();
        let listed = looked(worker.ec2.listed(&ids), most, Err).await?;
        let mut missing = 0;
        for row in free() {
            let unlisted = row.snapshots().map(|taken| &taken.snapshot_id);
            let unlisted: Vec<SnapshotId> =
                unlisted.filter(|id| !listed.contains(*id)).take(ASKED).cloned().collect();
            if unlisted.is_empty() {
                continue;
            }
            let most = self.advance.until.look();
            let answers = looked(worker.ec2.asked_by_id(&unlisted), most, Err).await?;
            let gone = answers.into_iter().find(|(_, one)| *one == Presence::NotFound);
            if let Some((id, _)) = gone
                && self.note(row, &id).await?
            {
                missing += 1;
            }
        }
        Ok(Judged { seen: count(backups.len()), missing, ..Judged::default() })
    }

    /// Remembers in a backup's row that EC2 does not know one of its snapshots. Its own
    /// step asks again in an hour. False: the row is not as it was.
    async fn note(&self, scanned: &Backup, id: &SnapshotId) -> Result<bool, TableError> {
        let worker = self.advance.worker;
        let now = worker.clock.now();
        let table = &worker.table;
        let Some(row) = table.backup(scanned.deployment_id, scanned.id).await? else {
            return Ok(false);
        };
        let Some(next) = backup::note_missing(&row, id, now) else { return Ok(false) };
        // Sooner, if something else is left to be done for it.
        let again = now + MISSING_AGAIN;
        let due =
            row.due_at.filter(|at| Some(*at) != row.expires_at).map_or(again, |at| at.min(again));
        let noted = matches!(table.write_backup(&row, next, Some(due)).await?, Stored::Yes(_));
        if noted {
            let (deployment_id, backup_id) = (row.deployment_id, row.id);
            tracing::warn!(%deployment_id, %backup_id, snapshot_id = %id, "a snapshot is not there");
        }
        Ok(noted)
    }

    /// EC2 did not let us look: later again, from the same place.
    async fn trouble(&mut self, row: Reconciliation, error: &CallError) -> Result<(), TableError> {
        tracing::warn!(%error, "EC2 could not be looked at");
        telemetry::count(Metric::ReconciliationHindered, 1);
        let mut next = row.clone();
        next.trouble = Some(error.shown());
        next.troubles = next.troubles.saturating_add(1);
        next.lease = None;
        // The token of a page holds for some time, and nobody says for how long.
        if is_of_the_token(error) {
            next.page_lost();
        }
        let pause = Seconds(PAUSE.0 << next.troubles.saturating_sub(1).min(5));
        let now = self.advance.worker.clock.now();
        self.advance.store(&row, next, Some(now + pause)).await.map(|_| ())
    }

    /// Nothing more to do today.
    async fn rest(&mut self, row: Reconciliation) -> Result<(), TableError> {
        let mut next = row.clone();
        next.lease = None;
        let open = !self.advance.without_published(&row).outbox.is_empty();
        let now = self.advance.worker.clock.now();
        let due = if open { row.next_at.min(now + LEASE) } else { row.next_at };
        if row.lease.is_none() && row.due_at == Some(due) && !self.advance.taken_out(&row) {
            return Ok(());
        }
        if self.advance.store(&row, next, Some(due)).await?.is_none() {
            tracing::debug!("changed while it came to rest");
        }
        Ok(())
    }
}

/// Sorts what was judged.
fn sort(verdicts: impl Iterator<Item = (Thing, Verdict)>) -> Sorted {
    let mut sorted = Sorted { doomed: Vec::new(), judged: Judged::default() };
    for (thing, verdict) in verdicts {
        sorted.judged.seen += 1;
        match verdict {
            Verdict::Delete => sorted.doomed.push(thing),
            Verdict::Orphan(because) => {
                tracing::warn!(id = %thing, because = because.sentence(), "nobody vouches for it");
                sorted.judged.orphans.push(thing.to_string());
            }
            Verdict::Young | Verdict::Named | Verdict::UnderWay => {}
        }
    }
    sorted
}

/// Whether EC2 refuses the page's token (EC2 API reference, "Error codes":
/// `InvalidNextToken`, `InvalidPaginationToken`).
fn is_of_the_token(error: &CallError) -> bool {
    matches!(error, CallError::Rejected { code, .. } if code.starts_with("Invalid") && code.ends_with("Token"))
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Logs and counts what a run has come to.
fn told(row: &Reconciliation) {
    let Some(report) = &row.last else { return };
    tracing::info!(?report, "reconciled");
    let found = i64::try_from(report.orphans.count()).unwrap_or(i64::MAX);
    telemetry::count(Metric::OrphansFound, found);
}
