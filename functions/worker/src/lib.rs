//! The worker: the only function that touches EC2.
//!
//! It is woken by EventBridge and advances one operation per invocation: read
//! the row, look at EC2, ask the pure step function, store, act, store again.
//! An event is never believed, it only says "look now"; so a lost, doubled, or
//! late one costs time and never truth. Only what the control plane says is made up for by
//! nobody: that comes through a queue, and is tried until it is done or refused (ADR 0022).

mod advance;
mod backups;
mod operation;
mod orphans;
mod reconciliation;
mod registry;
mod restores;
mod upgrades;

use std::time::Duration;

use backups_aws::bus::{Bus, BusError};
use backups_aws::clock::{self, Clock};
use backups_aws::ec2::Ec2;
use backups_aws::sdk::SdkConfig;
use backups_aws::settings::Settings;
use backups_aws::table::{Table, TableError};
use backups_aws::telemetry::{self, Metric};
use backups_core::announce::EventRejected;
use backups_core::brake::Hold;
use backups_core::limits::Limits;
use backups_core::time::{Seconds, Time};
use backups_core::wake::{self, Message, Wake};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tracing::Instrument as _;

/// The function's `Timeout` in template.yaml (a test compares them). Time left is
/// counted from the invocation's start: the context's deadline is not an epoch
/// time everywhere (`cargo lambda watch` sends a constant).
pub const TIMEOUT: Duration = Duration::from_secs(45);

/// An order that is older does not count: what it was given for may be over.
const ORDER_COUNTS: Seconds = Seconds::minutes(15);

