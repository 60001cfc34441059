//! `EventBridge` as the functions meet it: it may take a part of what it is given.

use cloud::Reply;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{World, answer};
use crate::sim::call::Call;
use crate::sim::plan::Fault;

impl World {
    /// The bus.
    pub(super) fn events(
        &mut self,
        now: Timestamp,
        call: &mut Call,
        code: Option<&str>,
        fault: Option<Fault>,
    ) -> Reply {
        const TARGET: &str = "AWSEvents.PutEvents";
        if let Some(code) = code {
            self.arm(&call.operation, code);
        }
        let entries = call.json["Entries"].as_array().cloned().unwrap_or_default();
        if code.is_some() || fault != Some(Fault::EntriesRefused) || entries.is_empty() {
            let reply = self.cloud.events(now, TARGET, &call.body);
            self.cloud.clear_faults();
            return reply;
        }
        self.struck(call, Fault::EntriesRefused);
        // The bus takes some and refuses the others, with a 200 (EventBridge API
        // reference, `PutEvents`).
        let refused: Vec<bool> = {
            let first = self.dice.rng().usize(0..entries.len());
            (0..entries.len()).map(|at| at == first || self.dice.rng().bool()).collect()
        };
        let taken: Vec<&Value> =
            entries.iter().zip(&refused).filter(|(_, no)| !**no).map(|(entry, _)| entry).collect();
        if !taken.is_empty() {
            let body = json!({ "Entries": taken }).to_string();
            self.cloud.events(now, TARGET, body.as_bytes());
        }
        let mut accepted = Vec::new();
        let answers: Vec<Value> = entries
            .iter()
            .zip(&refused)
            .map(|(entry, no)| {
                if *no {
                    json!({"ErrorCode": "InternalFailure", "ErrorMessage": "Try again."})
                } else {
                    accepted.push(entry.clone());
                    json!({"EventId": format!("taken-{}", accepted.len())})
                }
            })
            .collect();
        call.json["Entries"] = Value::Array(accepted);
        let failed = refused.iter().filter(|no| **no).count();
        answer(200, &json!({"FailedEntryCount": failed, "Entries": answers}))
    }
}
