//! The call log and the counters, for every service.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Cloud;

/// A call as `/_local/calls` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    at: Timestamp,
    service: String,
    operation: String,
    resources: Vec<String>,
    dry_run: bool,
    outcome: String,
}

/// Consumed `DynamoDB` capacity of one operation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Capacity {
    read: f64,
    write: f64,
}

impl Cloud {
    /// Logs a call and counts it. The outcome is `ok`, the error's code, or
    /// `hang` for a call that was never answered. A [quiet](Cloud::quiet)
    /// cloud only counts it.
    pub fn record(
        &mut self,
        now: Timestamp,
        service: &str,
        operation: &str,
        resources: &[String],
        dry_run: bool,
        outcome: &str,
    ) {
        self.advance(now);
        *self.counts.entry(format!("{service}.{operation}")) += 1;
        if self.quiet {
            return;
        }
        self.calls.push(Call {
            at: self.now,
            service: service.to_owned(),
            operation: operation.to_owned(),
            resources: resources.to_vec(),
            dry_run,
            outcome: outcome.to_owned(),
        });
    }

    /// Adds `DynamoDB` capacity consumed by an operation.
    pub fn record_capacity(&mut self, operation: &str, read: f64, write: f64) {
        let row = self.capacity.entry(operation.to_owned());
        row.read += read;
        row.write += write;
    }

    /// The last 10,000 calls, oldest first: `/_local/calls`.
    pub fn calls(&self) -> Value {
        self.calls.iter().map(|call| json!(call)).collect()
    }

    /// How often each operation was called since the world began.
    pub(crate) fn call_counts(&self) -> Value {
        let mut services = serde_json::Map::new();
        for (name, count) in self.counts.iter() {
            let (service, operation) = name.split_once('.').unwrap_or(("", name));
            services.entry(service).or_insert_with(|| json!({}))[operation] = json!(count);
        }
        Value::Object(services)
    }

    pub(crate) fn capacity_counts(&self) -> Value {
        let rows = self.capacity.iter();
        Value::Object(rows.map(|(operation, used)| (operation.clone(), json!(used))).collect())
    }
}
