//! How to call a running local cloud.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use backups_aws::settings::Settings;
use backups_aws::table::keys::Secret;
use jiff::Timestamp;
use local::Demo;
use serde_json::{Value, json};

use crate::http::{Call, Reply};
use crate::openapi::Document;
use crate::rows::{self, Row};
use crate::{Failed, Result, binary, fail};

/// As often as a fault strikes that stays.
pub const MANY: u64 = 1_000_000;

/// A running local cloud, seen from outside.
#[derive(Debug, Clone)]
pub struct Cloud {
    /// Its demo.
    pub demo: Demo,
    gateway: SocketAddr,
    aws: SocketAddr,
}

impl Cloud {
    /// The cloud that a `demo.json` describes.
    ///
    /// # Errors
    /// Its addresses are none.
    pub fn of(demo: Demo) -> Result<Self> {
        let address = |url: &str| -> Result<SocketAddr> {
            let plain = url.strip_prefix("http://").unwrap_or(url);
            plain.trim_end_matches('/').parse().map_err(|_| Failed(format!("no address: {url}")))
        };
        Ok(Self {
            gateway: address(&demo.supervisor_url)?,
            aws: address(&demo.aws_endpoint)?,
            demo,
        })
    }

    /// Sends a request to the API.
    ///
    /// # Errors
    /// No reply, or one that docs/openapi.json does not describe.
    pub async fn send(&self, call: Call) -> Result<Reply> {
        let reply = call.send(self.gateway).await?;
        Document::shared()?.check(&reply)?;
        Ok(reply)
    }

    /// The path of the backups of a deployment.
    pub fn backups_of(deployment: u64) -> String {
        format!("/deployments/{deployment}/backups")
    }

    /// The path of the demo deployment's backups.
    pub fn backups(&self) -> String {
        Self::backups_of(self.demo.deployment_id)
    }

    /// The key that may do everything with a deployment.
    pub fn manager_of(&self, deployment: u64) -> &str {
        if deployment == self.demo.other_deployment_id {
            &self.demo.keys.other_tenant
        } else {
            &self.demo.keys.manage
        }
    }

    /// Asks for a backup of a deployment.
    ///
    /// # Errors
    /// No reply.
    pub async fn create_on(&self, deployment: u64, body: &Value) -> Result<Reply> {
        let call = Call::new("POST", Self::backups_of(deployment));
        self.send(call.key(self.manager_of(deployment)).json(body.to_string())).await
    }

    /// Makes a backup of the demo's deployment.
    ///
    /// # Errors
    /// It was not made.
    pub async fn create(&self, name: &str) -> Result<u64> {
        self.create_on(self.demo.deployment_id, &json!({"name": name})).await?.backup()
    }

    /// Asks for the delete of a backup of a deployment.
    ///
    /// # Errors
    /// No reply.
    pub async fn delete_on(&self, deployment: u64, backup: u64) -> Result<Reply> {
        let path = format!("{}/{backup}", Self::backups_of(deployment));
        self.send(Call::new("DELETE", path).key(self.manager_of(deployment))).await
    }

    /// Asks for the delete of a backup of the demo's deployment.
    ///
    /// # Errors
    /// No reply.
    pub async fn delete(&self, backup: u64) -> Result<Reply> {
        self.delete_on(self.demo.deployment_id, backup).await
    }

    /// The list of a deployment's backups.
    ///
    /// # Errors
    /// The reply is no list.
    pub async fn list_of(&self, deployment: u64) -> Result<Vec<Value>> {
        let call = Call::new("GET", Self::backups_of(deployment)).key(self.manager_of(deployment));
        let reply = self.send(call).await?;
        match (reply.status, reply.json()) {
            (200, Value::Array(list)) => Ok(list),
            _ => fail(format!("no list: {} {}", reply.status, reply.text)),
        }
    }

    /// A backup as the list of the demo's deployment shows it.
    ///
    /// # Errors
    /// The reply is no list.
    pub async fn shown(&self, backup: u64) -> Result<Option<Value>> {
        let list = self.list_of(self.demo.deployment_id).await?;
        Ok(list.into_iter().find(|item| item["id"] == backup))
    }

