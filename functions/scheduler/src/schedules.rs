//! Slots of schedules: each is decided on, and its backup released, at the pace at which
//! the account may start snapshots.
//!
//! The rows are worked one after the other, the longest due first. The pace is kept by
//! places in one row of the table ([`backups_aws::table::Table::reserve`]), so that ticks
//! that overlap do not double it; users' creates go past it. What is not reached in this
//! tick stays due.

use std::time::Duration;

use backups_aws::random;
use backups_aws::table::{DueRow, Shard, Stored, TableError, Written};
use backups_aws::telemetry::{self, Metric};
use backups_core::announce::Detail;
use backups_core::backup::Backup;
use backups_core::deployment::Deployment;
use backups_core::id::DeploymentId;
use backups_core::schedule::{Schedule, Sight, Turn, gives_way};
use backups_core::time::Time;

use crate::{Scheduler, UNREADABLE};

/// How long after its start a tick still releases. The next one goes on.
const RELEASES: Duration = Duration::from_secs(57);

/// How often a row that somebody else wrote is decided on anew.
const TRIES: u32 = 4;

/// How long the bus may take: what it does not take stays in the row.
const BUS: Duration = Duration::from_secs(3);

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Row,
    Stop,
}

/// Decides on the slots that are due.
pub(crate) async fn release(
    scheduler: &Scheduler,
    now: Time,
    until: tokio::time::Instant,
) -> Result<(), TableError> {
    let until = until.min(tokio::time::Instant::now() + RELEASES);
    let mut page = None;
    loop {
        let (rows, next) = scheduler.table.due(Shard::Schedules, now, page).await?;
        for row in rows {
            if tokio::time::Instant::now() >= until {
                tracing::warn!("the tick's time is over; other schedules stay due");
                return Ok(());
            }
            match one_row(scheduler, &row, until).await {
                Ok(Next::Row) => {}
                Ok(Next::Stop) => return Ok(()),
                Err(error @ TableError::Row { .. }) => {
                    tracing::error!(%error, ?row, "a due row cannot be read");
                    scheduler.table.move_row(&row, scheduler.clock.now() + UNREADABLE).await?;
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

/// Decides on one schedule's slot.
async fn one_row(
    scheduler: &Scheduler,
    row: &DueRow,
    until: tokio::time::Instant,
) -> Result<Next, TableError> {
    let DueRow::Schedule { deployment_id, .. } = row else {
        let problem = "it stands where schedules stand".to_owned();
        return Err(TableError::Row { row: format!("{row:?}"), problem });
    };
    one_schedule(scheduler, *deployment_id, until).await
}

#[tracing::instrument(skip_all, fields(%deployment_id))]
async fn one_schedule(
    scheduler: &Scheduler,
    deployment_id: DeploymentId,
    until: tokio::time::Instant,
) -> Result<Next, TableError> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            scheduler.clock.sleep(random::jitter(Duration::from_millis(100))).await;
        }
        let table = &scheduler.table;
        let Some(read) = table.schedule(deployment_id).await? else { return Ok(Next::Row) };
        let mut row = read.clone();
        announce(scheduler, &mut row).await;
        let now = scheduler.clock.now();
        let (deployment, turn) = if row.wants_turn(now) {
            decide(scheduler, &row, now).await?
        } else {
            (None, Turn::Rest)
        };
        let stored = match (deployment, turn) {
            (Some(deployment), Turn::Start { schedule, backup, room }) => {
                if !wait_for_place(scheduler, &backup, until).await? {
                    return Ok(Next::Stop);
                }
                let due = schedule.due(now);
                let new = (&*backup, room);
                let done = table.start_scheduled(&deployment, &read, *schedule, due, new).await?;
                if done == Written::Stored {
                    tracing::info!(backup_id = %backup.id, slot = ?backup.schedule_slot, "a slot's backup is requested");
                    publish(scheduler, &backup).await;
                }
                done == Written::Stored
            }
            (_, Turn::Record(next)) => store(scheduler, &read, *next, now).await?,
            _ => store(scheduler, &read, row, now).await?,
        };
        if stored {
            return Ok(Next::Row);
        }
    }
    tracing::warn!("others write the schedule's row all the time; it stays due");
    Ok(Next::Row)
}

/// What becomes of the slot, and the deployment on which that was decided: the start of a
/// backup compares it.
async fn decide(
    scheduler: &Scheduler,
    schedule: &Schedule,
    now: Time,
) -> Result<(Option<Deployment>, Turn), TableError> {
    let (id, limits) = (schedule.deployment_id, &scheduler.limits);
    let mut found = scheduler.table.deployment(id).await?;
    let mut way = false;
    let is_full = |found: &Deployment| {
        found.registry.backup_limit(limits).is_some_and(|limit| found.backup_count >= limit)
    };
    if found.as_ref().is_some_and(is_full) {
        let (deployment, backups) = scheduler.table.list(id).await?.unzip();
        (found, way) = (deployment, gives_way(&backups.unwrap_or_default()).is_some());
    }
    let sight = Sight { deployment: found.as_ref(), gives_way: way };
    let turn = schedule.turn(&sight, limits, random::nonce(), now);
    Ok((found, turn))
}

/// Stores the row, and what is announced in it.
async fn store(
    scheduler: &Scheduler,
    read: &Schedule,
    next: Schedule,
    now: Time,
) -> Result<bool, TableError> {
    let due = next.due(now);
    if next == *read && due == read.due_at {
        return Ok(true);
    }
    let skipped = next.outbox.iter().filter(|one| !read.outbox.contains(one)).count();
    match scheduler.table.write_schedule(Some(read), next, due).await? {
        Stored::Yes(stored) => {
            if skipped > 0 {
                let why = stored.outbox.last().map(|one| one.why.code.as_str());
                tracing::warn!(why, "slots were skipped");
                let count = i64::try_from(skipped).unwrap_or(i64::MAX);
                telemetry::count(Metric::SchedulesSkipped, count, scheduler.clock.timestamp());
            }
            let mut told = (*stored).clone();
            announce(scheduler, &mut told).await;
            if told != *stored {
                let due = told.due(now);
                scheduler.table.write_schedule(Some(&stored), told, due).await?;
            }
            Ok(true)
        }
        Stored::Conflict => Ok(false),
    }
}

/// Publishes what the row has skipped, and takes out what the bus has.
async fn announce(scheduler: &Scheduler, row: &mut Schedule) {
    let open = Detail::all_of_schedule(row);
    if open.is_empty() {
        return;
    }
    if let Ok(taken) = tokio::time::timeout(BUS, scheduler.bus.publish(&open)).await {
        row.forget(&taken);
    } else {
        tracing::warn!("the bus did not answer; announcements stay in the outbox");
    }
}

/// Tells of a new backup, which sets it going. If the bus does not take it the row is due.
async fn publish(scheduler: &Scheduler, backup: &Backup) {
    let open = Detail::all_of(backup);
    if tokio::time::timeout(BUS, scheduler.bus.publish(&open)).await.is_err() {
        tracing::warn!("the bus did not answer; the next tick nudges");
    }
}

/// Waits until as many snapshots may be started as the backup has nodes. False: not in
/// this tick.
async fn wait_for_place(
    scheduler: &Scheduler,
    backup: &Backup,
    until: tokio::time::Instant,
) -> Result<bool, TableError> {
    let now = scheduler.clock.timestamp().as_millisecond();
    let left = until.saturating_duration_since(tokio::time::Instant::now()).as_millis();
    let last = now.saturating_add(i64::try_from(left).unwrap_or(0));
    let calls = u64::try_from(backup.nodes.len()).unwrap_or(u64::MAX);
    match scheduler.table.reserve(calls, now, last).await? {
        None => Ok(false),
        Some(begin) => {
            let span = u64::try_from(begin.saturating_sub(now)).unwrap_or(0);
            Ok(span == 0 || scheduler.clock.sleep(Duration::from_millis(span)).await)
        }
    }
}
