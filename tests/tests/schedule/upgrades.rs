//! Backups before upgrades, and their answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{Here, MANY, Result, Setup};

use super::{here, kept};

/// Asks for the backup before an upgrade.
pub(super) async fn upgrade(here: &Here, deployment: u64, id: &str) -> Result<()> {
    ask(here, deployment, id).await?;
    here.settle(60).await
}

/// The same, without waiting for what comes of it.
async fn ask(here: &Here, deployment: u64, id: &str) -> Result<()> {
    let detail = json!({"deployment_id": deployment, "upgrade_id": id});
    here.put_event("supervisor.control-plane", "Deployment Upgrade Requested", &detail).await
}

/// The answers to an upgrade: kind and announcement, doubles and all.
pub(super) async fn answers(here: &Here, id: &str) -> Result<Vec<(&'static str, Value)>> {
    let mut all = Vec::new();
    for kind in ["Backup Completed", "Backup Failed"] {
        let told = here.announced(kind).await?;
        let ours = told.into_iter().filter(|one| one["upgrade_id"] == id);
        all.extend(ours.map(|one| (kind, one)));
    }
    Ok(all)
}

#[tokio::test]
async fn an_upgrade_gets_its_backup_and_its_answer_as_often_as_it_asks() -> Result<()> {
    let here = here().await?;
    let deployment = here.demo.deployment_id;
    // By then the deployment may not be ready any more.
    here.register(deployment, 1_000, &json!({"status": "upgrading"})).await?;
    upgrade(&here, deployment, "u-1").await?;
    here.until_status(1, "completed").await?;
    here.rest().await?;
    let shown = here.shown(1).await?.unwrap_or_default();
    assert_eq!(
        (&shown["name"], &shown["backup_type"]),
        (&json!("before upgrade u-1"), &json!("pre_upgrade"))
    );
    let first = answers(&here, "u-1").await?;
    assert!(!first.is_empty());
    upgrade(&here, deployment, "u-1").await?;
    let again = answers(&here, "u-1").await?;
    assert!(again.len() > first.len(), "it is answered again");
    let ids: BTreeSet<_> =
        again.iter().map(|(_, one)| one["announcement_id"].to_string()).collect();
    assert_eq!((ids.len(), again[0].0), (1, "Backup Completed"));
    assert!(again.iter().all(|(_, one)| *one == again[0].1), "to the letter: {again:?}");
    assert_eq!(kept(&here).await?.len(), 1, "one backup for an id, ever");
    // Also when it is long deleted.
    here.delete(1).await?;
    here.rest().await?;
    upgrade(&here, deployment, "u-1").await?;
    assert!(answers(&here, "u-1").await?.len() > again.len());
    assert_eq!(kept(&here).await?, []);
    here.stop().await;
    Ok(())
}

