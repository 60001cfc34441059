//! The scheduler: every minute, what is due is set going.
//!
//! It reads the `due` index, shard by shard, oldest first, and works nothing
//! itself: an operation is nudged through the bus, an expired backup turns
//! `deleting` and is nudged, the slot of a schedule becomes a backup. Its rows are hints; each is read and claimed by a
//! conditional write that moves its due time on, so that a row nobody can help
//! never starves those behind it. What is not reached is due at the next tick.

mod schedules;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backups_aws::bus::Bus;
use backups_aws::clock::{self, Clock};
use backups_aws::random;
use backups_aws::sdk::SdkConfig;
use backups_aws::settings::Settings;
use backups_aws::table::{DueRow, Shard, Stored, Table, TableError};
use backups_aws::telemetry::{self, Metric};
use backups_core::announce::OperationDue;
use backups_core::backup::{self, Backup, Status};
use backups_core::brake::{HELD, Switch};
use backups_core::id::{BackupId, DeploymentId, RestoreId};
use backups_core::limits::Limits;
use backups_core::operation::Lease;
use backups_core::time::{Seconds, Time};
use futures_util::StreamExt as _;
use serde_json::Value;

/// Until when a nudged row is not nudged again: one tick and a little.
const NUDGED: Seconds = Seconds(75);

/// When a row that cannot be read is met again.
const UNREADABLE: Seconds = Seconds::hours(1);

/// How often it is looked whether the stack's own rows are there.
const CHECK_EVERY: Seconds = Seconds::hours(1);

/// How many rows are handled side by side.
const SIDE_BY_SIDE: usize = 20;

/// How long the bus may take: what it does not take is due at the next tick.
const BUS: Duration = Duration::from_secs(3);

/// What is kept of the invocation's time.
const RESERVE: Duration = Duration::from_secs(5);

/// The function's `Timeout` in template.yaml (a test compares them).
pub const TIMEOUT: Duration = Duration::from_secs(70);

/// Why a tick failed. The next one starts anew.
#[derive(Debug)]
pub enum Error {
    /// The table did not answer.
    Table(TableError),
    /// It stops by itself before Lambda kills it without a word.
    OutOfTime,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table(error) => write!(f, "the tick failed: {error}"),
            Self::OutOfTime => write!(f, "the tick's time ran out"),
        }
    }
}

impl std::error::Error for Error {}

/// What one instance of the function keeps between invocations.
#[derive(Debug)]
pub struct Scheduler {
    table: Table,
    bus: Bus,
    clock: Clock,
    limits: Limits,
    /// When the table last confirmed that the stack's own rows are as they must be, in
    /// seconds since the epoch.
    checked_at: AtomicI64,
}

impl Scheduler {
    /// Makes the clients. No call is made yet.
    pub fn new(settings: &Settings, sdk: &SdkConfig, clock: Clock) -> Self {
        Self {
            table: Table::new(settings, sdk),
            bus: Bus::new(settings, sdk),
            clock,
            limits: settings.limits.clone(),
            checked_at: AtomicI64::new(i64::MIN),
        }
    }
}

/// One tick. The event itself says nothing.
///
/// # Errors
/// `DUE_SHARDS` is smaller than it ever was; its time is over; or the last shard
/// that could not be read, after all others were.
pub async fn handle(scheduler: &Scheduler, _: Value, remaining: Duration) -> Result<(), Error> {
    let until = tokio::time::Instant::now() + remaining.saturating_sub(RESERVE);
    let oldest = AtomicI64::new(0);
    let done = clock::in_time(remaining, Box::pin(tick(scheduler, until, &oldest))).await;
    let done = done.unwrap_or(Err(Error::OutOfTime));
    // Also of a tick that failed, if it has seen anything: that is the day for which
    // it is counted. That it saw nothing does not say that nothing waits.
    let oldest = oldest.into_inner();
    if done.is_ok() || oldest > 0 {
        telemetry::count(Metric::OldestDueSeconds, oldest);
    }
    done
}

