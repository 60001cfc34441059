//! An AWS that answers by heart: rows put in by the test are read back, writes
//! get the replies that the test queued, and every call is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use backups_aws::clock::Clock;
use backups_aws::sdk::{self, SdkConfig};
use serde::Serialize;
use serde_dynamo::Item;
use serde_json::{Value, json};

use super::{Backup, Deployment, Key};

/// The cloud. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cloud(Arc<Mutex<State>>);

/// What happens after a call.
struct After(Box<dyn FnOnce(&Value) + Send>);

impl std::fmt::Debug for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("After")
    }
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<(String, String), Value>,
    /// The replies to come for writes and the bus, by operation; then each is good.
    replies: BTreeMap<String, VecDeque<(u16, Value)>>,
    calls: Vec<(String, Value)>,
    after: Option<(String, After)>,
    /// How many requests were counted, by row.
    requests: BTreeMap<String, u64>,
    /// The most rows that a query gives; None: all of them.
    rows_a_query: Option<usize>,
    /// How long a call takes.
    takes: Duration,
}

impl Cloud {
    /// A cloud with a key, and a deployment if there is one.
    pub(crate) fn with(key: Option<&Key>, deployment: Option<&Deployment>) -> Self {
        let cloud = Self::default();
        if let Some(key) = key {
            cloud.put(format!("KEY#{}", key.hash), "KEY".into(), key);
        }
        if let Some(deployment) = deployment {
            cloud.put_deployment(deployment);
        }
        cloud
    }

    pub(crate) fn put_deployment(&self, deployment: &Deployment) {
        let pk = format!("DEPLOYMENT#{}", deployment.deployment_id);
        self.put(pk, "META".into(), deployment);
    }

    pub(crate) fn put_backup(&self, backup: &Backup) {
        let pk = format!("DEPLOYMENT#{}", backup.deployment_id);
        self.put(pk, format!("BACKUP#{:020}", backup.id.0), backup);
    }

    /// Puts a row as `DynamoDB` has it.
    pub(crate) fn put_item(&self, item: Value) {
        let part = |name: &str| item[name]["S"].as_str().expect("a key").to_owned();
        let at = (part("pk"), part("sk"));
        self.lock().rows.insert(at, item);
    }

    /// A query gives no more rows than these, as if so many were a megabyte.
    pub(crate) fn rows_a_query(&self, most: usize) {
        self.lock().rows_a_query = Some(most);
    }

    /// From now on each call takes so long.
    pub(crate) fn takes(&self, time: Duration) {
        self.lock().takes = time;
    }

    /// A row as `DynamoDB` has it.
    pub(crate) fn row(&self, pk: &str, sk: &str) -> Value {
        self.lock().rows[&(pk.to_owned(), sk.to_owned())].clone()
    }

    pub(crate) fn remove(&self, pk: &str, sk: &str) {
        self.lock().rows.remove(&(pk.to_owned(), sk.to_owned()));
    }

    /// The next reply to `operation`.
    pub(crate) fn reply(&self, operation: &str, status: u16, body: Value) {
        self.lock().replies.entry(operation.to_owned()).or_default().push_back((status, body));
    }

    /// What was called, in order, and forgets it.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.lock().calls.drain(..).map(|(operation, _)| operation).collect()
    }

    /// The body of the last call of `operation`.
    pub(crate) fn last(&self, operation: &str) -> Value {
        let state = self.lock();
        let found = state.calls.iter().rev().find(|(name, _)| name == operation);
        found.map(|(_, body)| body.clone()).expect("such a call")
    }

    /// The bodies of all calls of `operation`.
    pub(crate) fn bodies(&self, operation: &str) -> Vec<Value> {
        let state = self.lock();
        let of = state.calls.iter().filter(|(name, _)| name == operation);
        of.map(|(_, body)| body.clone()).collect()
    }

    /// What happens once the next call of `operation` is answered.
    pub(crate) fn after(&self, operation: &str, then: impl FnOnce(&Value) + Send + 'static) {
        self.lock().after = Some((operation.to_owned(), After(Box::new(then))));
    }

    /// A configuration of the SDK whose calls end here.
    pub(crate) fn config(&self, clock: &Clock) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        let client = http_client_fn(move |_, _| connector.clone());
        sdk::simulated(clock, client, "us-west-1")
    }

    fn put(&self, pk: String, sk: String, row: &impl Serialize) {
        let mut item = json!(serde_dynamo::to_item::<_, Item>(row).expect("an item"));
        item["pk"] = json!({"S": pk});
        item["sk"] = json!({"S": sk});
        self.lock().rows.insert((pk, sk), item);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic in here")
    }
}

