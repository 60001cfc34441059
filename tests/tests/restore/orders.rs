//! An operator's orders, as they are typed: retry, roll-back, roll-forward, release.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Failed, Here, Result, fail};

use super::{all_say, backed_up, get, over, refused, restore, row, starting, until};

/// An operator's order about restore 1.
async fn admin(here: &Here, order: &str) -> Result<String> {
    let deployment = here.demo.deployment_id.to_string();
    here.admin(&["restore", order, &deployment, "1", "--wait", "60"]).await
}

/// A restore that is stuck: one node runs on the backup's data, the start of another is
/// refused.
async fn stuck() -> Result<Here> {
    let here = starting("InvalidParameterCombination").await?;
    here.advance(60).await?;
    let one = until(&here, "restores/1", |one| one["status"] == "stuck").await?;
    assert_eq!(one["failure"]["code"], "start_failed", "{one}");
    Ok(here)
}

#[tokio::test]
async fn an_operator_lets_a_stuck_restore_go_on() -> Result<()> {
    let here = Box::pin(stuck()).await?;
    // It holds what it held.
    refused(&here.delete(1).await?, 409, "restore_in_progress");
    let Err(Failed(said)) = admin(&here, "release").await else { return fail("released") };
    assert!(said.contains("not done: Node") && said.contains("start it first"), "{said}");
    here.disarm().await?;
    let said = admin(&here, "retry").await?;
    assert!(said.contains("done: restore 1 is in_progress"), "{said}");
    let done = over(&here).await?;
    assert_eq!((&done["status"], &done["failure"]), (&json!("completed"), &Value::Null));
    all_say(&here, "first").await?;
    let Err(Failed(said)) = admin(&here, "roll-back").await else { return fail("rolled back") };
    assert!(said.contains("not done: the restore is over: completed"), "{said}");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_order_in_the_middle_of_a_call_waits_for_it() -> Result<()> {
    let here = backed_up().await?;
    // The dry run of each stop comes first.
    let dry = json!({"on": "StopInstances", "do": "error", "code": "DryRunOperation", "times": 3});
    here.arm(&dry).await?;
    here.arm(&json!({"on": "StopInstances", "do": "hang", "times": 1})).await?;
    assert_eq!(restore(&here, &Value::Null).await?.status, 204);
    for _ in 0..600 {
        if !row(&here).await?["touched_at"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(row(&here).await?["lease"].is_object(), "a call is under way");
    let said = admin(&here, "roll-back").await?;
    assert!(said.contains("done: restore 1"), "{said}");
    let done = over(&here).await?;
    assert_eq!(done["failure"]["code"], "superseded", "{done}");
    all_say(&here, "second").await?;
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_order_that_cannot_be_read_or_has_no_restore_is_a_dead_letter() -> Result<()> {
    let here = backed_up().await?;
    let deployment = here.demo.deployment_id;
    let order = |change: Value| {
        let mut order = json!({
            "version": 1, "order_id": "o", "deployment_id": deployment, "restore_id": 1,
            "order": "retry",
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            order[name] = value.clone();
        }
        order
    };
    let wrong = [
        (json!({}), "no such restore"),
        (json!({"version": 2}), "version 2 is not known"),
        (json!({"order_id": "o".repeat(65)}), "1 to 64 bytes"),
        (json!({"order_id": ""}), "1 to 64 bytes"),
        (json!({"force": true}), "unknown field `force`"),
        (json!({"order": "forward"}), "unknown variant `forward`"),
    ];
    for (change, _) in &wrong {
        let detail = order(change.clone());
        here.put_event("supervisor.backups", "Restore Ordered", &detail).await?;
    }
    for _ in 0..300 {
        // Lambda tries each twice more, minutes apart.
        here.advance(120).await?;
        let letters = here.local("GET", "dead_letters", &Value::Null).await?.to_string();
        if wrong.iter().all(|(_, why)| letters.contains(why)) {
            here.stop().await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fail(here.local("GET", "dead_letters", &Value::Null).await?.to_string())
}

#[tokio::test]
async fn an_operator_calls_a_stuck_restore_back() -> Result<()> {
    let here = Box::pin(stuck()).await?;
    here.disarm().await?;
    admin(&here, "roll-back").await?;
    let done = over(&here).await?;
    assert_eq!(done["status"], "rolled_back", "{done}");
    all_say(&here, "second").await?;
    // What was written to the new volumes is not lost.
    here.advance(30 * 24 * 3600).await?;
    here.tick().await?;
    let state = here.state().await?;
    let volumes = state["volumes"].as_array().cloned().unwrap_or_default();
    let kept = volumes
        .iter()
        .filter(|one| one["content"].as_str().unwrap_or_default().starts_with("first "));
    assert_eq!(kept.count(), 6);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_pause_of_writes_lets_a_restore_past_its_first_stop_go_on_to_its_end() -> Result<()> {
    let here = starting("InsufficientInstanceCapacity").await?;
    here.admin(&["pause", "writes"]).await?;
    here.disarm().await?;
    here.advance(60).await?;
    super::completes(&here).await?;
    // And the next one waits before it touches anything.
    assert_eq!(restore(&here, &Value::Null).await?.status, 204);
    until(&here, "restores/2", |one| one["phase"] == "preparing").await?;
    here.minutes(30).await?;
    let held = get(&here, "restores/2").await?.json();
    let stands = (&held["status"], &held["phase"], &held["stopped_at"]);
    assert_eq!(stands, (&json!("in_progress"), &json!("preparing"), &Value::Null), "{held}");
    here.admin(&["resume", "writes"]).await?;
    until(&here, "restores/2", |one| one["status"] == "completed").await?;
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_pause_that_holds_even_restores_holds_one_in_its_downtime() -> Result<()> {
    let here = starting("InsufficientInstanceCapacity").await?;
    here.admin(&["pause", "writes", "--even-restores"]).await?;
    let calls = async || -> Result<usize> {
        let calls = here.calls().await?;
        Ok(calls.iter().filter(|one| one["operation"] == "StartInstances").count())
    };
    // Whoever had begun before it is done: two hand-overs of the worker.
    here.minutes(2).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = calls().await?;
    here.disarm().await?;
    // Beyond the deadline of a start.
    here.minutes(45).await?;
    let held = get(&here, "restores/1").await?.json();
    assert_eq!(
        (&held["status"], &held["failure"]),
        (&json!("in_progress"), &Value::Null),
        "{held}"
    );
    assert_eq!(calls().await?, before);
    here.admin(&["resume", "writes"]).await?;
    super::completes(&here).await?;
    here.stop().await;
    Ok(())
}