    /// A backup's status, empty once it is gone.
    ///
    /// # Errors
    /// The reply is no list.
    pub async fn status(&self, backup: u64) -> Result<String> {
        let shown = self.shown(backup).await?;
        Ok(shown.map(|item| item["status"].as_str().unwrap_or("?").to_owned()).unwrap_or_default())
    }

    /// A `/_local` call.
    ///
    /// # Errors
    /// It was refused.
    pub async fn local(&self, method: &str, name: &str, body: &Value) -> Result<Value> {
        let reply = self.local_reply(method, name, body).await?;
        if reply.status == 200 {
            return Ok(reply.json());
        }
        fail(format!("{method} /_local/{name} {body}: {} {}", reply.status, reply.text))
    }

    async fn local_reply(&self, method: &str, name: &str, body: &Value) -> Result<Reply> {
        let call = Call::new(method, format!("/_local/{name}"));
        let call = if body.is_null() { call } else { call.json(body.to_string()) };
        call.send(self.aws).await
    }

    /// The simulated world.
    ///
    /// # Errors
    /// No answer.
    pub async fn state(&self) -> Result<Value> {
        self.local("GET", "state", &Value::Null).await
    }

    /// The snapshots that there are, by id.
    ///
    /// # Errors
    /// No answer.
    pub async fn snapshots(&self) -> Result<BTreeMap<String, Value>> {
        let state = self.state().await?;
        let snapshots = state["snapshots"].as_array().cloned().unwrap_or_default();
        Ok(snapshots.into_iter().map(|one| (text(&one, "snapshot_id"), one)).collect())
    }

    /// The details of the announcements of a kind, oldest first.
    ///
    /// # Errors
    /// No answer.
    pub async fn announced(&self, detail_type: &str) -> Result<Vec<Value>> {
        let state = self.state().await?;
        let events = state["events"].as_array().cloned().unwrap_or_default();
        let of_kind = events.into_iter().filter(|event| event["detail_type"] == detail_type);
        Ok(of_kind.map(|event| event["detail"].clone()).collect())
    }

    /// The calls since `from`, as `service.operation outcome`.
    ///
    /// # Errors
    /// No answer.
    pub async fn calls(&self) -> Result<Vec<Value>> {
        let calls = self.local("GET", "calls", &Value::Null).await?;
        Ok(calls.as_array().cloned().unwrap_or_default())
    }

    /// Pushes the clock forward.
    ///
    /// # Errors
    /// It was refused.
    pub async fn advance(&self, seconds: u64) -> Result<()> {
        self.local("POST", "clock", &json!({"advance_seconds": seconds})).await.map(drop)
    }

    /// The time.
    ///
    /// # Errors
    /// No answer.
    pub async fn now(&self) -> Result<Timestamp> {
        let now = self.local("GET", "clock", &Value::Null).await?;
        Ok(text(&now, "now").parse()?)
    }

    /// Pushes the clock forward to where a minute has just begun.
    ///
    /// # Errors
    /// As of [`Self::now`] and [`Self::advance`].
    pub async fn begin_minute(&self) -> Result<()> {
        let second = self.now().await?.as_second().rem_euclid(60);
        self.advance(u64::try_from(60 - second)?).await
    }

    /// One run of the scheduler.
    ///
    /// # Errors
    /// It failed.
    pub async fn tick(&self) -> Result<()> {
        self.local("POST", "tick", &Value::Null).await.map(drop)
    }

    /// Waits until nothing is in flight.
    ///
    /// # Errors
    /// Something still is.
    pub async fn settle(&self, seconds: u64) -> Result<()> {
        self.local("POST", "settle", &json!({"timeout_seconds": seconds})).await.map(drop)
    }

    /// What is in flight.
    ///
    /// # Errors
    /// No answer.
    pub async fn in_flight(&self) -> Result<Vec<String>> {
        let reply = self.local_reply("POST", "settle", &json!({"timeout_seconds": 0})).await?;
        let list = reply.json()["in_flight"].as_array().cloned().unwrap_or_default();
        match reply.status {
            200 => Ok(Vec::new()),
            504 => Ok(list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()),
            status => fail(format!("settle: {status} {}", reply.text)),
        }
    }