/// Why an invocation failed. It is tried again: what `EventBridge` invoked by Lambda, which
/// then puts it into the dead-letter queue with this text; a queue's message by the queue.
#[derive(Debug)]
pub enum Error {
    /// The table did not answer; the row is due, the tick comes back to it.
    Table(TableError),
    /// So is its time: it stops by itself before Lambda kills it without a word.
    OutOfTime,
    /// The event is not what it must be. Nothing was changed, but that a key may be ended.
    Rejected(String),
    /// A message of the queue was refused, and the bus did not take that.
    Unsaid(BusError),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table(error) => write!(f, "{error}"),
            Self::OutOfTime => write!(f, "the invocation's time ran out"),
            Self::Rejected(reason) => write!(f, "event refused: {reason}"),
            Self::Unsaid(error) => write!(f, "event refused, which is not told: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

/// What one instance of the function keeps between invocations.
#[derive(Debug)]
pub struct Worker {
    table: Table,
    ec2: Ec2,
    bus: Bus,
    clock: Clock,
    limits: Limits,
    region: String,
    managed_tag: (String, String),
    table_id: OnceCell<String>,
}

impl Worker {
    /// Makes the clients. No call is made yet.
    pub fn new(settings: &Settings, sdk: &SdkConfig, clock: Clock) -> Self {
        Self {
            table: Table::new(settings, sdk),
            ec2: Ec2::new(settings, sdk),
            bus: Bus::new(settings, sdk),
            clock,
            limits: settings.limits.clone(),
            region: sdk.region().to_owned(),
            managed_tag: settings.managed_tag.clone(),
            table_id: OnceCell::new(),
        }
    }

    /// The table's id, read once.
    async fn table_id(&self) -> Result<&str, TableError> {
        self.table_id.get_or_try_init(|| self.table.table_id()).await.map(String::as_str)
    }

    /// The stack's limits, with what an operator holds.
    fn limits_under(&self, hold: Hold) -> Limits {
        Limits { hold, ..self.limits.clone() }
    }

    /// That an operator's order of that time counts.
    fn order_counts(&self, at: Time) -> Result<(), Error> {
        let age = self.clock.now() - at;
        if age.0.abs() > ORDER_COUNTS.0 {
            let reason = format!("the order is of {at}; look again, and order anew");
            return Err(Error::Rejected(reason));
        }
        Ok(())
    }
}

/// What was read, or None for a row that this release cannot read: nothing follows from it.
fn readable<T>(read: Result<T, TableError>) -> Result<Option<T>, TableError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ TableError::Row { .. }) => {
            tracing::error!(%error, "nothing follows from a row that cannot be read");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the function is invoked with, and answers: null to an event; to a queue's messages
/// those that failed, and are to be tried again. `remaining` as for [`handle`].
///
/// The invocation itself succeeds then: after one that fails Lambda takes fewer messages at a
/// time out of the queue, and a single message that always fails would slow all others (Lambda
/// developer guide, "Handling errors for an SQS event source in Lambda").
///
/// # Errors
/// As [`handle`], to an event.
pub async fn invoke(worker: &Worker, invoked: Value, remaining: Duration) -> Result<Value, Error> {
    let Some(messages) = wake::messages(&invoked) else {
        return handle(worker, invoked, remaining).await.map(|()| Value::Null);
    };
    let until = tokio::time::Instant::now() + remaining;
    let mut failed = Vec::new();
    for Message { id, event } in messages {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let event_id = event["id"].as_str().unwrap_or_default().to_owned();
        if let Err(error) = from_queue(worker, event, left).await {
            tracing::error!(%error, event_id, "it stays in the queue, and is tried again");
            failed.push(json!({"itemIdentifier": id}));
        }
    }
    Ok(json!({"batchItemFailures": failed}))
}

/// An event of a queue. A queue has no reason for what it gives up, and would try a refused
/// one for two days: a rule hands it to the dead-letter queue, with the reason.
async fn from_queue(worker: &Worker, event: Value, remaining: Duration) -> Result<(), Error> {
    // That it is refused is told within the same invocation.
    let remaining = remaining.saturating_sub(advance::BUS);
    match handle(worker, event.clone(), remaining).await {
        Err(Error::Rejected(reason)) => {
            let rejected = EventRejected::new(&reason, event);
            // A type of its own: the compiler follows none as deep as a call of the SDK.
            let told: BoxFuture<'_, _> = Box::pin(worker.bus.rejected(&rejected, advance::BUS));
            told.await.map_err(Error::Unsaid)
        }
        done => done,
    }
}

/// Handles one event, with its id in the logs. `remaining` is the time until Lambda ends the
/// invocation, counted from its start and the function's time-out.
///
/// # Errors
/// It is tried again; an event that came without a queue is kept in the dead-letter queue at
/// last.
pub fn handle(
    worker: &Worker,
    event: Value,
    remaining: Duration,
) -> BoxFuture<'_, Result<(), Error>> {
    let id = event["id"].as_str().unwrap_or_default().to_owned();
    let span = tracing::info_span!("event", event_id = id);
    let work = Box::pin(handle_one(worker, event, remaining));
    let done = async move {
        clock::in_time(remaining, work).await.unwrap_or_else(|| {
            tracing::error!("the invocation's time ran out; what is stored is gone on from");
            Err(Error::OutOfTime)
        })
    };
    Box::pin(done.instrument(span))
}

async fn handle_one(worker: &Worker, event: Value, remaining: Duration) -> Result<(), Error> {
    let until = advance::Deadline::after(remaining);
    match wake::read(event) {
        Ok(Wake::Backup { deployment_id, id, announced }) => {
            backups::advance(worker, deployment_id, id, announced, until).await?;
        }
        Ok(Wake::Restore { deployment_id, id, announced }) => {
            restores::advance(worker, deployment_id, id, announced, until).await?;
        }
        Ok(Wake::Ordered { ordered, at }) => {
            reject_counted(restores::obey(worker, ordered, at, until).await)?;
        }
        Ok(Wake::Snapshots { smallest }) => {
            // Not a set of ours: one read, and done.
            if let Some(owner) = worker.table.owner(&smallest).await? {
                backups::advance(worker, owner.deployment_id, owner.backup_id, None, until).await?;
            }
        }
        Ok(Wake::UpgradeRequested(event)) => {
            reject_counted(upgrades::requested(worker, event).await)?;
        }
        Ok(Wake::Upgrade { deployment_id, id }) => {
            upgrades::advance(worker, deployment_id, &id).await?;
        }
        Ok(Wake::Changed(event)) => {
            reject_counted(registry::changed(&worker.table, &worker.region, event).await)?;
        }
        Ok(Wake::Deleted(event)) => {
            let done = registry::deleted(&worker.table, &event).await;
            reject_counted(done)?;
        }
        Ok(Wake::KeyChanged(event)) => {
            let done = registry::key_changed(&worker.table, event, &worker.clock).await;
            reject_counted(done)?;
        }
        Ok(Wake::KeyEnded { ended, fault }) => {
            let done = registry::key_ended(&worker.table, &ended, fault, &worker.clock).await;
            reject_counted(done)?;
        }
        Ok(Wake::Reconciliation) => reconciliation::advance(worker, until).await?,
        Ok(Wake::RemovalOrdered { ordered, at }) => {
            reject_counted(orphans::remove(worker, ordered, at, until).await)?;
        }
        Ok(Wake::Foreign) => tracing::debug!("an event that is not for us"),
        Err(reason) => return reject_counted(Err(Error::Rejected(reason))),
    }
    Ok(())
}

/// Counts an event that was refused, at each try of it.
fn reject_counted(result: Result<(), Error>) -> Result<(), Error> {
    if let Err(Error::Rejected(reason)) = &result {
        tracing::error!(%reason, "event refused");
        telemetry::count(Metric::EventsRejected, 1);
    }
    result
}
