//! Saving and restoring: what changed goes out as rows, and rows come back.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::table::{Change, Rows, to_json};
use crate::{Cloud, Config};

/// Under which key [`Meta`] is stored.
const META: &str = "meta";

/// What is not in a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// A string: SQLite and JSON readers keep no 64 bits unsigned.
    seed: String,
    next: u64,
}

/// Why persisted rows were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreError {
    /// [`Config::check`] refuses the configuration.
    Config(String),
    /// A row that this version does not read: its key, and why.
    Row(String, String),
    /// There are rows, but not the one with the random state.
    NoMeta,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Config(why) => write!(f, "the configuration: {why}"),
            RestoreError::Row(key, why) => write!(f, "stored row {key}: {why}"),
            RestoreError::NoMeta => write!(f, "stored row {META} is missing"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl Cloud {
    /// Goes on from persisted rows. The clock is whatever is passed to the
    /// next call; deliveries that were in flight are due again.
    pub fn restore(
        config: Config,
        rows: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Cloud, RestoreError> {
        let mut cloud =
            Cloud::empty(config, 0, Timestamp::UNIX_EPOCH).map_err(RestoreError::Config)?;
        for (key, json) in rows {
            cloud.restore_row(&key, &json).map_err(|why| RestoreError::Row(key, why))?;
        }
        if cloud.saved.is_none() {
            return Err(RestoreError::NoMeta);
        }
        cloud.agenda.reorder();
        Ok(cloud)
    }

    fn restore_row(&mut self, key: &str, json: &str) -> Result<(), String> {
        if key == META {
            let meta: Meta = serde_json::from_str(json).map_err(|error| error.to_string())?;
            let seed = meta.seed.parse().map_err(|_| "the seed does not parse".to_owned())?;
            self.rng = fastrand::Rng::with_seed(seed);
            self.next = meta.next;
            self.saved = Some(meta);
            return Ok(());
        }
        let (table, key) = key.split_once('/').ok_or("not a row of ours")?;
        self.tables()
            .into_iter()
            .find(|rows| rows.name() == table)
            .ok_or("not a table of ours")?
            .restore(key, json)
    }

    /// The rows changed since the last call: key and JSON to put, or `None`
    /// to delete. Commit them in one transaction before answering. Of a
    /// [quiet](Cloud::quiet) cloud there are none.
    pub fn take_dirty(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for rows in self.tables() {
            rows.take_dirty(&mut changes);
        }
        let meta = Meta { seed: self.rng.get_seed().to_string(), next: self.next };
        if !self.quiet && self.saved.as_ref() != Some(&meta) {
            changes.push((META.to_owned(), Some(to_json(&meta))));
            self.saved = Some(meta);
        }
        changes
    }

    /// For a simulation that makes millions of calls and saves none of them:
    /// from now on the logs of calls and of events are empty, and which rows
    /// changed is not remembered, so [`Cloud::take_dirty`] gives nothing. What
    /// the cloud does, draws and counts stays the same. There is no way back,
    /// and a restored cloud is not quiet.
    pub fn quiet(&mut self) {
        self.quiet = true;
        self.calls.clear();
        self.events.clear();
        for rows in self.tables() {
            rows.untrack();
        }
    }

    fn tables(&mut self) -> [&mut dyn Rows; 15] {
        [
            &mut self.instances,
            &mut self.volumes,
            &mut self.snapshots,
            &mut self.sets,
            &mut self.tokens,
            &mut self.disabled_keys,
            self.agenda.items_mut(),
            &mut self.deliveries,
            &mut self.buckets,
            &mut self.faults,
            &mut self.counts,
            &mut self.capacity,
            self.calls.rows_mut(),
            self.events.rows_mut(),
            self.dead.rows_mut(),
        ]
    }
}
