//! Faults on the table and on `PutEvents`: nothing can be said of them while
//! they stay, so all that counts is what holds once they are over.

use serde_json::json;
use tests::{Here, MANY, Result, Setup, audit, fail};

use crate::{Case, all, comes_to_its_end, met_by_a_backup, passing, stays};

const BROKEN: &str = "InternalServerError";

#[tokio::test(flavor = "multi_thread")]
async fn that_pass() -> Result<()> {
    let mut cases = Vec::new();
    for on in ["UpdateItem", "TransactWriteItems", "PutEvents", "PutItem", "GetItem"] {
        cases.extend(passing(on, &[if on == "PutEvents" { "InternalException" } else { BROKEN }]));
    }
    all(cases, met_by_a_backup).await
}

/// Met for minutes, then cleared. What was asked for before is not lost.
async fn met_for_minutes(here: Here, case: Case) -> Result<()> {
    // The writes of its beginning, or those that come after: `PutItem` and the
    // transactions are met by a backup under way, all others from the start.
    if !["TransactWriteItems", "PutItem"].contains(&case.on) {
        here.arm(&json!({"on": "bus", "do": "drop"})).await?;
    }
    let id = here.create("meets a fault").await?;
    here.arm(&case.fault()).await?;
    for _ in 0..3 {
        here.advance(100).await?;
        // A tick that cannot read the table fails; the next one starts anew.
        let _ = here.tick().await;
    }
    let struck = here.struck().await?;
    here.disarm().await?;
    if struck < 2 {
        return fail(format!("the faults struck {struck} times"));
    }
    here.until_status(id, "completed").await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    let calls = here.calls().await?;
    let sets = calls.iter().filter(|call| call["operation"] == "CreateSnapshots");
    let count = sets.filter(|call| call["outcome"] == "ok").count();
    here.stop().await;
    // One of each node, however long nobody could write down what came of it.
    if count == 3 { Ok(()) } else { fail(format!("{count} sets were made")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_stay_for_minutes() -> Result<()> {
    let mut cases = Vec::new();
    for on in ["UpdateItem", "TransactWriteItems", "PutItem", "GetItem", "Query"] {
        cases.extend([
            stays(on, "throttle", ""),
            stays(on, "error", BROKEN),
            stays(on, "error", "AccessDeniedException"),
        ]);
        if !["GetItem", "Query"].contains(&on) {
            cases.push(stays(on, "lose_reply", ""));
        }
    }
    cases.push(stays("PutEvents", "throttle", ""));
    cases.push(stays("PutEvents", "error", "InternalException"));
    all(cases, met_for_minutes).await
}

/// The bus refuses everything while a backup completes: it completes all the
/// same, and its announcements go out when the bus is back.
#[tokio::test]
async fn announcements_wait_for_the_bus() -> Result<()> {
    let here = Here::start(Setup { speed: 10.0, ..Setup::default() }).await?;
    let id = here.create("n").await?;
    here.seen(id, "in_progress").await?;
    here.arm(&json!({"on": "PutEvents", "do": "error", "times": MANY})).await?;
    here.until_status(id, "completed").await?;
    assert_eq!(here.announced("Backup Completed").await?.len(), 0);
    here.disarm().await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    crate::announced(&here, id, crate::End::Completed).await?;
    here.stop().await;
    Ok(())
}

/// The reply to a create is lost on its way from the table: it is told from
/// another's by its own mark, so one backup is made and its id is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_own_write_is_not_answered() -> Result<()> {
    let on = "TransactWriteItems";
    let cases = vec![Case::new(on, "lose_reply", "", 1), Case::new(on, "lose_reply", "", 2)];
    all(cases, |here, case| async move {
        here.arm(&case.fault()).await?;
        let id = here.create("once").await?;
        let count = here.list_of(here.demo.deployment_id).await?.len();
        if (id, count) != (1, 1) {
            return fail(format!("id {id}, {count} in the list"));
        }
        comes_to_its_end(&here, id, case).await?;
        here.stop().await;
        Ok(())
    })
    .await
}

/// Calls that hang, side by side.
#[tokio::test(flavor = "multi_thread")]
async fn that_hang() -> Result<()> {
    let cases = ["UpdateItem", "PutItem", "PutEvents"].map(|on| Case::new(on, "hang", "", 1));
    all(cases.to_vec(), |here, case| async move {
        here.arm(&json!({"on": "bus", "do": "drop"})).await?;
        let id = here.create("meets a fault").await?;
        here.arm(&case.fault()).await?;
        here.tick().await?;
        comes_to_its_end(&here, id, case).await?;
        here.stop().await;
        Ok(())
    })
    .await
}
