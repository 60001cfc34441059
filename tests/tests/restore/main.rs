//! Restores as their users see them: on a local cloud, over HTTP, with what the database
//! wrote on the volumes.

mod orders;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::http::{Call, Reply};
use tests::{Failed, Here, MANY, Result, Setup, fail};

/// A local cloud whose volumes say `first`, with a completed backup of them, and say
/// `second` since.
async fn backed_up() -> Result<Here> {
    // Fast: a restore's waits are the worker's own, two seconds each.
    let parameters = vec![("StartingDeadlineMinutes".to_owned(), "1".to_owned())];
    let here = Here::start(Setup { tick: 2, parameters, ..Setup::default() }).await?;
    write(&here, "first").await?;
    here.create("one").await?;
    until(&here, "backups", |list| list[0]["status"] == "completed").await?;
    write(&here, "second").await?;
    Ok(here)
}

/// Writes on each volume of the demo's deployment.
async fn write(here: &Here, content: &str) -> Result<()> {
    for volume in here.demo.nodes.iter().flat_map(|node| &node.volume_ids) {
        let body = json!({"volume_id": volume, "content": format!("{content} {volume}")});
        here.local("POST", "write", &body).await?;
    }
    Ok(())
}

fn path(here: &Here, rest: &str) -> String {
    format!("/deployments/{}/{rest}", here.demo.deployment_id)
}

async fn get(here: &Here, rest: &str) -> Result<Reply> {
    here.send(Call::new("GET", path(here, rest)).key(&here.demo.keys.read)).await
}

async fn restore(here: &Here, body: &Value) -> Result<Reply> {
    let call = Call::new("POST", path(here, "backups/1/restore")).key(&here.demo.keys.manage);
    here.send(if body.is_null() { call } else { call.json(body.to_string()) }).await
}

/// Asks until what is shown is so.
async fn until(here: &Here, rest: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut shown = Value::Null;
    for _ in 0..1800 {
        shown = get(here, rest).await?.json();
        if so(&shown) {
            return Ok(shown);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fail(format!("{rest} never came to be so: {shown}"))
}

async fn over(here: &Here) -> Result<Value> {
    let ends = ["completed", "rolled_back", "failed", "stuck"];
    let ends = |one: &Value| ends.iter().any(|end| one["status"] == *end);
    until(here, "restores/1", ends).await
}

/// The restore is completed, and each volume says what it said when it was backed up.
async fn completes(here: &Here) -> Result<Value> {
    let done = over(here).await?;
    assert_eq!((&done["status"], &done["failure"]), (&json!("completed"), &Value::Null));
    all_say(here, "first").await?;
    Ok(done)
}

/// A restore that starts its nodes, and for one of them EC2 refuses it with this code.
async fn starting(code: &str) -> Result<Here> {
    let here = backed_up().await?;
    let instance = &here.demo.nodes[1].instance_id;
    here.arm(&json!({
        "on": "StartInstances", "do": "error", "code": code, "resource": instance, "times": MANY,
    }))
    .await?;
    assert_eq!(restore(&here, &Value::Null).await?.status, 204);
    until(&here, "restores/1", |one| one["phase"] == "starting").await?;
    Ok(here)
}

/// What is written on what hangs on each node, by device; each node runs.
async fn contents(here: &Here) -> Result<Vec<(String, String)>> {
    let state = here.state().await?;
    let of = |id: &Value| {
        let volumes = state["volumes"].as_array().into_iter().flatten();
        let mut found = volumes.filter(|one| one["volume_id"] == *id);
        found.find_map(|one| one["content"].as_str()).unwrap_or("nothing").to_owned()
    };
    let mut all = Vec::new();
    for node in &here.demo.nodes {
        let instances = state["instances"].as_array().into_iter().flatten();
        let mut found = instances.filter(|one| one["instance_id"] == node.instance_id.as_str());
        let Some(instance) = found.next() else { return fail("an instance is gone") };
        assert_eq!(instance["state"], "running", "{instance}");
        let attached = instance["attachments"].as_array().into_iter().flatten();
        let data = attached.filter(|one| one["device"] != "/dev/xvda");
        let mut data: Vec<_> =
            data.map(|one| (one["device"].to_string(), of(&one["volume_id"]))).collect();
        // They hang there in the order in which they were attached.
        data.sort();
        all.extend(data);
    }
    Ok(all)
}

/// Every volume of the deployment says what was written then.
async fn all_say(here: &Here, content: &str) -> Result<()> {
    let all = contents(here).await?;
    let volumes = here.demo.nodes.iter().flat_map(|node| &node.volume_ids);
    let wanted: Vec<_> = volumes.map(|volume| format!("{content} {volume}")).collect();
    let found: Vec<_> = all.into_iter().map(|(_, content)| content).collect();
    assert_eq!(found, wanted);
    Ok(())
}

fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text);
}

