//! The AWS CLI against the local cloud: what an operator's runbook would type.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{Cloud, Failed, Result, fail, root};

/// Runs the CLI as an operator would, and reads its answer.
///
/// # Errors
/// It failed, with what it said.
pub async fn aws(cloud: &Cloud, arguments: &[&str]) -> Result<Value> {
    let own = root().join(".tools/venv/bin/aws");
    let output = Command::new(if own.is_file() { own } else { "aws".into() })
        .args(["--endpoint-url", &cloud.demo.aws_endpoint, "--output", "json"])
        .args(arguments)
        .envs(cloud.environment())
        .env("AWS_DEFAULT_REGION", &cloud.demo.region)
        .env("AWS_PAGER", "")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| Failed(format!("the AWS CLI (./check tools installs it): {error}")))?;
    if !output.status.success() {
        return fail(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    if output.stdout.is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The snapshots of this account, as the CLI lists them.
///
/// # Errors
/// As [`aws`].
pub async fn snapshots(cloud: &Cloud) -> Result<usize> {
    let reply = aws(cloud, &["ec2", "describe-snapshots", "--owner-ids", "self"]).await?;
    Ok(reply["Snapshots"].as_array().map_or(0, Vec::len))
}

/// Looks at everything from outside, and makes and deletes snapshots by hand.
///
/// # Errors
/// What the CLI could not do, or what it saw wrong.
pub async fn tour(cloud: &Cloud) -> Result<()> {
    let volumes = aws(cloud, &["ec2", "describe-volumes"]).await?;
    let instances = aws(cloud, &["ec2", "describe-instances"]).await?;
    let found = |value: &Value, name: &str| value[name].as_array().map_or(0, Vec::len);
    if found(&volumes, "Volumes") < 6 || found(&instances, "Reservations") < 3 {
        return fail(format!("too little is described: {volumes} {instances}"));
    }
    let before = snapshots(cloud).await?;
    let instance = cloud.demo.nodes.first().map_or("", |node| node.instance_id.as_str());
    let set = format!("InstanceId={instance},ExcludeBootVolume=true");
    let made = aws(cloud, &["ec2", "create-snapshots", "--instance-specification", &set]).await?;
    let ids: Vec<&str> = made["Snapshots"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|snapshot| snapshot["SnapshotId"].as_str())
        .collect();
    if ids.len() != 2 {
        return fail(format!("a set of {} snapshots", ids.len()));
    }
    // Past the lag of a describe, and the time that a snapshot takes.
    cloud.advance(600).await?;
    if snapshots(cloud).await? != before + ids.len() {
        return fail("the snapshots made by hand are not listed");
    }
    for id in &ids {
        aws(cloud, &["ec2", "delete-snapshot", "--snapshot-id", id]).await?;
    }
    cloud.advance(30).await?;
    if snapshots(cloud).await? != before {
        return fail("the snapshots deleted by hand are still listed");
    }
    let again = aws(cloud, &["ec2", "delete-snapshot", "--snapshot-id", ids[0]]).await;
    if !again.is_err_and(|Failed(said)| said.contains("InvalidSnapshot.NotFound")) {
        return fail("a snapshot is deleted twice");
    }
    let table = cloud.demo.table.as_str();
    let rows = aws(cloud, &["dynamodb", "scan", "--table-name", table]).await?;
    if found(&rows, "Items") == 0 {
        return fail("the table is empty");
    }
    let entry = json!([{
        "Source": "somebody.else", "DetailType": "Nothing", "Detail": "{}",
        "EventBusName": cloud.demo.event_bus,
    }]);
    let put = aws(cloud, &["events", "put-events", "--entries", &entry.to_string()]).await?;
    if put["FailedEntryCount"] != 0 {
        return fail(format!("put-events: {put}"));
    }
    Ok(())
}