    /// Arms a fault.
    ///
    /// # Errors
    /// It was refused.
    pub async fn arm(&self, fault: &Value) -> Result<()> {
        self.local("POST", "faults", fault).await.map(drop)
    }

    /// How often the armed faults struck, all together.
    ///
    /// # Errors
    /// No answer.
    pub async fn struck(&self) -> Result<u64> {
        let faults = self.local("GET", "faults", &Value::Null).await?;
        Ok(faults.as_array().into_iter().flatten().filter_map(|one| one["struck"].as_u64()).sum())
    }

    /// Disarms all faults.
    ///
    /// # Errors
    /// No answer.
    pub async fn disarm(&self) -> Result<()> {
        self.local("DELETE", "faults", &Value::Null).await.map(drop)
    }

    /// An operation of a JSON service on the AWS port, as an SDK would call it.
    ///
    /// # Errors
    /// It was refused.
    pub async fn aws(&self, service: &str, target: &str, body: &Value) -> Result<Value> {
        let scope = format!("local/20250101/{}/{service}/aws4_request", self.demo.region);
        let signed =
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        let version = if service == "dynamodb" { "1.0" } else { "1.1" };
        let call = Call::new("POST", "/")
            .header("authorization", &signed)
            .header("x-amz-target", target)
            .header("content-type", &format!("application/x-amz-json-{version}"))
            .body(body.to_string());
        let reply = call.send(self.aws).await?;
        if reply.status == 200 {
            return Ok(reply.json());
        }
        fail(format!("{target}: {} {}", reply.status, reply.text))
    }

