//! Slots of schedules: each is decided on, and its backup released, at the pace at which
//! the account may start snapshots.
//!
//! The rows are worked one after the other, the longest due first. The pace is kept by
//! places in one row of the table ([`backups_aws::table::Table::reserve`]), so that ticks
//! that overlap do not double it; users' creates go past it. What is not reached in this
//! tick stays due.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use backups_aws::random;
use backups_aws::table::{DueRow, Shard, Stored, TableError, Written};
use backups_aws::telemetry::{self, Metric};
use backups_core::announce::{Detail, Kind, OperationDue};
use backups_core::backup::Backup;
use backups_core::create::Room;
use backups_core::deployment::Deployment;
use backups_core::id::{BackupId, DeploymentId, Nonce};
use backups_core::limits::Limits;
use backups_core::schedule::{Schedule, Sight, Turn};
use backups_core::time::Time;

use crate::{BUS, Scheduler, UNREADABLE, waited};

/// How long after its start a tick still releases. The next one goes on.
const RELEASES: Duration = Duration::from_secs(59);

/// How often a row that somebody else wrote is decided on anew.
const TRIES: u32 = 4;

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Row,
    Stop,
}

/// One tick's releases.
struct Releasing<'a> {
    scheduler: &'a Scheduler,
    limits: &'a Limits,
    until: tokio::time::Instant,
    /// The bus has not answered in this tick: it is not waited for again, or a few backups
    /// would take all of the time. Their rows are due.
    silent: bool,
}

/// Decides on the slots that are due. `behind`: for how many seconds one has been.
pub(crate) async fn release(
    scheduler: &Scheduler,
    limits: &Limits,
    now: Time,
    until: tokio::time::Instant,
    behind: &AtomicI64,
) -> Result<(), TableError> {
    let until = until.min(tokio::time::Instant::now() + RELEASES);
    let mut releasing = Releasing { scheduler, limits, until, silent: false };
    let mut page = None;
    loop {
        let (rows, next) = scheduler.table.due(Shard::Schedules, now, page).await?;
        for row in rows {
            waited(&row, now, behind);
            if tokio::time::Instant::now() >= until {
                tracing::warn!("the tick's time is over; other schedules stay due");
                return Ok(());
            }
            match releasing.row(&row).await {
                Ok(Next::Row) => {}
                Ok(Next::Stop) => return Ok(()),
                Err(error @ TableError::Row { .. }) => {
                    tracing::error!(%error, ?row, "a due row cannot be read");
                    let to = scheduler.clock.now() + UNREADABLE;
                    if let Err(error) = scheduler.table.move_row(&row, to).await {
                        tracing::error!(%error, ?row, "and cannot be moved on");
                    }
                }
                Err(error) => tracing::error!(%error, ?row, "a schedule could not be handled"),
            }
        }
        match next {
            Some(next) => page = Some(next),
            None => return Ok(()),
        }
    }
}

