//! The life of a backup as its user sees it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::http::Call;
use tests::{Here, MANY, Result, Setup, audit};

use crate::{framed, refused};
use tests::rows::FIELDS;

/// The keys of each object of a list, in the order of the text.
fn fields_in_order(text: &str) -> Vec<&str> {
    // No name or remark of these tests has a quote followed by a colon.
    let parts: Vec<&str> = text.split("\":").collect();
    let names = parts.iter().take(parts.len() - 1);
    names.filter_map(|part| part.rsplit('"').next()).collect()
}

#[tokio::test]
async fn from_create_to_gone() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let deployment = here.demo.deployment_id;
    assert_eq!(here.list_of(deployment).await?, Vec::<Value>::new());

    // Nothing tells the worker of it until the tick: it stays pending.
    here.arm(&json!({"on": "bus", "do": "drop"})).await?;
    let body = json!({"name": " before-migration ", "remarks": "why", "expires_in_days": 30});
    let reply = here.create_on(deployment, &body).await?;
    framed(&reply);
    assert_eq!((reply.status, reply.header("ld-backup"), reply.text.as_str()), (204, "1", ""));
    let pending = here.shown(1).await?.unwrap_or_default();
    assert_eq!(pending["status"], "pending");
    assert_eq!((&pending["snapshot_ids"], &pending["volume_ids"]), (&json!([]), &json!([])));
    for unset in ["node_id", "size_bytes", "started_at", "completed_at"] {
        assert_eq!(pending[unset], Value::Null, "{unset}");
    }
    refused(&here.delete(1).await?, 409, "backup_not_deletable");
    refused(&here.create_on(deployment, &body).await?, 409, "backup_in_progress");

    here.tick().await?;
    let running = here.shown(1).await?.unwrap_or_default();
    assert_eq!(running["status"], "in_progress");
    refused(&here.delete(1).await?, 409, "backup_not_deletable");
    refused(&here.create_on(deployment, &body).await?, 409, "backup_in_progress");

    here.until_status(1, "completed").await?;
    let key = here.demo.keys.read.clone();
    let reply = here.send(Call::new("GET", here.backups()).key(&key)).await?;
    framed(&reply);
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    assert_eq!(fields_in_order(&reply.text), FIELDS);
    assert!(deployment > 1 << 53);
    assert!(reply.text.contains(&format!("\"deployment_id\":{deployment},")), "{}", reply.text);
    let done = reply.json()[0].clone();
    assert_eq!(done["id"], 1);
    assert_eq!((&done["name"], &done["remarks"]), (&json!("before-migration"), &json!("why")));
    assert_eq!((&done["status"], &done["backup_type"]), (&json!("completed"), &json!("manual")));
    assert_eq!((&done["node_id"], &done["region"]), (&Value::Null, &json!(here.demo.region)));
    assert_eq!(done["size_bytes"], 6 * 50 * (1_u64 << 30));
    for time in ["created_at", "started_at", "completed_at", "expires_at"] {
        let text = done[time].as_str().unwrap_or_default();
        assert!(text.len() == 20 && text.ends_with('Z'), "{time}: {text}");
        text.parse::<jiff::Timestamp>()?;
    }
    let of = |name: &str| -> Result<jiff::Timestamp> {
        Ok(done[name].as_str().unwrap_or_default().parse()?)
    };
    assert_eq!(of("expires_at")?.as_second() - of("created_at")?.as_second(), 30 * 86_400);
    assert!(of("created_at")? <= of("started_at")? && of("started_at")? <= of("completed_at")?);

    same_volumes(&here, &done).await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    deleted(&here, &done).await?;
    here.stop().await;
    Ok(())
}

/// The two lists of ids are parallel, ordered by node, and say what EC2 says.
async fn same_volumes(here: &Here, shown: &Value) -> Result<()> {
    let texts = |name: &str| -> Vec<String> {
        let list = shown[name].as_array().into_iter().flatten();
        list.filter_map(|id| id.as_str().map(str::to_owned)).collect()
    };
    let (snapshots, volumes) = (texts("snapshot_ids"), texts("volume_ids"));
    let mut nodes = here.demo.nodes.clone();
    nodes.sort_by_key(|node| node.node_id);
    let expected: Vec<String> = nodes.into_iter().flat_map(|node| node.volume_ids).collect();
    assert_eq!(volumes, expected);
    let there = here.snapshots().await?;
    for (snapshot, volume) in snapshots.iter().zip(&volumes) {
        assert_eq!(there[snapshot]["volume_id"], *volume);
        assert_eq!(there[snapshot]["state"], "completed");
    }
    assert_eq!(snapshots.iter().collect::<BTreeSet<_>>().len(), 6);
    Ok(())
}

