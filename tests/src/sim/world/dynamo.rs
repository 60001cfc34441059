//! `DynamoDB` as the functions meet it: dynoxide, with what it never does by
//! itself: conflicts, throttling, a replica that lags, rows of a newer release.

use cloud::{Admission, Reply};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{World, answer};
use crate::sim::call::Call;
use crate::sim::life::Life;
use crate::sim::oracle::Violation;
use crate::sim::plan::Fault;
use crate::sim::table::{self, Stale};
use crate::{Failed, Result, rows};

/// What the keys of rows begin with that this release does not know.
const UNREADABLE: &str = "NEWS#";

/// Of queries of the due index that show a row which this release cannot read,
/// so many in ten thousand are followed by its end.
const ENDS: u32 = 2_000;

/// Of transactions that are asked for again after a lost reply, so many in ten
/// thousand meet themselves or another one.
const STILL_AT_WORK: u32 = 4_000;

impl World {
    /// Rows in each shard of the due index that this release does not know.
    pub(crate) fn plant_unreadable(&mut self) -> Result<()> {
        let environment = &self.template.function(local::Name::Worker).map_err(Failed)?.environment;
        let shards = environment.get("DUE_SHARDS").and_then(|text| text.parse().ok()).unwrap_or(1);
        (0..shards).try_for_each(|shard| self.plant_in(shard))
    }

    /// The row of the stack's reconciliation, never due: what it does takes days.
    pub(crate) fn plant_reconciliation(&mut self) -> Result<()> {
        self.table.plant(json!({"pk": {"S": "STACK"}, "sk": {"S": "RECONCILIATION"}}))
    }

    fn plant_in(&mut self, shard: u32) -> Result<()> {
        self.unreadable += 1;
        self.table.plant(json!({
            "pk": {"S": "DEPLOYMENT#1"},
            "sk": {"S": format!("{UNREADABLE}{}", self.unreadable)},
            "due_shard": {"N": u32::to_string(&shard)},
            "due_at": {"S": self.epoch().to_string()},
        }))?;
        self.reach.hit("turn unreadable row planted");
        Ok(())
    }

    /// Another release is through with a row of its own just after a tick saw it in
    /// the index, and has a new one.
    fn end_unreadable(&mut self, now: Timestamp, found: &str) -> Result<()> {
        if !found.contains(UNREADABLE) || !self.dice.happens(ENDS) {
            return Ok(());
        }
        let found: Value = serde_json::from_str(found)?;
        let key = |row: &Value| {
            let text = |name: &str| row[name]["S"].as_str().map(str::to_owned);
            Some((text("pk")?, text("sk").filter(|sk| sk.starts_with(UNREADABLE))?))
        };
        // The index may show what is gone already.
        let there = |row: &&Value| key(row).is_some_and(|key| self.table.rows().contains_key(&key));
        let Some(row) = rows::items(&found["Items"]).find(there) else { return Ok(()) };
        self.table.uproot(row, now)?;
        self.reach.hit("turn unreadable row ended");
        self.trace.line(now, || format!("another release ends {row}"));
        let shard = row["due_shard"]["N"].as_str().and_then(|text| text.parse().ok());
        self.plant_in(shard.unwrap_or(0))
    }

    /// The fault of a transaction, if it is one that is asked for again: nobody
    /// heard what became of it, and it is still being carried out, or another one
    /// is on its rows (`DynamoDB` API reference, `TransactWriteItems`, errors).
    pub(super) fn asked_again(&mut self, call: &Call, fault: Option<Fault>) -> Option<Fault> {
        let Some(token) = call.json["ClientRequestToken"].as_str() else { return fault };
        match fault {
            Some(Fault::ReplyLost | Fault::Error5xxApplied | Fault::TimedOutApplied) => {
                self.unheard.insert(token.to_owned());
                fault
            }
            None if self.unheard.contains(token) && self.dice.happens(STILL_AT_WORK) => {
                Some(if self.dice.rng().bool() { Fault::Conflict } else { Fault::InProgress })
            }
            _ => fault,
        }
    }

