//! What will happen by itself, and when.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::table::Table;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// The snapshot's copying ends, well or not.
    FinishSnapshot(String),
    /// A deleted snapshot stops lingering in describes.
    ForgetSnapshot(String),
    /// `stopping` becomes `stopped`.
    FinishStop(String),
    /// `pending` becomes `running`.
    FinishStart(String),
    FinishTermination(String),
    /// A terminated instance stops being described.
    ForgetInstance(String),
    /// The volume's creation ends, well or not.
    FinishVolume(String),
    /// A volume that is being deleted is gone.
    ForgetVolume(String),
    /// `attaching` or `detaching` ends.
    FinishAttachment {
        instance: String,
        volume: String,
    },
    /// An event reaches its bus.
    Arrive {
        bus: String,
        event: Value,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Item {
    at: Timestamp,
    work: Work,
}

/// Work by time; what falls due at one moment is done in the order planned.
#[derive(Debug)]
pub(crate) struct Agenda {
    items: Table<u64, Item>,
    order: BTreeSet<(Timestamp, u64)>,
}

impl Agenda {
    pub(crate) fn new() -> Self {
        Agenda { items: Table::new("work"), order: BTreeSet::new() }
    }

    pub(crate) fn insert(&mut self, id: u64, at: Timestamp, work: Work) {
        self.items.insert(id, Item { at, work });
        self.order.insert((at, id));
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, Work)> {
        let (at, id) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.order.remove(&(at, id));
        self.items.remove(&id).map(|item| (item.at, item.work))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Timestamp, &Work)> {
        self.items.values().map(|item| (item.at, &item.work))
    }

    pub(crate) fn items_mut(&mut self) -> &mut Table<u64, Item> {
        &mut self.items
    }

    /// After the items were restored.
    pub(crate) fn reorder(&mut self) {
        self.order = self.items.iter().map(|(id, item)| (item.at, *id)).collect();
    }
}