/// Its delete: again while it is under way, and EC2 is free of it before the row goes.
async fn deleted(here: &Here, shown: &Value) -> Result<()> {
    let snapshots: Vec<&str> =
        shown["snapshot_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // One snapshot cannot be deleted for a while: that keeps the row.
    let held = json!({
        "on": "DeleteSnapshot", "do": "error", "code": "InvalidSnapshot.InUse",
        "resource": snapshots[0], "times": MANY,
    });
    here.arm(&held).await?;
    for _ in 0..2 {
        let reply = here.delete(1).await?;
        framed(&reply);
        assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    }
    here.advance(120).await?;
    here.tick().await?;
    assert_eq!(here.status(1).await?, "deleting");
    assert_eq!(here.delete(1).await?.status, 204);
    let there: Vec<String> = here.snapshots().await?.into_keys().collect();
    assert_eq!(there, [snapshots[0]], "the others are gone");
    // Deleting does not hold the slot; it says why it does not get on.
    let rows = here.rows().await?;
    let row = rows.iter().find(|row| row.backup() == Some((here.demo.deployment_id, 1)));
    assert_eq!(row.map(|row| row.0["failure"]["code"].clone()), Some(json!("snapshot_in_use")));

    here.disarm().await?;
    let mut gone = false;
    for _ in 0..200 {
        // In this order: a row that was gone had no snapshot then.
        let listed = !here.status(1).await?.is_empty();
        let described = here.ec2("Action=DescribeSnapshots&Owner.1=self").await?;
        assert_eq!(described.status, 200);
        if !listed {
            assert!(!described.text.contains("snap-"), "{}", described.text);
            gone = true;
            break;
        }
        here.advance(15).await?;
        here.tick().await?;
    }
    assert!(gone, "it never went");
    refused(&here.delete(1).await?, 404, "backup_not_found");
    let rows = here.rest().await?;
    audit::demand(here, &rows).await?;
    // Its id is never used again.
    assert_eq!(here.create("next").await?, 2);
    let kinds = ["Backup Requested", "Backup Started", "Backup Completed", "Backup Deleted"];
    for kind in &kinds[1..] {
        let told = here.announced(kind).await?;
        assert!(told.iter().any(|detail| detail["backup_id"] == 1), "{kind}: {told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn one_node_by_its_exact_id() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let node = here.demo.nodes[1].clone();
    let deployment = here.demo.deployment_id;
    let id = here
        .create_on(deployment, &json!({"name": "n", "node_id": node.node_id}))
        .await?
        .backup()?;
    here.until_status(id, "completed").await?;
    let reply = here.send(Call::new("GET", here.backups()).key(&here.demo.keys.read)).await?;
    assert!(reply.text.contains(&format!("\"node_id\":{},", node.node_id)), "{}", reply.text);
    let shown = &reply.json()[0];
    assert_eq!(shown["volume_ids"], json!(node.volume_ids));
    assert_eq!(shown["size_bytes"], 2 * 50 * (1_u64 << 30));
    // The neighbours that a float would take for it are no nodes.
    for near in [node.node_id - 1, node.node_id + 1] {
        let reply = here.create_on(deployment, &json!({"name": "n", "node_id": near})).await?;
        refused(&reply, 404, "node_not_found");
        assert!(reply.text.contains(&near.to_string()));
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn of_ten_creates_at_once_one_is_made() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    for round in 1..=3 {
        let mut creates = tokio::task::JoinSet::new();
        for n in 0..10 {
            let cloud = here.cloud.clone();
            let body = json!({"name": format!("at once {n}")});
            creates.spawn(async move { cloud.create_on(cloud.demo.deployment_id, &body).await });
        }
        let mut made = Vec::new();
        while let Some(reply) = creates.join_next().await {
            let reply = reply??;
            if reply.status == 204 {
                made.push(reply.backup()?);
            } else {
                refused(&reply, 409, "backup_in_progress");
            }
        }
        assert_eq!(made, [round]);
        let rows = here.rest().await?;
        audit::demand(&here, &rows).await?;
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_limit_is_named_with_the_count() -> Result<()> {
    let parameters = vec![("ProBackupLimit".to_owned(), "2".to_owned())];
    let here = Here::start(Setup { parameters, ..Setup::default() }).await?;
    for expected in 1..=2 {
        assert_eq!(here.create("n").await?, expected);
        here.until_status(expected, "completed").await?;
    }
    let full = here.create_on(here.demo.deployment_id, &json!({"name": "n"})).await?;
    refused(&full, 409, "backup_limit_reached");
    let reason = full.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("has 2 backups") && reason.contains("limit is 2"), "{reason}");

    // The control plane sets another limit for one deployment; a lower one deletes nothing.
    let deployment = here.demo.deployment_id;
    here.register(deployment, 2, &json!({"backup_limit": 1})).await?;
    let over = here.create_on(deployment, &json!({"name": "n"})).await?;
    let reason = over.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("has 2 backups") && reason.contains("limit is 1"), "{reason}");
    assert_eq!(here.list_of(deployment).await?.len(), 2);
    here.register(deployment, 3, &json!({"backup_limit": 3})).await?;

    // What fails and what is being deleted counts no more.
    here.arm(&json!({"on": "CreateSnapshots", "do": "error", "code": "SnapshotLimitExceeded"}))
        .await?;
    let failed = here.create("fails").await?;
    here.until_status(failed, "failed").await?;
    let third = here.create("third").await?;
    here.until_status(third, "completed").await?;
    let full = here.create_on(deployment, &json!({"name": "n"})).await?;
    refused(&full, 409, "backup_limit_reached");
    here.arm(&json!({"on": "DeleteSnapshot", "do": "throttle", "times": MANY})).await?;
    assert_eq!(here.delete(third).await?.status, 204);
    assert_eq!(here.status(third).await?, "deleting");
    let fourth = here.create("fourth").await?;
    here.disarm().await?;
    here.until_status(fourth, "completed").await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_list_is_newest_first() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let other = here.demo.other_deployment_id;
    for expected in 1..=10 {
        let body = json!({"name": format!("{expected}")});
        assert_eq!(here.create_on(other, &body).await?.backup()?, expected);
        here.rest().await?;
    }
    let list = here.list_of(other).await?;
    let ids: Vec<u64> = list.iter().filter_map(|item| item["id"].as_u64()).collect();
    assert_eq!(ids, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    let full = here.create_on(other, &json!({"name": "n"})).await?;
    refused(&full, 409, "backup_limit_reached");
    assert!(full.text.contains("limit is 10"), "{}", full.text);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn one_backup_is_shown_with_all_that_is_known_of_it() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let read = here.demo.keys.read.clone();
    let one = |id: u64| Call::new("GET", format!("{}/{id}", here.backups())).key(&read);
    refused(&here.send(one(1)).await?, 404, "backup_not_found");
    here.arm(&json!({"on": "bus", "do": "drop"})).await?;
    here.create("n").await?;
    let more = |shown: &Value| {
        let names = ["progress", "failure", "snapshots", "schedule_slot", "upgrade_id", "pinned"];
        names.map(|name| shown[name].clone())
    };
    let nothing = [json!(0), Value::Null, json!([]), Value::Null, Value::Null, json!(false)];
    assert_eq!(more(&here.send(one(1)).await?.json()), nothing);

    here.until_status(1, "completed").await?;
    let reply = here.send(one(1)).await?;
    framed(&reply);
    let names = [&FIELDS[..], &["progress", "failure", "snapshots"]].concat();
    assert_eq!(fields_in_order(&reply.text)[..names.len()], names);
    let shown = reply.json();
    let listed = here.shown(1).await?.unwrap_or_default();
    assert!(listed.as_object().into_iter().flatten().all(|(name, value)| shown[name] == *value));
    assert_eq!((&shown["progress"], &shown["pinned"]), (&json!(100), &json!(false)));
    let snapshots = shown["snapshots"].as_array().cloned().unwrap_or_default();
    assert_eq!(snapshots.len(), 6);
    let there = here.state().await?;
    let instances = there["instances"].as_array().into_iter().flatten();
    let attached = instances.flat_map(|one| one["attachments"].as_array().into_iter().flatten());
    let attached: Vec<&Value> = attached.collect();
    for (at, one) in snapshots.iter().enumerate() {
        assert_eq!(one["snapshot_id"], shown["snapshot_ids"][at]);
        assert_eq!(one["volume_id"], shown["volume_ids"][at]);
        assert_eq!((&one["size_bytes"], &one["progress"]), (&json!(50_u64 << 30), &json!(100)));
        let on = attached.iter().find(|other| other["volume_id"] == one["volume_id"]);
        assert_eq!(on.map(|on| &on["device"]), Some(&one["device"]), "{one}");
    }
    let nodes: BTreeSet<u64> = snapshots.iter().filter_map(|one| one["node_id"].as_u64()).collect();
    assert_eq!(nodes, here.demo.nodes.iter().map(|node| node.node_id).collect());

    // Why one has failed, and that a restore needs it.
    here.arm(&json!({"on": "CreateSnapshots", "do": "error", "code": "SnapshotLimitExceeded"}))
        .await?;
    let failed = here.create("fails").await?;
    here.until_status(failed, "failed").await?;
    let shown = here.send(one(failed)).await?.json();
    assert_eq!(shown["failure"]["code"], "quota");
    assert!(shown["failure"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    let manage = &here.demo.keys.manage;
    let restore = Call::new("POST", format!("{}/1/restore", here.backups())).key(manage);
    here.arm(&json!({"on": "bus", "do": "drop"})).await?;
    assert_eq!(here.send(restore).await?.status, 204);
    assert_eq!(here.send(one(1)).await?.json()["pinned"], true);
    // Patched all the same.
    let patch = Call::new("PATCH", format!("{}/1", here.backups())).key(manage);
    assert_eq!(here.send(patch.json(r#"{"name": "pinned"}"#)).await?.status, 204);
    assert_eq!(here.send(one(1)).await?.json()["name"], "pinned");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_patch_changes_a_backup_and_its_expiry_counts_from_then_on() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let (manage, read) = (here.demo.keys.manage.clone(), here.demo.keys.read.clone());
    let patch = |id: u64, key: &str, body: &str| {
        Call::new("PATCH", format!("{}/{id}", here.backups())).key(key).json(body)
    };
    refused(&here.send(patch(1, &read, "{")).await?, 403, "insufficient_permissions");
    refused(&here.send(patch(1, &manage, "{")).await?, 400, "invalid_request");
    refused(&here.send(patch(1, &manage, "{}")).await?, 400, "invalid_request");
    refused(&here.send(patch(1, &manage, r#"{"name": "n"}"#)).await?, 404, "backup_not_found");

    // While it runs: it expires a day from now on, and not before it is completed.
    here.arm(&json!({"on": "bus", "do": "drop"})).await?;
    let body = json!({"name": "n", "remarks": "why", "expires_in_days": 2});
    here.create_on(here.demo.deployment_id, &body).await?;
    let reply = here.send(patch(1, &manage, r#"{"name": " new ", "expires_in_days": 1}"#)).await?;
    framed(&reply);
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    let shown = here.shown(1).await?.unwrap_or_default();
    assert_eq!((&shown["name"], &shown["remarks"]), (&json!("new"), &json!("why")));
    here.until_status(1, "completed").await?;
    here.rest().await?;

    // Half an hour before it would go, somebody wants to keep it; and then not.
    here.advance(86_400 - 1_800).await?;
    assert_eq!(here.send(patch(1, &manage, r#"{"expires_in_days": null}"#)).await?.status, 204);
    assert_eq!(here.shown(1).await?.map(|one| one["expires_at"].clone()), Some(Value::Null));
    here.advance(7_200).await?;
    here.tick().await?;
    here.rest().await?;
    assert_eq!(here.status(1).await?, "completed");
    let body = r#"{"expires_in_days": 1, "remarks": null}"#;
    assert_eq!(here.send(patch(1, &manage, body)).await?.status, 204);
    assert_eq!(here.shown(1).await?.map(|one| one["remarks"].clone()), Some(Value::Null));
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    here.arm(&json!({"on": "DeleteSnapshot", "do": "throttle", "times": MANY})).await?;
    here.advance(86_400 + 60).await?;
    here.tick().await?;
    assert_eq!(here.status(1).await?, "deleting");
    let late = here.send(patch(1, &manage, r#"{"expires_in_days": null}"#)).await?;
    refused(&late, 409, "backup_deleting");
    here.disarm().await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    here.stop().await;
    Ok(())
}
