//! What runs by itself, from outside: schedules with their rotation, and backups before
//! upgrades, on a clock that is pushed.

mod upgrades;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::http::{Call, Reply};
use tests::{Here, Result, Setup, audit, fail, rows};
use upgrades::{answers, upgrade};

/// A local cloud in which backups take no time worth speaking of.
async fn here() -> Result<Here> {
    Here::start(Setup { speed: 100.0, ..Setup::default() }).await
}

/// Calls the demo's schedule.
async fn call(here: &Here, method: &str, body: Option<&Value>) -> Result<Reply> {
    let path = format!("{}/schedule", here.backups());
    let call = Call::new(method, path).key(here.manager_of(here.demo.deployment_id));
    let call = match body {
        Some(body) => call.json(body.to_string()),
        None => call,
    };
    here.send(call).await
}

/// Sets the demo's schedule.
async fn put(here: &Here, body: &Value) -> Result<()> {
    let reply = call(here, "PUT", Some(body)).await?;
    if reply.status == 204 { Ok(()) } else { fail(format!("PUT {body}: {reply:?}")) }
}

/// The demo's schedule.
async fn get(here: &Here) -> Result<Value> {
    Ok(call(here, "GET", None).await?.json())
}

/// Pushes the clock to just after the next slot, and ticks; as AWS does, twice.
async fn next_slot(here: &Here) -> Result<String> {
    let next = get(here).await?["next_run_at"].as_str().unwrap_or_default().to_owned();
    let at: jiff::Timestamp = next.parse()?;
    let left = at.duration_since(here.now().await?).as_secs() + 1;
    here.advance(u64::try_from(left)?).await?;
    here.tick().await?;
    here.tick().await?;
    Ok(next)
}

/// Hourly, half an hour from now: a test that moves the clock meets no slot that it does
/// not mean, whatever the time of day.
async fn hourly(here: &Here) -> Result<Value> {
    let minute = (here.now().await?.as_second() / 60 + 30) % 60;
    Ok(json!({"cron": format!("{minute} * * * *")}))
}

/// The demo's backups by id, oldest first: status and slot of each.
async fn kept(here: &Here) -> Result<Vec<(u64, String, String)>> {
    let all = here.list_of(here.demo.deployment_id).await?;
    let one = |one: &Value| {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        (one["id"].as_u64().unwrap_or_default(), text("status"), text("name"))
    };
    let mut kept: Vec<_> = all.iter().map(one).collect();
    kept.sort();
    Ok(kept)
}

/// What was announced of a kind, each id once.
async fn announced(here: &Here, kind: &str) -> Result<Vec<Value>> {
    let mut ids = BTreeSet::new();
    let all = here.announced(kind).await?;
    Ok(all.into_iter().filter(|one| ids.insert(one["announcement_id"].to_string())).collect())
}

