//! A request that comes again: the header `idempotency-key`.

use std::collections::BTreeMap;

use serde_json::json;
use tests::http::{Call, Reply};
use tests::{Here, MANY, Result, Setup};

use crate::{framed, refused};

/// A create of a backup that its client calls `called`.
fn create(here: &Here, called: &str, body: &str) -> Call {
    let call = Call::new("POST", here.backups()).key(&here.demo.keys.manage).json(body);
    call.header("idempotency-key", called)
}

/// Checks that a reply is the answer of before.
#[track_caller]
fn replayed(reply: &Reply, backup: &str) {
    framed(reply);
    let told = (reply.status, reply.header("ld-backup"), reply.header("idempotent-replayed"));
    assert_eq!(told, (204, backup, "true"), "{}", reply.text);
}

/// Checks that a reply is a new one.
#[track_caller]
fn made(reply: &Reply, backup: &str) {
    framed(reply);
    let told = (reply.status, reply.header("ld-backup"), reply.header("idempotent-replayed"));
    assert_eq!(told, (204, backup, ""), "{}", reply.text);
}

#[tokio::test]
async fn a_create_is_answered_again_for_ten_minutes_also_when_its_backup_is_gone() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let (body, other) = (r#"{"name": "n"}"#, r#"{"name": "other"}"#);
    made(&here.send(create(&here, "a", body)).await?, "1");
    replayed(&here.send(create(&here, "a", body)).await?, "1");
    // Another body, though it means the same; another name.
    for again in [other, r#"{"name":"n"}"#] {
        refused(&here.send(create(&here, "a", again)).await?, 409, "idempotency_error");
    }
    refused(&here.send(create(&here, "A", body)).await?, 409, "backup_in_progress");
    // Another method and path.
    let one = format!("{}/1", here.backups());
    let patch = Call::new("PATCH", &one).key(&here.demo.keys.manage).json(body);
    let patch = patch.header("idempotency-key", "a");
    refused(&here.send(patch).await?, 409, "idempotency_error");
    // Another key's requests are its own.
    let more = ["--permission", "deployment:manage", "--days", "1", "--json"];
    let of = ["key", "create", "--tenant", &here.demo.tenant_id];
    let said = here.admin(&[&of[..], &more[..]].concat()).await?;
    let second: serde_json::Value = serde_json::from_str(said.lines().next().unwrap_or_default())?;
    let second = second["secret"].as_str().unwrap_or_default();
    let theirs = Call::new("POST", here.backups()).key(second).json(body);
    let theirs = theirs.header("idempotency-key", "a");
    refused(&here.send(theirs).await?, 409, "backup_in_progress");

    let asked: jiff::Timestamp =
        here.shown(1).await?.unwrap_or_default()["created_at"].as_str().unwrap_or("").parse()?;
    here.until_status(1, "completed").await?;
    assert_eq!(here.delete(1).await?.status, 204);
    here.rest().await?;
    assert_eq!(here.shown(1).await?, None);
    replayed(&here.send(create(&here, "a", body)).await?, "1");

    let passed = here.now().await?.duration_since(asked).as_secs();
    // The clock goes on by itself meanwhile.
    assert!(passed < 590, "{passed} s until it was gone");
    here.advance(u64::try_from(590 - passed)?).await?;
    replayed(&here.send(create(&here, "a", body)).await?, "1");
    here.advance(10).await?;
    made(&here.send(create(&here, "a", body)).await?, "2");
    replayed(&here.send(create(&here, "a", body)).await?, "2");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_was_refused_is_not_kept_and_what_was_cut_off_is_found() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let id = here.demo.deployment_id;
    let body = r#"{"name": "n"}"#;
    here.register(id, 2, &json!({"status": "upgrading"})).await?;
    refused(&here.send(create(&here, "a", body)).await?, 409, "deployment_not_ready");
    here.register(id, 3, &json!({})).await?;
    made(&here.send(create(&here, "a", body)).await?, "1");
    here.rest().await?;

    // It is stored, and the function hears nothing of it: by the name it finds what it did.
    here.arm(&json!({"on": "TransactWriteItems", "do": "lose_reply", "times": MANY})).await?;
    replayed(&here.send(create(&here, "b", body)).await?, "2");
    here.disarm().await?;
    replayed(&here.send(create(&here, "b", body)).await?, "2");
    here.rest().await?;
    assert_eq!(here.list_of(id).await?.len(), 2);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn of_fifty_at_once_one_makes_a_backup() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let calls = (0..50).map(|_| here.send(create(&here, "once", r#"{"name": "n"}"#)));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for reply in futures_util::future::join_all(calls).await {
        let reply = reply?;
        framed(&reply);
        let kind = match (reply.status, reply.header("ld-backup")) {
            (204, "1") if reply.header("idempotent-replayed") == "true" => "replayed".to_owned(),
            (204, "1") => "made".to_owned(),
            (409, "") => reply.code(),
            _ => reply.text.clone(),
        };
        *seen.entry(kind).or_default() += 1;
    }
    assert_eq!(seen.get("made"), Some(&1), "{seen:?}");
    let again = ["replayed", "idempotent_request_in_progress"];
    let again: usize = again.iter().filter_map(|kind| seen.get(*kind)).sum();
    assert_eq!(again, 49, "{seen:?}");
    assert_eq!(here.list_of(here.demo.deployment_id).await?.len(), 1);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_patch_a_schedule_and_a_restore_are_done_once() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let backup = here.create("n").await?;
    here.until_status(backup, "completed").await?;
    let manage = here.demo.keys.manage.clone();
    let call = |method: &str, path: String, body: &str, called: &str| {
        let call = Call::new(method, path).key(&manage).json(body);
        if called.is_empty() { call } else { call.header("idempotency-key", called) }
    };
    let one = format!("{}/{backup}", here.backups());
    let patch = |name: &str, called: &str| {
        call("PATCH", one.clone(), &json!({"name": name}).to_string(), called)
    };
    made(&here.send(patch("first", "p")).await?, "");
    made(&here.send(patch("second", "")).await?, "");
    replayed(&here.send(patch("first", "p")).await?, "");
    assert_eq!(here.shown(backup).await?.unwrap_or_default()["name"], "second");

    let schedule = format!("{}/schedule", here.backups());
    let put = |cron: &str, called: &str| {
        call("PUT", schedule.clone(), &json!({"cron": cron}).to_string(), called)
    };
    made(&here.send(put("0 1 * * *", "s")).await?, "");
    made(&here.send(put("0 2 * * *", "")).await?, "");
    replayed(&here.send(put("0 1 * * *", "s")).await?, "");
    let shown = here.send(Call::new("GET", &schedule).key(&manage)).await?.json();
    assert_eq!(shown["cron"], "0 2 * * *");
    // One that changes nothing is remembered too.
    made(&here.send(put("0 2 * * *", "t")).await?, "");
    made(&here.send(put("0 3 * * *", "")).await?, "");
    replayed(&here.send(put("0 2 * * *", "t")).await?, "");

    let restore = || call("POST", format!("{one}/restore"), r#"{"safety_backup": true}"#, "r");
    let first = here.send(restore()).await?;
    made(&first, "2");
    let again = here.send(restore()).await?;
    replayed(&again, "2");
    assert_eq!((first.header("ld-restore"), again.header("ld-restore")), ("1", "1"));
    here.rest().await?;
    let list = format!("/deployments/{}/restores", here.demo.deployment_id);
    let list = here.send(Call::new("GET", list).key(&manage)).await?.json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn access_is_asked_for_again_and_a_bad_name_is_refused() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let body = r#"{"name": "n"}"#;
    let long = "x".repeat(255);
    made(&here.send(create(&here, &long, body)).await?, "1");
    for bad in ["", "two words", &"x".repeat(256)] {
        let reply = here.send(create(&here, bad, body)).await?;
        refused(&reply, 400, "invalid_request");
        assert_eq!(reply.json()["field"], "idempotency-key", "{bad}");
    }
    // With all that is wrong with the body.
    let reply = here.send(create(&here, "", r#"{"name": "", "days": 1}"#)).await?;
    refused(&reply, 400, "invalid_request");
    assert_eq!(reply.json()["field_issues"].as_array().map(Vec::len), Some(3), "{}", reply.text);
    // The order of errors: what the key may not do comes first.
    let read = Call::new("POST", here.backups()).key(&here.demo.keys.read).json(body);
    let read = read.header("idempotency-key", &long);
    refused(&here.send(read).await?, 403, "insufficient_permissions");
    // A list and a delete have no use for it.
    let list = Call::new("GET", here.backups()).key(&here.demo.keys.read);
    assert_eq!(here.send(list.header("idempotency-key", "")).await?.status, 200);

    here.rest().await?;
    replayed(&here.send(create(&here, &long, body)).await?, "1");
    let gone = json!({"version": 9, "deployment_id": here.demo.deployment_id});
    here.put_event("supervisor.control-plane", "Deployment Deleted", &gone).await?;
    here.rest().await?;
    refused(&here.send(create(&here, &long, body)).await?, 404, "deployment_not_found");
    here.stop().await;
    Ok(())
}
