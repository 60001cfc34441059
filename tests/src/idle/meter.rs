//! Counts what calls of the table cost, at the wire: between the SDK and the embedded
//! database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use http::StatusCode;
use local::Dynamo;
use serde_json::{Value, json};

use crate::rows::items;

/// The partition of the stack's own rows. Whatever is not in it is a deployment's.
const STACK: &str = "STACK";

/// What the keys of deployments' rows begin with: their own, and those of their snapshots.
const OF_DEPLOYMENTS: [&str; 2] = ["DEPLOYMENT#", "SNAPSHOTS#"];

/// What calls came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cost {
    /// Calls by operation.
    pub calls: BTreeMap<String, u64>,
    /// Rows of deployments that were read: those that a query looked at, whether it gave
    /// them or filtered them out, and those that were asked for by key, there or not.
    pub rows: u64,
    /// The same of the stack's own rows.
    pub stack_rows: u64,
    /// The partitions of deployments that calls or answers named, written or read.
    pub touched: BTreeSet<String>,
    /// Read units, as the table says it itself.
    pub read: f64,
    /// Write units, by the same word. A write whose condition fails says nothing of any; on
    /// AWS it costs as much as one that is carried out.
    pub write: f64,
}

impl Cost {
    /// Calls in words.
    pub fn calls(&self) -> String {
        let calls: Vec<_> =
            self.calls.iter().map(|(name, count)| format!("{count} {name}")).collect();
        calls.join(", ")
    }

    /// Which of two is dearer: rows of deployments first, then calls, then units.
    pub(super) fn weight(&self) -> (u64, usize, u64, f64, f64) {
        let calls = self.calls.values().sum();
        (self.rows, self.touched.len(), calls, self.read, self.write)
    }

    fn add(&mut self, operation: &str, request: &Value, answer: &Value) {
        *self.calls.entry(operation.to_owned()).or_default() += 1;
        name_partitions(request, &mut self.touched);
        name_partitions(answer, &mut self.touched);
        let stacks = |row: &Value| row["pk"]["S"] == STACK;
        if let Some(looked_at) = answer["ScannedCount"].as_u64() {
            let of_stack = items(&answer["Items"]).filter(|row| stacks(row)).count();
            let of_stack = u64::try_from(of_stack).unwrap_or(0);
            self.stack_rows += of_stack;
            // What was filtered out nobody names: it counts against the tick.
            self.rows += looked_at - of_stack;
        } else if operation == "GetItem" {
            let of_stack = stacks(&request["Key"]);
            *if of_stack { &mut self.stack_rows } else { &mut self.rows } += 1;
        }
        let reads = matches!(operation, "GetItem" | "Query" | "Scan" | "BatchGetItem");
        let used = &answer["ConsumedCapacity"];
        let units: f64 = items(used)
            .chain(Some(used).filter(|one| one.is_object()))
            .filter_map(|one| one["CapacityUnits"].as_f64())
            .sum();
        *if reads { &mut self.read } else { &mut self.write } += units;
    }
}

/// Collects the partitions of deployments that a body names, wherever in it.
fn name_partitions(body: &Value, found: &mut BTreeSet<String>) {
    match body {
        Value::String(text) if OF_DEPLOYMENTS.iter().any(|begin| text.starts_with(begin)) => {
            found.insert(text.clone());
        }
        Value::Array(all) => all.iter().for_each(|one| name_partitions(one, found)),
        Value::Object(all) => all.values().for_each(|one| name_partitions(one, found)),
        _ => {}
    }
}

/// The way from the SDK to the table, with a meter on it. The bus at its other end takes
/// everything and delivers nothing.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    dynamo: Dynamo,
    meter: Arc<Mutex<Cost>>,
}

impl Wire {
    pub(super) fn new(dynamo: Dynamo) -> Self {
        Self { dynamo, meter: Arc::default() }
    }

    pub(super) fn client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }

    /// What calls have come to since this was asked last.
    pub(super) fn take(&self) -> Cost {
        std::mem::take(&mut *self.meter())
    }

    fn meter(&self) -> MutexGuard<'_, Cost> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let (service, operation) = target.rsplit_once('.').unwrap_or_default();
        let body = request.body().bytes().unwrap_or_default();
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let (status, text) = if service == "AWSEvents" {
            let taken: Vec<Value> =
                items(&asked["Entries"]).map(|_| json!({"EventId": "1"})).collect();
            (200, json!({"FailedEntryCount": 0, "Entries": taken}).to_string())
        } else {
            let answer = self.dynamo.call(operation, body);
            (answer.status, answer.body)
        };
        let answered = serde_json::from_str(&text).unwrap_or_default();
        self.meter().add(operation, &asked, &answered);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status.into(), SdkBody::from(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(operation: &str, request: &Value, answer: &Value) -> Cost {
        let mut cost = Cost::default();
        cost.add(operation, request, answer);
        cost
    }

    #[test]
    fn each_way_to_a_deployments_row_is_counted() {
        let query = |scanned: u64, items: Value| {
            let answer = json!({"ScannedCount": scanned, "Items": items,
                "ConsumedCapacity": {"CapacityUnits": 0.5}});
            cost("Query", &json!({}), &answer)
        };
        let nothing = query(0, json!([]));
        assert_eq!((nothing.rows, nothing.stack_rows, nothing.touched.len()), (0, 0, 0));
        assert!((nothing.read - 0.5).abs() < f64::EPSILON && nothing.write == 0.0);
        let given = query(1, json!([{"pk": {"S": "DEPLOYMENT#7"}, "sk": {"S": "META"}}]));
        assert_eq!((given.rows, given.stack_rows, given.touched.len()), (1, 0, 1));
        assert_eq!(query(3, json!([])).rows, 3, "looked at and filtered out");
        let own = query(1, json!([{"pk": {"S": "STACK"}, "sk": {"S": "RECONCILIATION"}}]));
        assert_eq!((own.rows, own.stack_rows, own.touched.len()), (0, 1, 0));

        let by_key = json!({"Key": {"pk": {"S": "DEPLOYMENT#7"}, "sk": {"S": "SCHEDULE"}}});
        let absent = cost("GetItem", &by_key, &json!({}));
        assert_eq!((absent.rows, absent.touched.len()), (1, 1));
        let written = json!({"TransactItems": [{"Update": by_key}]});
        let used = json!({"ConsumedCapacity": [{"CapacityUnits": 2.0}, {"CapacityUnits": 1.0}]});
        let written = cost("TransactWriteItems", &written, &used);
        assert_eq!((written.rows, written.touched.len()), (0, 1));
        assert!((written.write - 3.0).abs() < f64::EPSILON);
    }
}