/// As [`handle`], as long as it takes. `oldest`: for how many seconds something
/// has been due.
async fn tick(
    scheduler: &Scheduler,
    until: tokio::time::Instant,
    oldest: &AtomicI64,
) -> Result<(), Error> {
    let now = scheduler.clock.now();
    if let Err(error) = stack_is_whole(scheduler, now).await {
        let never = scheduler.checked_at.load(Ordering::Relaxed) == i64::MIN;
        if never || matches!(error, TableError::Row { .. }) {
            return Err(Error::Table(error));
        }
        // It was so an hour ago: what is due does not wait for it.
        tracing::warn!(%error, "the stack's own rows could not be looked at; the next tick will");
    }
    let brake = scheduler.table.brake().await.map_err(Error::Table)?;
    if let Some(since) = brake.since() {
        telemetry::count(Metric::PausedSeconds, (now - since).0);
        let mut seen = brake.clone();
        if seen.seen(now)
            && let Err(error) = scheduler.table.write_brake(&brake, seen).await
        {
            tracing::warn!(%error, "how long writes are paused is not stored; the next tick will");
        }
    }
    let limits = Limits { hold: brake.hold(), ..scheduler.limits.clone() };
    let released = async {
        // While no write may be made they would pile up, and all begin at once after it.
        if brake.on(Switch::Schedules).is_some() || brake.on(Switch::Writes).is_some() {
            tracing::info!("an operator has paused schedules");
            return Ok(());
        }
        let behind = AtomicI64::new(0);
        let released = schedules::release(scheduler, &limits, now, until, &behind).await;
        let behind = behind.into_inner();
        if released.is_ok() || behind > 0 {
            telemetry::count(Metric::SchedulesBehindSeconds, behind);
        }
        released
    };
    // Beside each other: schedules are released at a pace, and nothing waits for that.
    let (shards, released) =
        tokio::join!(all_shards(scheduler, &limits, now, until, oldest), released);
    if let Err(error) = &released {
        tracing::error!(%error, "the due schedules could not be read");
    }
    shards.and(released).map_err(Error::Table)
}