impl HttpConnector for Cloud {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = serde_json::from_slice::<Value>(request.body().bytes().unwrap_or_default())
            .unwrap_or_default();
        let then = self.lock().after.take_if(|(of, _)| *of == operation);
        let (status, answer) = self.lock().answer(operation, body.clone());
        if let Some((_, After(then))) = then {
            then(&body);
        }
        let body = answer;
        let mut response = HttpResponse::new(
            status.try_into().expect("a status"),
            SdkBody::from(body.to_string()),
        );
        response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
        let takes = self.lock().takes;
        if takes.is_zero() {
            return HttpConnectorFuture::ready(Ok(response));
        }
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(takes).await;
            Ok(response)
        })
    }
}

impl State {
    fn answer(&mut self, operation: String, body: Value) -> (u16, Value) {
        let queued = self.replies.get_mut(&operation).and_then(VecDeque::pop_front);
        let reply = queued.unwrap_or_else(|| (200, self.good(&operation, &body)));
        self.calls.push((operation, body));
        reply
    }

    /// The rows of a partition from the last one downwards, between two sort keys if they are
    /// given, or from behind where the one before has ended.
    fn query(&self, body: &Value) -> Value {
        let values = &body["ExpressionAttributeValues"];
        let text = |value: &Value| value["S"].as_str().map(str::to_owned);
        let (oldest, newest) = (text(&values[":oldest"]), text(&values[":newest"]));
        let start = text(&body["ExclusiveStartKey"]["sk"]);
        let mut rows = self.rows.iter().rev().filter(|((pk, sk), _)| {
            values[":pk"]["S"] == *pk
                && oldest.as_ref().is_none_or(|oldest| sk >= oldest)
                && newest.as_ref().is_none_or(|newest| sk <= newest)
                && start.as_ref().is_none_or(|start| sk < start)
        });
        let most = body["Limit"].as_u64().and_then(|limit| usize::try_from(limit).ok());
        let most = most.into_iter().chain(self.rows_a_query).min().unwrap_or(usize::MAX);
        let items: Vec<&Value> = rows.by_ref().take(most).map(|(_, item)| item).collect();
        let mut answer = json!({"Count": items.len(), "Items": items});
        // DynamoDB does not look whether anything comes after it.
        if let Some(last) = items.last().filter(|_| items.len() == most) {
            answer["LastEvaluatedKey"] = json!({"pk": last["pk"], "sk": last["sk"]});
        }
        answer
    }

    /// What the operation answers when nothing else was queued.
    fn good(&mut self, operation: &str, body: &Value) -> Value {
        match operation {
            "GetItem" => {
                let part = |name: &str| body["Key"][name]["S"].as_str().unwrap_or_default().into();
                match self.rows.get(&(part("pk"), part("sk"))) {
                    Some(item) => json!({"Item": item}),
                    None => json!({}),
                }
            }
            "Query" => self.query(body),
            "UpdateItem"
                if body["UpdateExpression"] == "ADD requests :requests SET #ttl = :ttl" =>
            {
                let more = &body["ExpressionAttributeValues"][":requests"]["N"];
                let counted = self.requests.entry(body["Key"].to_string()).or_default();
                *counted += more.as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
                json!({"Attributes": {"requests": {"N": counted.to_string()}}})
            }
            "PutEvents" => {
                let entries = body["Entries"].as_array().map_or(0, Vec::len);
                json!({"FailedEntryCount": 0, "Entries": vec![json!({"EventId": "e"}); entries]})
            }
            _ => json!({}),
        }
    }
}