#[tokio::test]
async fn the_backups_data_is_back_and_the_old_volumes_are_kept() -> Result<()> {
    let here = backed_up().await?;
    assert_eq!(get(&here, "restores").await?.json(), json!([]));
    refused(&get(&here, "restores/1").await?, 404, "restore_not_found");
    let asked = restore(&here, &Value::Null).await?;
    assert_eq!(
        (asked.status, asked.header("ld-restore"), asked.header("ld-backup")),
        (204, "1", "")
    );

    // Meanwhile nothing else runs, and the backup stays.
    refused(&restore(&here, &Value::Null).await?, 409, "restore_in_progress");
    let other = here.create_on(here.demo.deployment_id, &json!({"name": "two"})).await?;
    refused(&other, 409, "restore_in_progress");
    refused(&here.delete(1).await?, 409, "restore_in_progress");

    let done = completes(&here).await?;
    assert!(done["downtime_seconds"].as_i64().is_some_and(|down| down > 0), "{done}");
    assert!(done["old_volumes_kept_until"].is_string());
    let volumes: Vec<&Value> = done["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|node| node["volumes"].as_array().into_iter().flatten())
        .collect();
    assert_eq!(volumes.len(), 6);
    for one in &volumes {
        assert!(one["old_volume_id"].is_string() && one["new_volume_id"].is_string(), "{one}");
        assert!(one["snapshot_id"].is_string(), "{one}");
    }
    let list = get(&here, "restores").await?.json();
    assert_eq!(list, json!([done]));

    // Our tags are off the new ones and on the old ones, which are there until their time.
    let old: Vec<&Value> = volumes.iter().map(|one| &one["old_volume_id"]).collect();
    here.settle(60).await?;
    let state = here.state().await?;
    for one in state["volumes"].as_array().into_iter().flatten() {
        let ours = one["tags"]["ld:restore"].is_string();
        assert_eq!(ours, old.contains(&&one["volume_id"]), "{one}");
    }
    here.advance(24 * 3600 + 60).await?;
    for _ in 0..100 {
        here.tick().await?;
        let state = here.state().await?;
        let there = state["volumes"].as_array().into_iter().flatten();
        if !there.into_iter().any(|one| old.contains(&&one["volume_id"])) {
            // And the backup is anybody's to delete again.
            assert_eq!(here.delete(1).await?.status, 204);
            here.stop().await;
            return Ok(());
        }
    }
    fail("the old volumes are there after their time")
}

#[tokio::test]
async fn what_cannot_be_attached_is_undone() -> Result<()> {
    let here = backed_up().await?;
    let code = "AttachmentLimitExceeded";
    // Not the dry runs: six of them come first.
    here.arm(
        &json!({"on": "AttachVolume", "do": "error", "code": "InvalidParameterValue", "times": 6}),
    )
    .await?;
    here.arm(&json!({"on": "AttachVolume", "do": "error", "code": code})).await?;
    assert_eq!(restore(&here, &Value::Null).await?.status, 204);
    let done = over(&here).await?;
    assert_eq!(
        (&done["status"], &done["failure"]["code"]),
        (&json!("rolled_back"), &json!("attach_failed"))
    );
    all_say(&here, "second").await?;
    assert_eq!(here.create("two").await?, 2, "the slot is free");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_missing_right_is_found_before_anything_is_touched() -> Result<()> {
    let here = backed_up().await?;
    let code = "UnauthorizedOperation";
    here.arm(&json!({"on": "DetachVolume", "do": "error", "code": code})).await?;
    assert_eq!(restore(&here, &Value::Null).await?.status, 204);
    let done = over(&here).await?;
    assert_eq!(
        (&done["status"], &done["failure"]["code"], &done["stopped_at"]),
        (&json!("failed"), &json!("permission_denied"), &Value::Null)
    );
    let reason = done["failure"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("DetachVolume") && reason.contains("/dev/sd"), "{reason}");
    all_say(&here, "second").await?;
    let calls = here.calls().await?;
    let stops = calls.iter().filter(|call| call["operation"] == "StopInstances");
    assert!(stops.into_iter().all(|call| call["dry_run"] == true));
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_start_without_capacity_is_asked_for_until_it_runs() -> Result<()> {
    let here = backed_up().await?;
    let instance = &here.demo.nodes[1].instance_id;
    here.arm(&json!({"on": "StartInstances", "do": "fail_later", "resource": instance})).await?;
    assert_eq!(restore(&here, &Value::Null).await?.status, 204);
    completes(&here).await?;
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_start_that_is_refused_for_capacity_is_asked_for_beyond_every_deadline() -> Result<()> {
    // As EC2 refuses it: with status 500.
    let here = starting("InsufficientInstanceCapacity").await?;
    // The deadline is a minute here.
    let mut refusals = 0;
    for _ in 0..40 {
        here.advance(15).await?;
        tokio::time::sleep(Duration::from_millis(150)).await;
        let row = row(&here).await?;
        assert_eq!(row["status"], "in_progress", "{row}");
        refusals = refusals.max(row["nodes"][1]["start"]["refusals"].as_u64().unwrap_or(0));
    }
    assert!(refusals > 3, "{refusals}");
    here.disarm().await?;
    here.advance(60).await?;
    completes(&here).await?;
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_safety_backup_of_the_present_state_goes_first() -> Result<()> {
    let here = backed_up().await?;
    let asked = restore(&here, &json!({"safety_backup": true})).await?;
    assert_eq!(
        (asked.status, asked.header("ld-restore"), asked.header("ld-backup")),
        (204, "1", "2")
    );
    let done = over(&here).await?;
    assert_eq!((&done["status"], &done["safety_backup_id"]), (&json!("completed"), &json!(2)));
    all_say(&here, "first").await?;
    let safety = here.shown(2).await?.unwrap_or_default();
    assert_eq!(
        (&safety["name"], &safety["status"]),
        (&json!("before restore 1"), &json!("completed"))
    );
    let snapshots = here.snapshots().await?;
    let ids = safety["snapshot_ids"].as_array().cloned().unwrap_or_default();
    for id in ids.iter().filter_map(Value::as_str) {
        let content = snapshots[id]["content"].as_str().unwrap_or_default();
        assert!(content.starts_with("second "), "{content}");
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_may_not_be_restored_is_refused() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    refused(&restore(&here, &Value::Null).await?, 404, "backup_not_found");
    // Nothing tells the worker of it: it stays pending.
    here.arm(&json!({"on": "bus", "do": "drop"})).await?;
    here.create("one").await?;
    refused(&restore(&here, &Value::Null).await?, 409, "backup_in_progress");
    refused(&restore(&here, &json!({"safety": true})).await?, 400, "invalid_request");
    refused(&restore(&here, &json!({"allow_partial": 1})).await?, 400, "invalid_request");
    let call = Call::new("POST", path(&here, "backups/1/restore")).key(&here.demo.keys.read);
    refused(&here.send(call).await?, 403, "insufficient_permissions");
    let call =
        Call::new("POST", path(&here, "backups/1/restore")).key(&here.demo.keys.other_tenant);
    refused(&here.send(call).await?, 404, "deployment_not_found");
    let call = Call::new("GET", path(&here, "restores")).key(&here.demo.keys.other_tenant);
    refused(&here.send(call).await?, 404, "deployment_not_found");
    here.stop().await;
    Ok(())
}

/// The row of the restore, as the table has it.
async fn row(here: &Here) -> Result<Value> {
    let key = (here.demo.deployment_id, 1);
    let rows = here.rows().await?;
    let found = rows.into_iter().find(|row| row.restore() == Some(key));
    found.map(|row| row.0).ok_or_else(|| Failed("no restore".to_owned()))
}

#[tokio::test]
async fn of_ten_restores_at_once_one_is_made() -> Result<()> {
    let here = backed_up().await?;
    let all = futures_util::future::join_all((0..10).map(|_| restore(&here, &Value::Null))).await;
    let mut made = 0;
    for reply in all {
        let reply = reply?;
        match reply.status {
            204 => made += 1,
            _ => refused(&reply, 409, "restore_in_progress"),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(over(&here).await?["status"], "completed");
    assert_eq!(get(&here, "restores").await?.json().as_array().map(Vec::len), Some(1));
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_bus_that_does_not_answer_keeps_nobody_from_a_restore() -> Result<()> {
    let here = backed_up().await?;
    here.arm(&json!({"on": "PutEvents", "do": "error", "code": "InternalException", "times": 8}))
        .await?;
    assert_eq!(restore(&here, &Value::Null).await?.status, 204);
    let done = over(&here).await?;
    assert_eq!(done["status"], "completed", "{done}");
    for kind in ["Restore Requested", "Restore Started", "Restore Completed"] {
        assert_eq!(announced(&here, kind).await?, 1, "{kind}");
    }
    here.stop().await;
    Ok(())
}

/// How many of a kind the bus has taken, doubles (two workers may publish the same one)
/// counted once; waits for the first.
async fn announced(here: &Here, kind: &str) -> Result<usize> {
    for _ in 0..300 {
        let all = here.announced(kind).await?;
        let ids: BTreeSet<_> = all.iter().map(|one| one["announcement_id"].as_str()).collect();
        if !ids.is_empty() {
            return Ok(ids.len());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(0)
}

#[tokio::test]
async fn a_change_of_anything_but_the_nodes_is_not_looked_at() -> Result<()> {
    let here = backed_up().await?;
    assert_eq!(restore(&here, &Value::Null).await?.status, 204);
    until(&here, "restores/1", |one| one["phase"] == "preparing").await?;
    let change = json!({"plan": "basic", "status": "upgrading", "backup_limit": 1});
    here.register(here.demo.deployment_id, 2, &change).await?;
    assert_eq!(over(&here).await?["status"], "completed");
    all_say(&here, "first").await?;
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_deployment_that_is_deleted_in_the_middle_is_not_stopped_or_comes_up_again() -> Result<()>
{
    for (phase, end) in [("preparing", "failed"), ("swapping", "completed")] {
        let here = backed_up().await?;
        assert_eq!(restore(&here, &Value::Null).await?.status, 204);
        until(&here, "restores/1", |one| one["phase"] == phase).await?;
        let gone = json!({"version": 9, "deployment_id": here.demo.deployment_id});
        here.put_event("supervisor.control-plane", "Deployment Deleted", &gone).await?;
        let mut last = Value::Null;
        for _ in 0..600 {
            last = row(&here).await?;
            if ["completed", "failed"].iter().any(|end| last["status"] == *end) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(last["status"], end, "{phase}: {last}");
        if end == "failed" {
            assert_eq!(last["failure"]["code"], "superseded", "{last}");
        }
        refused(&get(&here, "restores/1").await?, 404, "deployment_not_found");
        all_say(&here, if end == "failed" { "second" } else { "first" }).await?;
        here.stop().await;
    }
    Ok(())
}