    /// The table.
    pub(super) fn dynamo(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &mut Call,
        code: Option<&str>,
        fault: Option<Fault>,
    ) -> Reply {
        if let Some(code) = code {
            return match code {
                "TransactionCanceledException" => self.canceled(call),
                code => self.refuse(now, &call.operation, code),
            };
        }
        let stale = self.table.may_be_stale(&call.operation, &call.json);
        let lag = match stale {
            Some(_) if self.dice.happens(1_000) => Some(self.dice.millis(50..=20_000)),
            _ => None,
        };
        let done = match (lag, stale) {
            (Some(lag), Some(stale)) => {
                let of = match stale {
                    Stale::Index => "fault stale_index",
                    Stale::Read => "fault stale_read",
                };
                let until = now - jiff::SignedDuration::try_from(lag).unwrap_or_default();
                let old = self.table.stale(call, until);
                // Mostly nothing was written meanwhile.
                let new = self.table.call(call, now);
                if new.is_ok_and(|(new, _)| !same(&new.body, &old.body)) {
                    self.reach.hit(of);
                    self.trace.line(now, || format!("{life} {of}"));
                }
                Ok((old, Vec::new()))
            }
            _ => self.table.call(call, now),
        };
        let done = done.and_then(|(found, changes)| {
            if call.json["IndexName"].is_string() {
                self.end_unreadable(now, &found.body)?;
            }
            Ok((found, changes))
        });
        let (found, changes) = match done {
            Ok(done) => done,
            Err(Failed(why)) => {
                self.judge(Err(Violation::new("simulation", why)));
                return Reply::Hang;
            }
        };
        if fault == Some(Fault::ShortPage) && found.body.contains("\"LastEvaluatedKey\":{") {
            self.struck(call, Fault::ShortPage);
        }
        let body = if self.trace.kept() {
            // dynoxide writes a map in any order.
            let body: Value = serde_json::from_str(&found.body).unwrap_or_default();
            body.to_string()
        } else {
            found.body
        };
        self.changed(now, life, &changes);
        Reply::Answer {
            status: found.status,
            content_type: "application/x-amz-json-1.0",
            headers: Vec::new(),
            body: body.into_bytes(),
        }
    }

    fn changed(&mut self, now: Timestamp, life: &Life, changes: &[table::Change]) {
        for change in changes {
            self.trace.line(now, || {
                let show = |row: &Option<table::RowRef>| {
                    row.as_ref().map_or("nothing".to_owned(), ToString::to_string)
                };
                format!(
                    "{life} row {:?}: {} is {}",
                    change.key,
                    show(&change.old),
                    show(&change.new)
                )
            });
        }
        let Self { oracle, cloud, table, reach, .. } = self;
        let verdict = oracle.changed(now, life, changes, cloud, table, reach);
        self.judge(verdict);
    }

    /// A transaction that met another one on one of its rows.
    fn canceled(&mut self, call: &Call) -> Reply {
        let items = call.json["TransactItems"].as_array().map_or(0, Vec::len);
        let at = self.dice.rng().usize(0..items.max(1));
        let reasons: Vec<Value> = (0..items)
            .map(|item| {
                let code = if item == at { "TransactionConflict" } else { "None" };
                json!({ "Code": code })
            })
            .collect();
        answer(
            400,
            &json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
                "CancellationReasons": reasons,
            }),
        )
    }

    fn refuse(&mut self, now: Timestamp, operation: &str, code: &str) -> Reply {
        self.arm(operation, code);
        let admission = self.cloud.admit(now, "dynamodb", operation, &[]);
        self.cloud.clear_faults();
        match admission {
            Admission::Refuse(reply) => reply,
            _ => answer(500, &json!({"__type": "InternalServerError"})),
        }
    }
}

/// Whether two answers are the same, in whatever order they name their parts.
fn same(one: &str, other: &str) -> bool {
    let read = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
    one == other || read(one) == read(other)
}
