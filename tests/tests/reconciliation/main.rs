//! Reconciliation as it is seen from outside: the real functions on a local cloud, day by
//! day, and what is left of snapshots and volumes.

mod from_ec2;
mod lost_table;
mod missing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tests::rows::Row;
use tests::{Failed, Here, Result, Setup, fail};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A local cloud with a completed backup, and whose reconciliation has its hour.
async fn backed_up() -> Result<Here> {
    let here = Here::start(Setup::default()).await?;
    completed(&here, "one").await?;
    here.tick().await?;
    Ok(here)
}

/// One more completed backup of the demo's deployment.
async fn completed(here: &Here, name: &str) -> Result<u64> {
    let id = here.create(name).await?;
    for _ in 0..200 {
        if here.status(id).await? == "completed" {
            here.settle(60).await?;
            return Ok(id);
        }
        here.advance(60).await?;
        here.tick().await?;
    }
    fail("the backup is never completed")
}

/// The row of the stack's reconciliation.
async fn row(here: &Here) -> Result<Value> {
    let rows = here.rows().await?;
    let found = rows.into_iter().find(|row| row.text("sk") == "RECONCILIATION");
    Ok(found.map_or(Value::Null, |row| row.0))
}

/// The next day's run, as it ended.
async fn next_run(here: &Here) -> Result<Value> {
    let before = row(here).await?["last"]["started_at"].clone();
    for _ in 0..60 {
        let now = row(here).await?;
        if now["run"].is_null() && !now["last"].is_null() && now["last"]["started_at"] != before {
            return Ok(now["last"].clone());
        }
        // Hour by hour: what else is due has its time too.
        here.advance(HOUR).await?;
        here.tick().await?;
    }
    fail(format!("no run came to its end: {}", row(here).await?))
}

/// The ids of all snapshots that are there.
async fn snapshots(here: &Here) -> Result<BTreeSet<String>> {
    Ok(here.snapshots().await?.into_keys().collect())
}

/// The ids of all volumes that are there and are not about to go.
async fn volumes(here: &Here) -> Result<BTreeSet<String>> {
    let state = here.state().await?;
    let all = state["volumes"].as_array().into_iter().flatten();
    let there = all.filter(|one| one["state"] != "deleting");
    Ok(there.filter_map(|one| one["volume_id"].as_str().map(str::to_owned)).collect())
}

/// A backup's row.
async fn backup(here: &Here, id: u64) -> Result<Row> {
    let key = (here.demo.deployment_id, id);
    let found = here.rows().await?.into_iter().find(|row| row.backup() == Some(key));
    found.ok_or_else(|| Failed(format!("backup {id} has no row")))
}

/// How many backups of the demo's deployment count.
async fn counted(here: &Here) -> Result<u64> {
    let pk = format!("DEPLOYMENT#{}", here.demo.deployment_id);
    let rows = here.rows().await?;
    let meta = rows.iter().find(|row| row.text("pk") == pk && row.text("sk") == "META");
    Ok(meta.and_then(|row| row.0["backup_count"].as_u64()).unwrap_or(0))
}

/// Snapshots of every volume of the demo, made by hand with the tags and the description
/// that a backup's own would have.
async fn made_by_hand(here: &Here, backup: u64, token: &str) -> Result<BTreeSet<String>> {
    let before = snapshots(here).await?;
    let rows = here.rows().await?;
    let table = rows.iter().find(|row| row.text("sk") == "TABLE");
    let table = table.map_or_else(String::new, |row| row.text("table_id").to_owned());
    let deployment = here.demo.deployment_id;
    for node in &here.demo.nodes {
        let id = node.node_id;
        let tags = BTreeMap::from([
            ("ld:stack", here.demo.event_bus.clone()),
            ("ld:table", table.clone()),
            ("ld:deployment", deployment.to_string()),
            ("ld:backup", backup.to_string()),
            ("ld:node", id.to_string()),
            ("ld:attempt", "9".to_owned()),
        ]);
        let query = form(&[
            ("Action", "CreateSnapshots"),
            ("InstanceSpecification.InstanceId", &node.instance_id),
            ("InstanceSpecification.ExcludeBootVolume", "true"),
            (
                "Description",
                &format!(
                    "LaserData backup {backup} of deployment {deployment}, node {id}, {token}"
                ),
            ),
            ("TagSpecification.1.ResourceType", "snapshot"),
        ]);
        let tags = tags.iter().enumerate().map(|(number, (key, value))| {
            let tag = format!("TagSpecification.1.Tag.{}", number + 1);
            form(&[(&format!("{tag}.Key"), key), (&format!("{tag}.Value"), value)])
        });
        let query: Vec<String> = std::iter::once(query).chain(tags).collect();
        let reply = here.ec2(&query.join("&")).await?;
        if reply.status != 200 {
            return fail(reply.text);
        }
    }
    // EC2 shows them, and makes no others of the same volumes at once.
    here.advance(HOUR).await?;
    Ok(snapshots(here).await?.difference(&before).cloned().collect())
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Changes a row behind the service's back.
async fn update(here: &Here, pk: &str, sk: &str, update: Value) -> Result<()> {
    let mut body = json!({
        "TableName": here.demo.table, "Key": {"pk": {"S": pk}, "sk": {"S": sk}},
    });
    for (name, value) in update.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    here.aws("dynamodb", "DynamoDB_20120810.UpdateItem", &body).await.map(drop)
}

/// Removes rows behind the service's back.
async fn lose(here: &Here, which: impl Fn(&Row) -> bool) -> Result<()> {
    for row in here.rows().await?.iter().filter(|row| which(row)) {
        let body = json!({
            "TableName": here.demo.table,
            "Key": {"pk": {"S": row.text("pk")}, "sk": {"S": row.text("sk")}},
        });
        here.aws("dynamodb", "DynamoDB_20120810.DeleteItem", &body).await?;
    }
    Ok(())
}

/// The operator's command about orphans.
async fn admin(here: &Here, arguments: &[&str]) -> Result<String> {
    here.admin(&[&["orphans"], arguments].concat()).await
}

/// Waits a little, as whoever looks at what goes on by itself.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