/// What is due in all shards.
async fn all_shards(
    scheduler: &Scheduler,
    limits: &Limits,
    now: Time,
    until: tokio::time::Instant,
    oldest: &AtomicI64,
) -> Result<(), TableError> {
    let mut failed = None;
    // A different shard goes first each minute: a herd in one starves no other.
    let shards = scheduler.table.due_shards();
    let first = u32::try_from((now.unix() / 60) % i64::from(shards)).unwrap_or(0);
    for offset in 0..shards {
        let shard = (first + offset) % shards;
        if let Err(error) = one_shard(scheduler, limits, shard, now, until, oldest).await {
            tracing::error!(%error, shard, "a shard of the due index could not be read");
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// That no shard of the index was left out, and that the stack's reconciliation stands in
/// it. Once an hour, and not once for each instance: of a table that was lost and made anew
/// a warm instance must come to know too.
async fn stack_is_whole(scheduler: &Scheduler, now: Time) -> Result<(), TableError> {
    let checked = scheduler.checked_at.load(Ordering::Relaxed);
    if (now - Time::from_unix(checked)).0.abs() < CHECK_EVERY.0 {
        return Ok(());
    }
    let table_id = scheduler.table.table_id().await?;
    scheduler.table.ensure_reconciliation(&table_id, now).await?;
    scheduler.checked_at.store(now.unix(), Ordering::Relaxed);
    Ok(())
}

/// What is due in one shard.
async fn one_shard(
    scheduler: &Scheduler,
    limits: &Limits,
    shard: u32,
    now: Time,
    until: tokio::time::Instant,
    oldest: &AtomicI64,
) -> Result<(), TableError> {
    let mut page = None;
    loop {
        let (rows, next) = scheduler.table.due(Shard::Of(shard), now, page).await?;
        for row in &rows {
            waited(row, now, oldest);
        }
        // One bad row never stops the rest.
        futures_util::stream::iter(rows)
            .for_each_concurrent(SIDE_BY_SIDE, |row| async move {
                match one_row(scheduler, limits, &row).await {
                    Ok(()) => {}
                    Err(error @ TableError::Row { .. }) => {
                        tracing::error!(%error, ?row, "a due row cannot be read");
                        let to = scheduler.clock.now() + UNREADABLE;
                        if let Err(error) = scheduler.table.move_row(&row, to).await {
                            tracing::error!(%error, ?row, "and cannot be moved on");
                        }
                    }
                    Err(error) => tracing::error!(%error, ?row, "a due row could not be handled"),
                }
            })
            .await;
        match next {
            Some(next) if tokio::time::Instant::now() < until => page = Some(next),
            Some(_) => {
                tracing::warn!(shard, "the tick's time is over; the rest stays due");
                return Ok(());
            }
            None => return Ok(()),
        }
    }
}

/// Notes for how long the row has been due, if no other has been for longer.
fn waited(row: &DueRow, now: Time, longest: &AtomicI64) {
    if let Some(due_at) = row.due_at() {
        longest.fetch_max((now - due_at).0, Ordering::Relaxed);
    }
}

/// Sets one row going.
async fn one_row(scheduler: &Scheduler, limits: &Limits, row: &DueRow) -> Result<(), TableError> {
    let now = scheduler.clock.now();
    match row {
        DueRow::Backup { deployment_id, id, .. } => {
            one_backup(scheduler, limits, row, *deployment_id, *id).await
        }
        DueRow::Restore { deployment_id, id, .. } => {
            one_restore(scheduler, row, *deployment_id, *id).await
        }
        DueRow::Upgrade { deployment_id, id, .. } => {
            // It is nudged until its own write moves it on: it waits for minutes at most.
            scheduler.table.move_row(row, scheduler.clock.now() + NUDGED).await?;
            nudge(scheduler, row, &OperationDue::upgrade(*deployment_id, id), now).await
        }
        DueRow::Reconciliation { .. } => reconciliation(scheduler, row).await,
        DueRow::Schedule { .. } | DueRow::Unknown { .. } => {
            let problem = "this release does not know it, or it is in the wrong shard";
            Err(TableError::unreadable(format!("{row:?}"), problem))
        }
    }
}

/// Sets one backup going: expires it if it is time, nudges it otherwise.
#[tracing::instrument(skip_all, fields(%deployment_id, backup_id = %id))]
async fn one_backup(
    scheduler: &Scheduler,
    limits: &Limits,
    hint: &DueRow,
    deployment_id: DeploymentId,
    id: BackupId,
) -> Result<(), TableError> {
    let Some(row) = scheduler.table.backup(deployment_id, id).await? else { return Ok(()) };
    let now = scheduler.clock.now();
    // While deletions are paused it stays what it is: its owner may still change its mind.
    let expired = expired(&row, now);
    if expired && limits.hold.deletions && row.rests() {
        scheduler.table.move_due(&row, now + HELD).await?;
        return Ok(());
    }
    if expired && !limits.hold.deletions {
        let Some(next) = backup::start_expiry(&row, now) else { return Ok(()) };
        match scheduler.table.write_backup(&row, next, Some(now + NUDGED)).await? {
            Stored::Yes(_) => tracing::info!("expired"),
            // Patched or advanced in between: what is there now decides, next tick.
            Stored::Conflict => return Ok(()),
        }
    } else {
        let (to, leased) = claimed(row.lease.as_ref(), now);
        if !scheduler.table.move_due(&row, to).await? || leased {
            return Ok(());
        }
    }
    nudge(scheduler, hint, &OperationDue::backup(deployment_id, id), now).await
}

/// Sets one restore going.
#[tracing::instrument(skip_all, fields(%deployment_id, restore_id = %id))]
async fn one_restore(
    scheduler: &Scheduler,
    hint: &DueRow,
    deployment_id: DeploymentId,
    id: RestoreId,
) -> Result<(), TableError> {
    let Some(row) = scheduler.table.restore(deployment_id, id).await? else { return Ok(()) };
    let now = scheduler.clock.now();
    let (to, leased) = claimed(row.lease.as_ref(), now);
    if !scheduler.table.move_restore(&row, to).await? || leased {
        return Ok(());
    }
    nudge(scheduler, hint, &OperationDue::restore(deployment_id, id), now).await
}

/// Sets the stack's reconciliation going.
async fn reconciliation(scheduler: &Scheduler, hint: &DueRow) -> Result<(), TableError> {
    let Some(row) = scheduler.table.reconciliation().await? else { return Ok(()) };
    let now = scheduler.clock.now();
    if row.is_late(now) {
        tracing::warn!(next_at = %row.next_at, "the reconciliation does not get on");
        telemetry::count(Metric::ReconciliationHindered, 1);
    }
    let (to, leased) = claimed(row.lease.as_ref(), now);
    if !scheduler.table.move_reconciliation(&row, to).await? || leased {
        return Ok(());
    }
    nudge(scheduler, hint, &OperationDue::reconciliation(), now).await
}

/// Until when a row that is nudged now is not nudged again, and whether somebody acts on
/// it: then it is not nudged at all.
fn claimed(lease: Option<&Lease>, now: Time) -> (Time, bool) {
    let spread = random::jitter(Duration::from_secs(10)).as_secs();
    let to = now + NUDGED + Seconds(i64::try_from(spread).unwrap_or(0));
    let leased = lease.filter(|lease| lease.until > now);
    (leased.map_or(to, |lease| lease.until), leased.is_some())
}

/// Nudges the worker; what the bus does not take is due at once.
async fn nudge(
    scheduler: &Scheduler,
    hint: &DueRow,
    due: &OperationDue,
    now: Time,
) -> Result<(), TableError> {
    if let Err(error) = scheduler.bus.due(due, BUS).await {
        tracing::warn!(%error, "not nudged; the next tick will");
        scheduler.table.move_row(hint, now).await?;
    }
    Ok(())
}

/// Whether the backup's time is over. One that runs is let finish first, and one that a
/// restore needs waits for it.
fn expired(row: &Backup, now: Time) -> bool {
    matches!(row.status, Status::Completed | Status::Failed)
        && row.pinned_by.is_none()
        && row.expires_at.is_some_and(|at| at <= now)
}