impl Releasing<'_> {
    /// Decides on one schedule's slot.
    async fn row(&mut self, row: &DueRow) -> Result<Next, TableError> {
        let DueRow::Schedule { deployment_id, .. } = row else {
            let problem = "it stands where schedules stand";
            return Err(TableError::unreadable(format!("{row:?}"), problem));
        };
        self.schedule(*deployment_id).await
    }

    #[tracing::instrument(skip_all, fields(%deployment_id))]
    async fn schedule(&mut self, deployment_id: DeploymentId) -> Result<Next, TableError> {
        let table = &self.scheduler.table;
        // A place that was taken is kept for the next try.
        let mut place = false;
        let mut tried = None;
        for attempt in 0..TRIES {
            self.scheduler.clock.others_first(attempt).await;
            let Some(read) = table.schedule(deployment_id).await? else { return Ok(Next::Row) };
            if tried.is_some() && read.last_run_at == tried {
                tracing::info!("another tick releases; this one leaves it to that");
                return Ok(Next::Stop);
            }
            let mut row = read.clone();
            self.announce(&mut row).await;
            let now = self.scheduler.clock.now();
            let (deployment, turn) = if row.wants_turn(now) {
                decide(self.scheduler, self.limits, &row, now).await?
            } else {
                (None, Turn::Rest)
            };
            let stored = match (deployment, turn) {
                (Some(deployment), Turn::Start { schedule, backup, room }) => {
                    place = place || self.place(&backup).await?;
                    if !place {
                        return Ok(Next::Stop);
                    }
                    tried = backup.schedule_slot;
                    self.start(&deployment, &read, *schedule, (&*backup, room)).await?
                }
                (found, Turn::Record(next)) => {
                    if read.setting.is_some() && next.setting.is_none() {
                        tracing::info!("its deployment was deleted: the schedule goes");
                    }
                    let busy = found.and_then(|found| found.active_backup);
                    if let Some(busy) = busy.filter(|_| next.waiting.is_some()) {
                        self.look_again(deployment_id, busy).await;
                    }
                    self.store(&read, *next, now).await?
                }
                _ => self.store(&read, row, now).await?,
            };
            if stored {
                return Ok(Next::Row);
            }
        }
        tracing::warn!("others write the schedule's row all the time; it stays due");
        Ok(Next::Row)
    }

    /// Perhaps the backup that a slot waits for is over, and its event was lost: one of a
    /// schedule is looked at seldom while nobody waits for it.
    async fn look_again(&mut self, deployment: DeploymentId, busy: BackupId) {
        if self.silent {
            return;
        }
        let due = OperationDue::backup(deployment, busy);
        if let Err(error) = self.scheduler.bus.due(&due, BUS).await {
            tracing::warn!(%error, "the backup that a slot waits for is not nudged");
        }
    }

    /// Stores a slot's backup, and tells of it. False: somebody else was faster.
    async fn start(
        &mut self,
        deployment: &Deployment,
        read: &Schedule,
        next: Schedule,
        new: (&Backup, Room),
    ) -> Result<bool, TableError> {
        let (backup, _) = new;
        let due = next.due(self.scheduler.clock.now());
        let skipped = skipped(read, &next);
        let table = &self.scheduler.table;
        if table.start_scheduled(deployment, read, next, due, new).await? != Written::Stored {
            return Ok(false);
        }
        tracing::info!(backup_id = %backup.id, slot = ?backup.schedule_slot, "a slot's backup is requested");
        Self::count(skipped);
        // What was skipped before it stands in the row, which is due for that.
        self.publish(&Detail::all_of(backup)).await;
        Ok(true)
    }

    /// Stores the row, and announces what stands in it.
    async fn store(
        &mut self,
        read: &Schedule,
        next: Schedule,
        now: Time,
    ) -> Result<bool, TableError> {
        let due = next.due(now);
        if next == *read && due == read.due_at {
            return Ok(true);
        }
        let skipped = skipped(read, &next);
        let table = &self.scheduler.table;
        match table.write_schedule(Some(read), next, due).await? {
            Stored::Yes(stored) => {
                Self::count(skipped);
                let mut told = (*stored).clone();
                self.announce(&mut told).await;
                if told != *stored {
                    let due = told.due(now);
                    table.write_schedule(Some(&stored), told, due).await?;
                }
                Ok(true)
            }
            Stored::Conflict => Ok(false),
        }
    }

    /// Counts slots that make no backup.
    fn count(skipped: usize) {
        if skipped > 0 {
            tracing::warn!(skipped, "slots were skipped");
            let count = i64::try_from(skipped).unwrap_or(i64::MAX);
            telemetry::count(Metric::SchedulesSkipped, count);
        }
    }

    /// Announces what the row has skipped, and takes out what the bus has.
    async fn announce(&mut self, row: &mut Schedule) {
        let taken = self.publish(&Detail::all_of_schedule(row)).await;
        row.forget(&taken);
    }

    /// Puts announcements on the bus, unless it was silent in this tick. Gives those that
    /// it has taken; the others stay in their rows, which are due.
    async fn publish(&mut self, open: &[(Kind, Detail)]) -> Vec<Nonce> {
        if open.is_empty() || self.silent {
            return Vec::new();
        }
        let published = self.scheduler.bus.publish(open, BUS).await;
        self.silent = published.silent;
        published.taken
    }

    /// Waits until as many snapshots may be started as the backup has nodes. False: not in
    /// this tick.
    async fn place(&self, backup: &Backup) -> Result<bool, TableError> {
        let now = self.scheduler.clock.timestamp().as_millisecond();
        let left = self.until.saturating_duration_since(tokio::time::Instant::now()).as_millis();
        let last = now.saturating_add(i64::try_from(left).unwrap_or(0));
        let calls = u64::try_from(backup.nodes.len()).unwrap_or(u64::MAX);
        let Some(begin) = self.scheduler.table.reserve(calls, now, last).await? else {
            tracing::info!("the places of this minute are taken; other schedules stay due");
            return Ok(false);
        };
        let span = u64::try_from(begin.saturating_sub(now)).unwrap_or(0);
        Ok(span == 0 || self.scheduler.clock.sleep(Duration::from_millis(span)).await)
    }
}

/// How many slots `next` has skipped that `read` had not.
fn skipped(read: &Schedule, next: &Schedule) -> usize {
    next.outbox.iter().filter(|one| !read.outbox.contains(one)).count()
}

/// What becomes of the slot, and the deployment on which that was decided: the start of a
/// backup compares it.
async fn decide(
    scheduler: &Scheduler,
    limits: &Limits,
    schedule: &Schedule,
    now: Time,
) -> Result<(Option<Deployment>, Turn), TableError> {
    let (found, way) = scheduler.table.room(schedule.deployment_id, limits).await?;
    let sight = Sight { deployment: found.as_ref(), way };
    let turn = schedule.turn(&sight, limits, random::nonce(), now);
    Ok((found, turn))
}