/// While the table does not answer, for longer than Lambda tries an event, the request waits.
#[tokio::test]
async fn an_upgrade_that_is_asked_for_while_the_table_is_down_is_answered() -> Result<()> {
    let here = here().await?;
    let code = "InternalServerError";
    here.arm(&json!({"on": "GetItem", "do": "error", "code": code, "times": MANY})).await?;
    ask(&here, here.demo.deployment_id, "u-1").await?;
    for _ in 0..20 {
        here.advance(200).await?;
    }
    assert!(here.struck().await? > 10, "it is tried all the time");
    here.disarm().await?;
    here.advance(200).await?;
    here.until_status(1, "completed").await?;
    here.rest().await?;
    assert_eq!(answers(&here, "u-1").await?[0].0, "Backup Completed");
    assert_eq!(here.local("GET", "dead_letters", &Value::Null).await?, json!([]));
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_upgrade_is_answered_when_its_backup_cannot_even_start() -> Result<()> {
    let here = here().await?;
    let deployment = here.demo.deployment_id;
    upgrade(&here, 404, "nowhere").await?;
    let told = answers(&here, "nowhere").await?;
    assert_eq!((told.len(), told[0].0), (1, "Backup Failed"), "{told:?}");
    let detail = &told[0].1;
    assert_eq!(detail["failure"]["code"], "deployment_not_found");
    assert_eq!((&detail["tenant_id"], &detail["backup_id"]), (&Value::Null, &Value::Null));
    for id in 1..=5 {
        here.create("by hand").await?;
        here.until_status(id, "completed").await?;
    }
    upgrade(&here, deployment, "full").await?;
    let told = answers(&here, "full").await?;
    assert_eq!(told[0].1["failure"]["code"], "backup_limit_reached", "{told:?}");
    assert_eq!(told[0].1["tenant_id"], json!(here.demo.tenant_id));
    // A malformed one changes nothing.
    let rows = here.rows().await?.len();
    upgrade(&here, deployment, "").await?;
    assert_eq!(here.rows().await?.len(), rows);
    here.stop().await;
    Ok(())
}

/// Somebody has written by hand into the deployment's row, and nobody comes.
#[tokio::test]
async fn an_upgrade_of_a_deployment_that_cannot_be_read_is_answered_all_the_same() -> Result<()> {
    let here = Here::start(Setup { speed: 1.0, ..Setup::default() }).await?;
    let deployment = here.demo.deployment_id;
    let update = json!({
        "TableName": here.demo.table,
        "Key": {"pk": {"S": format!("DEPLOYMENT#{deployment}")}, "sk": {"S": "META"}},
        "UpdateExpression": "SET backup_count = :many",
        "ExpressionAttributeValues": {":many": {"S": "many"}},
    });
    here.aws("dynamodb", "DynamoDB_20120810.UpdateItem", &update).await?;
    ask(&here, deployment, "u").await?;
    for minute in 0..14 {
        assert_eq!(answers(&here, "u").await?, [], "minute {minute}");
        here.advance(60).await?;
        here.tick().await?;
    }
    here.advance(90).await?;
    here.tick().await?;
    let told = answers(&here, "u").await?;
    assert_eq!((told.len(), told[0].0), (1, "Backup Failed"), "{told:?}");
    assert_eq!(told[0].1["failure"]["code"], "unavailable");
    assert_eq!(here.local("GET", "dead_letters", &Value::Null).await?, json!([]));
    here.stop().await;
    Ok(())
}

/// A release that was taken back cannot read the request when its backup ends.
#[tokio::test]
async fn an_upgrade_that_missed_its_backups_end_is_answered_when_it_asks_again() -> Result<()> {
    let here = here().await?;
    let deployment = here.demo.deployment_id;
    let set = async |state: &str| {
        let update = json!({
            "TableName": here.demo.table,
            "Key": {"pk": {"S": format!("DEPLOYMENT#{deployment}")}, "sk": {"S": "UPGRADE#u"}},
            "UpdateExpression": "SET #state = :state",
            "ExpressionAttributeNames": {"#state": "state"},
            "ExpressionAttributeValues": {":state": {"S": state}},
        });
        here.aws("dynamodb", "DynamoDB_20120810.UpdateItem", &update).await
    };
    let code = "InternalError";
    here.arm(&json!({"on": "DescribeSnapshots", "do": "error", "code": code, "times": MANY}))
        .await?;
    ask(&here, deployment, "u").await?;
    here.seen(1, "in_progress").await?;
    set("of a later release").await?;
    here.disarm().await?;
    here.until_status(1, "completed").await?;
    here.settle(60).await?;
    // A telling may come twice, as any event on the bus.
    let told = async || {
        let mut told = answers(&here, "u").await?;
        let all = told.len();
        told.dedup();
        Ok::<_, tests::Failed>((told, all))
    };
    assert_eq!(told().await?.0.len(), 1, "the backup's own");
    set("running").await?;
    upgrade(&here, deployment, "u").await?;
    let (first, count) = told().await?;
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!((first[1].0, &first[1].1["backup_id"]), ("Backup Completed", &json!(1)));
    upgrade(&here, deployment, "u").await?;
    let (again, more) = told().await?;
    assert!(again == first && more > count, "the same again: {again:?}");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_upgrade_waits_a_quarter_of_an_hour_for_a_busy_slot() -> Result<()> {
    let here = Here::start(Setup { speed: 1.0, ..Setup::default() }).await?;
    let deployment = here.demo.deployment_id;
    here.create("by hand").await?;
    here.seen(1, "in_progress").await?;
    // Its snapshots never end.
    here.arm(&json!({"on": "DescribeSnapshots", "do": "error", "code": "InternalError", "times": 1_000_000}))
        .await?;
    ask(&here, deployment, "busy").await?;
    for minute in 0..14 {
        assert_eq!(answers(&here, "busy").await?, [], "minute {minute}");
        here.advance(60).await?;
        here.tick().await?;
    }
    here.advance(90).await?;
    here.tick().await?;
    let told = answers(&here, "busy").await?;
    assert_eq!((told.len(), told[0].0), (1, "Backup Failed"), "{told:?}");
    assert_eq!(told[0].1["failure"]["code"], "backup_in_progress");
    here.stop().await;
    Ok(())
}