#[tokio::test]
async fn a_schedule_is_set_read_and_deleted() -> Result<()> {
    let here = here().await?;
    assert_eq!(call(&here, "GET", None).await?.code(), "schedule_not_found");
    assert_eq!(call(&here, "DELETE", None).await?.code(), "schedule_not_found");
    put(&here, &json!({"cron": "  30 2 * * MON-FRI "})).await?;
    let set = get(&here).await?;
    let names: BTreeSet<&str> =
        set.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let all = [
        "cron",
        "timezone",
        "expires_in_days",
        "node_id",
        "enabled",
        "next_run_at",
        "last_run_at",
        "last_outcome",
    ];
    assert_eq!(names, all.into());
    assert_eq!((&set["cron"], &set["timezone"]), (&json!("30 2 * * MON-FRI"), &json!("UTC")));
    assert_eq!((&set["enabled"], &set["last_outcome"]), (&json!(true), &Value::Null));
    assert!(set["next_run_at"].as_str().is_some_and(|at| at.ends_with("T02:30:00Z")), "{set}");
    let node = here.demo.nodes[0].node_id;
    let body = json!({
        "cron": "0 4 * * 7", "timezone": "Asia/Kathmandu", "expires_in_days": 9,
        "node_id": node, "enabled": false,
    });
    put(&here, &body).await?;
    let set = get(&here).await?;
    for (name, value) in body.as_object().into_iter().flatten() {
        assert_eq!(set[name], *value, "{name}");
    }
    assert_eq!(set["next_run_at"], Value::Null, "it does not run");
    assert_eq!(call(&here, "DELETE", None).await?.status, 204);
    assert_eq!(call(&here, "GET", None).await?.code(), "schedule_not_found");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_no_schedule_can_be_is_refused_with_every_fault() -> Result<()> {
    let setup =
        Setup { parameters: vec![("MinScheduleMinutes".into(), "60".into())], ..Setup::default() };
    let here = Here::start(setup).await?;
    for (body, path, code) in [
        (json!({}), "cron", "required"),
        (json!({"cron": "0 0 30 2 *"}), "cron", "value"),
        (json!({"cron": "*/30 * * * *"}), "cron", "range"),
        (json!({"cron": "59 23,0 * * *"}), "cron", "value"),
        (json!({"cron": "0 0 * *"}), "cron", "value"),
        (json!({"cron": "@daily"}), "cron", "value"),
        (json!({"cron": 5}), "cron", "type"),
        (json!({"cron": "0 0 * * *", "timezone": "Berlin"}), "timezone", "value"),
        (json!({"cron": "0 0 * * *", "timezone": null}), "timezone", "type"),
        (json!({"cron": "0 0 * * *", "expires_in_days": 0}), "expires_in_days", "range"),
        (json!({"cron": "0 0 * * *", "enabled": 1}), "enabled", "type"),
        (json!({"cron": "0 0 * * *", "name": "n"}), "name", "unknown"),
    ] {
        let reply = call(&here, "PUT", Some(&body)).await?;
        if body["cron"] == "59 23,0 * * *" {
            // 60 minutes apart, over midnight: that is enough.
            assert_eq!(reply.status, 204, "{reply:?}");
            continue;
        }
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid_request"), "{reply:?}");
        let issue = &reply.json()["field_issues"][0];
        assert_eq!((&issue["path"], &issue["code"]), (&json!(path), &json!(code)), "{issue}");
    }
    let daily = json!({"cron": "0 0 * * *"});
    let mut elsewhere = daily.clone();
    elsewhere["node_id"] = json!(u64::MAX);
    assert_eq!(call(&here, "PUT", Some(&elsewhere)).await?.code(), "node_not_found");
    here.register(here.demo.deployment_id, 1_000, &json!({"plan": "basic"})).await?;
    assert_eq!(call(&here, "PUT", Some(&daily)).await?.code(), "plan_not_supported");
    assert_eq!(call(&here, "GET", None).await?.status, 200, "what is set can be read");
    assert_eq!(call(&here, "DELETE", None).await?.status, 204, "and deleted");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn each_slot_makes_one_backup_and_the_schedules_oldest_gives_way() -> Result<()> {
    let here = here().await?;
    // Two of people's, one of them posted as if it were a schedule's.
    here.create("by hand").await?;
    here.until_status(1, "completed").await?;
    let body = json!({"name": "posted", "backup_type": "scheduled"});
    here.create_on(here.demo.deployment_id, &body).await?;
    here.until_status(2, "completed").await?;
    let mut body = hourly(&here).await?;
    body["expires_in_days"] = json!(3);
    put(&here, &body).await?;
    let mut slots = Vec::new();
    for id in 3..=9 {
        let slot = next_slot(&here).await?;
        here.until_status(id, "completed").await?;
        let set = get(&here).await?;
        let outcome = json!({
            "slot": slot, "result": "completed", "code": null, "reason": null, "backup_id": id,
        });
        assert_eq!((&set["last_outcome"], &set["last_run_at"]), (&outcome, &json!(slot)));
        slots.push(slot);
        let rows = here.rest().await?;
        audit::demand(&here, &rows).await?;
        let kept = kept(&here).await?;
        assert!(kept.len() <= 5, "{kept:?}");
        assert_eq!((kept[0].0, kept[1].0), (1, 2), "what people asked for stays");
    }
    let names: Vec<String> = slots[4..].iter().map(|slot| format!("scheduled {slot}")).collect();
    let left: Vec<_> = kept(&here).await?.into_iter().skip(2).map(|(_, _, name)| name).collect();
    assert_eq!(left, names, "the newest three of the schedule");
    let told = announced(&here, "Backup Completed").await?;
    let of_slots: Vec<&str> = told.iter().filter_map(|one| one["schedule_slot"].as_str()).collect();
    assert_eq!(of_slots, slots);
    assert_eq!(announced(&here, "Scheduled Backup Skipped").await?.len(), 0);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_slot_that_cannot_run_is_recorded_and_announced() -> Result<()> {
    let here = here().await?;
    for id in 1..=5 {
        here.create("by hand").await?;
        here.until_status(id, "completed").await?;
    }
    put(&here, &hourly(&here).await?).await?;
    let slot = next_slot(&here).await?;
    let last = get(&here).await?["last_outcome"].clone();
    assert_eq!((&last["slot"], &last["result"]), (&json!(slot), &json!("skipped")));
    assert_eq!((&last["code"], &last["backup_id"]), (&json!("backup_limit_reached"), &Value::Null));
    let told = announced(&here, "Scheduled Backup Skipped").await?;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["schedule_slot"], &told[0]["status"]), (&json!(slot), &json!("skipped")));
    assert_eq!(told[0]["failure"]["code"], "backup_limit_reached");
    assert_eq!(told[0]["backup_type"], "scheduled");
    assert_eq!(kept(&here).await?.len(), 5);
    // A day's outage, and room again: only the latest slot runs, and the rest is told of.
    here.delete(1).await?;
    here.rest().await?;
    here.advance(86_400).await?;
    here.tick().await?;
    here.until_status(6, "completed").await?;
    let told = announced(&here, "Scheduled Backup Skipped").await?;
    let passed: BTreeSet<&str> = told[1..]
        .iter()
        .filter(|one| one["failure"]["code"] == "unavailable")
        .filter_map(|one| one["schedule_slot"].as_str())
        .collect();
    assert_eq!(passed.len(), 23, "each of the day's but the latest: {told:?}");
    assert_eq!(kept(&here).await?.len(), 5);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_due_slot_is_told_of_when_its_schedule_changes_and_a_schedule_goes_with_its_deployment()
-> Result<()> {
    let here = here().await?;
    put(&here, &hourly(&here).await?).await?;
    let slot = get(&here).await?["next_run_at"].clone();
    here.advance(1_900).await?;
    // No tick has come by now.
    put(&here, &json!({"cron": "0 4 1 1 *", "enabled": false})).await?;
    let last = get(&here).await?["last_outcome"].clone();
    assert_eq!((&last["result"], &last["code"]), (&json!("skipped"), &json!("superseded")));
    assert_eq!(last["slot"], slot);
    here.tick().await?;
    let told = announced(&here, "Scheduled Backup Skipped").await?;
    assert_eq!((told.len(), &told[0]["schedule_slot"]), (1, &slot));
    // Disabled it is never due: the control plane's word alone takes it away.
    let deployment = here.demo.deployment_id;
    let gone = json!({"version": 1_000, "deployment_id": deployment});
    here.put_event("supervisor.control-plane", "Deployment Deleted", &gone).await?;
    here.settle(20).await?;
    assert_eq!(call(&here, "GET", None).await?.code(), "deployment_not_found");
    here.register(deployment, 1_001, &json!({})).await?;
    assert_eq!(call(&here, "GET", None).await?.code(), "schedule_not_found");
    here.stop().await;
    Ok(())
}

/// The control plane's word comes in any order, and the end of a deployment may come when it is
/// back already.
#[tokio::test]
async fn a_schedule_does_not_come_back_with_its_deployment() -> Result<()> {
    let here = here().await?;
    let deployment = here.demo.deployment_id;
    for (round, late) in (1..).zip([false, true]) {
        for wanted in [hourly(&here).await?, json!({"cron": "0 4 1 1 *", "enabled": false})] {
            put(&here, &wanted).await?;
            let version = round * 1_000 + 2 * u64::from(wanted["enabled"] == false);
            let gone = json!({"version": version, "deployment_id": deployment});
            let said = here.put_event("supervisor.control-plane", "Deployment Deleted", &gone);
            if late {
                here.register(deployment, version + 1, &json!({})).await?;
                said.await?;
            } else {
                // Both on their way at once.
                said.await?;
                here.register(deployment, version + 1, &json!({})).await?;
            }
            here.settle(20).await?;
            let known = format!("{wanted}, late: {late}");
            assert_eq!(call(&here, "GET", None).await?.code(), "schedule_not_found", "{known}");
            assert_eq!(call(&here, "DELETE", None).await?.code(), "schedule_not_found", "{known}");
            here.advance(3_600).await?;
            here.tick().await?;
            assert_eq!(kept(&here).await?, [], "{known}");
        }
    }
    // What is set since then, to the same, is the new one's.
    let wanted = hourly(&here).await?;
    put(&here, &wanted).await?;
    here.register(deployment, 4_000, &json!({})).await?;
    put(&here, &wanted).await?;
    let gone = json!({"version": 3_999, "deployment_id": deployment});
    here.put_event("supervisor.control-plane", "Deployment Deleted", &gone).await?;
    here.settle(20).await?;
    next_slot(&here).await?;
    assert_eq!(kept(&here).await?.len(), 1);
    assert_eq!(announced(&here, "Scheduled Backup Skipped").await?, [] as [Value; 0]);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_slot_waits_for_what_runs_and_then_runs() -> Result<()> {
    let here = Here::start(Setup { speed: 1.0, ..Setup::default() }).await?;
    put(&here, &hourly(&here).await?).await?;
    let next: jiff::Timestamp =
        get(&here).await?["next_run_at"].as_str().unwrap_or_default().parse()?;
    let left = next.duration_since(here.now().await?).as_secs() - 5;
    here.advance(u64::try_from(left)?).await?;
    here.create("by hand").await?;
    here.seen(1, "in_progress").await?;
    let slot = next_slot(&here).await?;
    assert_eq!(get(&here).await?["last_outcome"], Value::Null, "nothing is decided yet");
    here.until_status(2, "completed").await?;
    let last = get(&here).await?["last_outcome"].clone();
    assert_eq!((&last["slot"], &last["result"]), (&json!(slot), &json!("completed")));
    assert_eq!(announced(&here, "Scheduled Backup Skipped").await?.len(), 0);
    here.stop().await;
    Ok(())
}

/// A release that was taken back has left a backup that this one does not know.
#[tokio::test]
async fn a_backup_that_cannot_be_read_keeps_neither_slot_nor_upgrade_waiting() -> Result<()> {
    let here = here().await?;
    let deployment = here.demo.deployment_id;
    for id in 1..=5 {
        here.create("by hand").await?;
        here.until_status(id, "completed").await?;
    }
    let row = json!({
        "pk": {"S": format!("DEPLOYMENT#{deployment}")},
        "sk": {"S": format!("BACKUP#{:020}", 3)},
        "deployment_id": {"N": deployment.to_string()}, "id": {"N": "3"},
        "status": {"S": "hibernating"},
    });
    here.put_item(&row).await?;
    upgrade(&here, deployment, "odd").await?;
    let told = answers(&here, "odd").await?;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1["failure"]["code"], "backup_limit_reached", "{told:?}");
    put(&here, &hourly(&here).await?).await?;
    let slot = next_slot(&here).await?;
    let last = get(&here).await?["last_outcome"].clone();
    assert_eq!((&last["slot"], &last["code"]), (&json!(slot), &json!("backup_limit_reached")));
    // Of those that can be read one gives way.
    here.register(deployment, 100, &json!({"backup_limit": 6})).await?;
    for id in [6, 7] {
        next_slot(&here).await?;
        here.until_status(id, "completed").await?;
    }
    here.until("the schedule's older one has given way", |rows, _| {
        !rows::backups(rows).contains_key(&(deployment, 6))
    })
    .await?;
    here.stop().await;
    Ok(())
}