    /// An operation of EC2: its XML.
    ///
    /// # Errors
    /// No reply.
    pub async fn ec2(&self, query: &str) -> Result<Reply> {
        let call = Call::new("POST", "/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("Version=2016-11-15&{query}"));
        call.send(self.aws).await
    }

    /// The functions' settings, of their environment.
    ///
    /// # Errors
    /// A variable is missing, or is none of its kind.
    pub fn settings(&self) -> Result<Settings> {
        let environment = self.environment();
        let read = |name: &str| environment.get(name).cloned();
        Settings::from_lookup(&read).map_err(Failed::from)
    }

    /// What template.yaml gives the functions as their environment, and where
    /// AWS is. A variable that is missing here fails them at init.
    pub fn environment(&self) -> BTreeMap<&'static str, String> {
        [
            ("TABLE_NAME", self.demo.table.as_str()),
            ("EVENT_BUS_NAME", &self.demo.event_bus),
            ("STACK_NAME", &self.demo.event_bus),
            ("PRO_BACKUP_LIMIT", "5"),
            ("ENTERPRISE_BACKUP_LIMIT", "10"),
            ("PENDING_DEADLINE_MINUTES", "15"),
            ("PENDING_TOTAL_HOURS", "4"),
            ("IN_PROGRESS_DEADLINE_HOURS", "24"),
            ("PREPARING_DEADLINE_MINUTES", "60"),
            ("STOPPING_DEADLINE_MINUTES", "20"),
            ("SWAPPING_DEADLINE_MINUTES", "20"),
            ("STARTING_DEADLINE_MINUTES", "30"),
            ("OLD_VOLUME_HOURS", "24"),
            ("MIN_SCHEDULE_MINUTES", "1"),
            ("MANAGED_TAG_KEY", "laserdata:managed"),
            ("MANAGED_TAG_VALUE", "true"),
            ("DUE_SHARDS", "8"),
            ("REQUESTS_PER_MINUTE", "600"),
            ("CORS_ORIGINS", ""),
            ("AWS_ENDPOINT_URL", &self.demo.aws_endpoint),
            ("AWS_REGION", &self.demo.region),
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }

    /// The operator's command, as it is typed. Gives what it printed.
    ///
    /// # Errors
    /// It failed: with what it printed.
    pub async fn admin(&self, arguments: &[&str]) -> Result<String> {
        let output = tokio::process::Command::new(binary("admin")?)
            .args(arguments)
            .envs(self.environment())
            .output()
            .await?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        if output.status.success() { Ok(said) } else { fail(said) }
    }

    /// Puts an event on the stack's bus.
    ///
    /// # Errors
    /// The bus refused it.
    pub async fn put_event(&self, source: &str, detail_type: &str, detail: &Value) -> Result<()> {
        let entry = json!({
            "EventBusName": self.demo.event_bus,
            "Source": source,
            "DetailType": detail_type,
            "Detail": detail.to_string(),
        });
        let reply = self.aws("events", "AWSEvents.PutEvents", &json!({"Entries": [entry]})).await?;
        if reply["FailedEntryCount"] == 0 { Ok(()) } else { fail(format!("PutEvents: {reply}")) }
    }

    /// Registers a deployment, or changes one: the demo's, but for `change`.
    ///
    /// # Errors
    /// It is not registered.
    pub async fn register(&self, deployment: u64, version: u64, change: &Value) -> Result<()> {
        let nodes: Vec<Value> = self
            .demo
            .nodes
            .iter()
            .map(|node| json!({"node_id": node.node_id, "instance_id": node.instance_id}))
            .collect();
        let mut detail = json!({
            "version": version,
            "deployment_id": deployment,
            "tenant_id": self.demo.tenant_id,
            "status": "initialized",
            "plan": "pro",
            "cloud": "aws",
            "variant": "managed",
            "storage_type": "network_balanced",
            "shared": false,
            "region": self.demo.region,
            "backup_limit": null,
            "nodes": nodes,
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            detail[name] = value.clone();
        }
        self.put_event("supervisor.control-plane", "Deployment Changed", &detail).await?;
        self.settle(20).await
    }

    /// Has the control plane say what a key is: the tenant's manager for 30 days, but for
    /// `change`.
    ///
    /// # Errors
    /// The bus does not take it, or it does not come to rest.
    pub async fn change_key(
        &self,
        key_id: &str,
        secret: &Secret,
        version: u64,
        change: &Value,
    ) -> Result<()> {
        let expires_at = self.now().await?.as_second() + 30 * 86_400;
        let mut detail = json!({
            "version": version,
            "key_id": key_id,
            "hash": secret.hash(),
            "tenant_id": self.demo.tenant_id,
            "permission": "deployment:manage",
            "expires_at": Timestamp::from_second(expires_at)?.to_string(),
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            detail[name] = value.clone();
        }
        self.put_event("supervisor.control-plane", "API Key Changed", &detail).await?;
        self.settle(20).await
    }

    /// A row of a deployment, as `DynamoDB` writes it on the wire; null if there is none.
    ///
    /// # Errors
    /// No answer.
    pub async fn item(&self, deployment: u64, sk: &str) -> Result<Value> {
        let key = json!({"pk": {"S": format!("DEPLOYMENT#{deployment}")}, "sk": {"S": sk}});
        let body = json!({"TableName": self.demo.table, "Key": key, "ConsistentRead": true});
        let reply = self.aws("dynamodb", "DynamoDB_20120810.GetItem", &body).await?;
        Ok(reply["Item"].clone())
    }

    /// Puts such a row, past the service.
    ///
    /// # Errors
    /// It was refused.
    pub async fn put_item(&self, item: &Value) -> Result<()> {
        let body = json!({"TableName": self.demo.table, "Item": item});
        self.aws("dynamodb", "DynamoDB_20120810.PutItem", &body).await.map(drop)
    }

    /// All rows of the table.
    ///
    /// # Errors
    /// A scan failed.
    pub async fn rows(&self) -> Result<Vec<Row>> {
        let mut found = Vec::new();
        let mut start = Value::Null;
        loop {
            let mut request = json!({"TableName": self.demo.table, "ConsistentRead": true});
            if !start.is_null() {
                request["ExclusiveStartKey"] = start;
            }
            let page = self.aws("dynamodb", "DynamoDB_20120810.Scan", &request).await?;
            found.extend(page["Items"].as_array().into_iter().flatten().map(rows::plain_row));
            start = page["LastEvaluatedKey"].clone();
            if start.is_null() {
                return Ok(found);
            }
        }
    }
}

/// A field's text; empty if it is none.
pub(crate) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}
