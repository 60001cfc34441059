//! The stack's bus: announcements for the world, nudges for the worker.

use std::time::Duration;

use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use backups_core::announce::{
    Detail, EVENT_REJECTED, EventRejected, Kind, OPERATION_DUE, ORPHAN_REMOVAL_ORDERED,
    OperationDue, OrphanRemovalOrdered, REJECTED_SOURCE, RESTORE_ORDERED, RestoreOrdered, SOURCE,
};
use backups_core::id::Nonce;
use backups_core::operation::CallError;

use crate::sdk::SdkConfig;
use crate::settings::Settings;

/// The most entries of one `PutEvents` (EventBridge API reference).
const ENTRIES: usize = 10;

/// Why the bus did not take an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusError(pub String);

impl std::fmt::Display for BusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the event bus did not take the event: {}", self.0)
    }
}

impl std::error::Error for BusError {}

impl From<CallError> for BusError {
    fn from(error: CallError) -> Self {
        Self(error.to_string())
    }
}

/// What became of announcements.
#[derive(Debug, Default)]
pub struct Published {
    /// Those that the bus has surely taken, by their ids: only they may leave their outbox.
    pub taken: Vec<Nonce>,
    /// It did not answer in time: of the others nothing is known.
    pub silent: bool,
}

/// Puts events on the stack's bus.
#[derive(Debug, Clone)]
pub struct Bus {
    client: aws_sdk_eventbridge::Client,
    name: String,
}

impl Bus {
    /// The stack's bus.
    pub fn new(settings: &Settings, sdk: &SdkConfig) -> Self {
        Self::named(&settings.bus_name, sdk)
    }

    /// The bus of this name.
    pub fn named(name: &str, sdk: &SdkConfig) -> Self {
        Self { client: sdk.eventbridge(), name: name.to_owned() }
    }

    /// Publishes announcements, within `most`.
    pub async fn publish(&self, announcements: &[(Kind, Detail)], most: Duration) -> Published {
        let until = tokio::time::Instant::now() + most;
        let mut published = Published::default();
        for chunk in announcements.chunks(ENTRIES) {
            let entries: Vec<_> =
                chunk.iter().map(|(kind, detail)| self.entry(kind.detail_type(), detail)).collect();
            match tokio::time::timeout_at(until, self.put(entries)).await {
                Ok(Ok(faults)) => {
                    for ((kind, detail), fault) in chunk.iter().zip(faults) {
                        match fault {
                            None => published.taken.push(detail.announcement_id.clone()),
                            Some(fault) => tracing::warn!(
                                announcement = kind.detail_type(),
                                fault,
                                "the bus refused an announcement; it stays in the outbox"
                            ),
                        }
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "announcements stay in the outbox");
                }
                Err(_) => {
                    tracing::warn!("the bus did not answer; announcements stay in the outbox");
                    published.silent = true;
                    break;
                }
            }
        }
        published
    }

    /// Nudges the worker to look at an operation.
    ///
    /// # Errors
    /// The bus did not take it, or did not answer within `most`. The row is due all the
    /// same: the tick nudges again.
    pub async fn due(&self, due: &OperationDue, most: Duration) -> Result<(), BusError> {
        within(most, self.put_one(OPERATION_DUE, due)).await
    }

    async fn put_one(
        &self,
        detail_type: &str,
        detail: &impl serde::Serialize,
    ) -> Result<(), BusError> {
        self.put_entry(self.entry(detail_type, detail)).await
    }

    async fn put_entry(&self, entry: PutEventsRequestEntry) -> Result<(), BusError> {
        let faults = self.put(vec![entry]).await?;
        match faults.into_iter().flatten().next() {
            None => Ok(()),
            Some(fault) => Err(BusError(fault)),
        }
    }

    /// Hands an operator's order to the worker.
    ///
    /// # Errors
    /// The bus did not take it, or did not surely.
    pub async fn order(&self, ordered: &RestoreOrdered) -> Result<(), BusError> {
        self.put_one(RESTORE_ORDERED, ordered).await
    }

    /// Hands an operator's order about orphans to the worker.
    ///
    /// # Errors
    /// The bus did not take it, or did not surely.
    pub async fn order_removal(&self, ordered: &OrphanRemovalOrdered) -> Result<(), BusError> {
        self.put_one(ORPHAN_REMOVAL_ORDERED, ordered).await
    }

    /// Hands an event that was refused to the rule that keeps it.
    ///
    /// # Errors
    /// As [`Bus::due`]; but nothing makes up for it, so the event is to be tried again.
    pub async fn rejected(&self, event: &EventRejected, most: Duration) -> Result<(), BusError> {
        let entry = self.entry_of(REJECTED_SOURCE, EVENT_REJECTED, event);
        within(most, self.put_entry(entry)).await
    }

    /// One entry of ours.
    fn entry(&self, detail_type: &str, detail: &impl serde::Serialize) -> PutEventsRequestEntry {
        self.entry_of(SOURCE, detail_type, detail)
    }

    fn entry_of(
        &self,
        source: &str,
        detail_type: &str,
        detail: &impl serde::Serialize,
    ) -> PutEventsRequestEntry {
        // A detail of ours is a struct of plain fields: it always serializes.
        let detail = serde_json::to_string(detail).unwrap_or_default();
        PutEventsRequestEntry::builder()
            .source(source)
            .detail_type(detail_type)
            .detail(detail)
            .event_bus_name(&self.name)
            .build()
    }

    /// One `PutEvents`. A 200 may still refuse entries: the faults are per entry.
    async fn put(
        &self,
        entries: Vec<PutEventsRequestEntry>,
    ) -> Result<Vec<Option<String>>, BusError> {
        let count = entries.len();
        let reply = self.client.put_events().set_entries(Some(entries)).send().await;
        let reply = reply.map_err(|error| crate::error::sort(&error))?;
        let mut faults: Vec<_> = reply
            .entries()
            .iter()
            .map(|entry| {
                entry.error_code().map(|code| {
                    format!("{code}: {}", entry.error_message().unwrap_or("no message"))
                })
            })
            .collect();
        // An entry without an answer was not surely taken.
        faults.resize(count, Some("no answer for this entry".to_owned()));
        Ok(faults)
    }
}

/// What the bus answers within a span.
async fn within(
    most: Duration,
    call: impl Future<Output = Result<(), BusError>>,
) -> Result<(), BusError> {
    let silent = || BusError(format!("no answer within {} s", most.as_secs()));
    tokio::time::timeout(most, call).await.unwrap_or_else(|_| Err(silent()))
}
