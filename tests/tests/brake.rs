//! The brake as an operator pulls it: what stands still, what goes on, and what of it all
//! counts when it is let go.

use serde_json::{Value, json};
use tests::http::Call;
use tests::{Failed, Here, Result, Setup, audit, fail};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

async fn here() -> Result<Here> {
    Here::start(Setup::default()).await
}

/// The calls of EC2 so far that may change something.
async fn writes(here: &Here) -> Result<Vec<String>> {
    let calls = here.calls().await?;
    let text = |call: &Value, name: &str| call[name].as_str().unwrap_or_default().to_owned();
    let of_ec2 = calls.iter().filter(|call| text(call, "service") == "ec2");
    Ok(of_ec2
        .map(|call| text(call, "operation"))
        .filter(|operation| !operation.starts_with("Describe"))
        .collect())
}

async fn schedule(here: &Here, method: &str, body: Option<&Value>) -> Result<Value> {
    let call = Call::new(method, format!("{}/schedule", here.backups()));
    let call = call.key(&here.demo.keys.manage);
    let call = match body {
        Some(body) => call.json(body.to_string()),
        None => call,
    };
    let reply = here.send(call).await?;
    match reply.status {
        200 => Ok(reply.json()),
        204 => Ok(Value::Null),
        _ => fail(format!("{method}: {reply:?}")),
    }
}

#[tokio::test]
async fn paused_writes_hold_a_backup_beyond_every_deadline() -> Result<()> {
    let here = here().await?;
    let said = here.admin(&["pause", "writes", "--why", "a storm"]).await?;
    assert!(said.contains("writes  paused since") && said.contains(": a storm"), "{said}");
    let id = here.create("one").await?;
    // An hour, where a quarter of one is given.
    here.minutes(60).await?;
    assert_eq!(here.status(id).await?, "pending");
    assert_eq!(writes(&here).await?, Vec::<String>::new());
    let said = here.admin(&["resume", "writes"]).await?;
    assert!(said.contains("writes  go on"), "{said}");
    here.until_status(id, "completed").await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    assert_eq!(here.announced("Backup Failed").await?.len(), 0);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn paused_deletions_leave_everything_that_would_go() -> Result<()> {
    let here = here().await?;
    let here = &here;
    // One that expires, one that a person deletes, three more up to the limit.
    let body = json!({"name": "short", "expires_in_days": 1});
    here.create_on(here.demo.deployment_id, &body).await?.backup()?;
    here.until_status(1, "completed").await?;
    for id in 2..=4 {
        here.create("more").await?;
        here.until_status(id, "completed").await?;
    }
    // And one of the schedule, which would give way.
    let minute = (here.now().await?.as_second() / 60 + 30) % 60;
    schedule(here, "PUT", Some(&json!({"cron": format!("{minute} * * * *")}))).await?;
    here.until_status(5, "completed").await?;
    let all = here.snapshots().await?.len();

    here.admin(&["pause", "deletions"]).await?;
    assert_eq!(here.delete(2).await?.status, 204);
    here.minutes(10).await?;
    assert_eq!(here.status(2).await?, "deleting");
    here.create("room for one").await?;
    here.until_status(6, "completed").await?;
    here.advance(2 * DAY).await?;
    here.minutes(10).await?;
    assert_eq!(here.status(1).await?, "completed", "it may yet be kept");
    let told = |set: &Value| set["last_outcome"]["code"].clone();
    let set = schedule(here, "GET", None).await?;
    assert_eq!(told(&set), "unavailable", "the latest slot waits: {set}");
    here.minutes(61).await?;
    let set = schedule(here, "GET", None).await?;
    assert_eq!(told(&set), "backup_limit_reached", "until the next one comes: {set}");
    assert!(!writes(here).await?.iter().any(|one| one.starts_with("Delete")));
    assert_eq!(here.snapshots().await?.len(), all + all / 5);
    let snapshot = here.snapshots().await?.into_keys().next().unwrap_or_default();
    let removed = here.admin(&["orphans", "remove", &snapshot, "--yes"]).await;
    let Err(Failed(said)) = removed else { return fail("removed") };
    assert!(said.contains("are paused: resume them first"), "{said}");

    schedule(here, "DELETE", None).await?;
    here.admin(&["resume", "deletions"]).await?;
    let rows = here.rest().await?;
    assert_eq!((here.status(1).await?, here.status(2).await?), (String::new(), String::new()));
    audit::demand(here, &rows).await
}

#[tokio::test]
async fn paused_schedules_are_an_outage_of_schedules_alone() -> Result<()> {
    let here = here().await?;
    let minute = (here.now().await?.as_second() / 60 + 30) % 60;
    schedule(&here, "PUT", Some(&json!({"cron": format!("{minute} * * * *")}))).await?;
    here.admin(&["pause", "schedules"]).await?;
    here.advance(5 * HOUR).await?;
    here.minutes(3).await?;
    assert_eq!(here.list_of(here.demo.deployment_id).await?, Vec::<Value>::new());
    assert_eq!(here.announced("Scheduled Backup Skipped").await?.len(), 0);
    here.create("by hand").await?;
    here.until_status(1, "completed").await?;
    here.admin(&["resume", "schedules"]).await?;
    here.tick().await?;
    here.until_status(2, "completed").await?;
    let list = here.list_of(here.demo.deployment_id).await?;
    assert_eq!(list.len(), 2, "the latest slot alone runs: {list:?}");
    assert!(!here.announced("Scheduled Backup Skipped").await?.is_empty());
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_brake_is_shown_as_it_is_and_refuses_what_means_nothing() -> Result<()> {
    let here = here().await?;
    let shown = |text: String| serde_json::from_str::<Value>(&text);
    let none = json!({"deletions": null, "schedules": null, "writes": null});
    assert_eq!(shown(here.admin(&["brake", "--json"]).await?)?, none);
    for bad in [
        &["pause", "everything"][..],
        &["pause", "deletions", "--even-restores"],
        &["pause"],
        &["resume"],
        &["resume", "all"],
        &["pause", "writes", "--why", ""],
        &["pause", "writes", "--why", "two\nlines"],
    ] {
        assert!(here.admin(bad).await.is_err(), "{bad:?}");
    }
    assert_eq!(shown(here.admin(&["brake", "--json"]).await?)?, none);
    here.admin(&["pause", "writes", "--even-restores", "--why", "drill"]).await?;
    // A flag that is left out lets nobody go, and a reason may be left out too.
    here.admin(&["pause", "writes"]).await?;
    here.admin(&["pause", "schedules"]).await?;
    let on = shown(here.admin(&["brake", "--json"]).await?)?;
    assert_eq!(
        (&on["writes"]["even_restores"], &on["writes"]["why"]),
        (&json!(true), &json!("drill"))
    );
    assert!(on["writes"]["since"].is_string() && on["deletions"].is_null(), "{on}");
    here.admin(&["resume", "writes", "schedules", "deletions"]).await?;
    assert_eq!(shown(here.admin(&["brake", "--json"]).await?)?, none);
    here.stop().await;
    Ok(())
}
