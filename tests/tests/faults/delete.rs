//! Faults on the calls that remove a backup.

use serde_json::json;
use tests::{Here, MANY, Result, audit, fail, rows};

use crate::{Case, all, is_told, passing, stays, struck};

const DENIED: &str = "UnauthorizedOperation";

/// A completed backup whose delete meets the fault: gone, once it has passed.
async fn met_by_a_delete(here: Here, case: Case) -> Result<()> {
    let id = here.create("to be deleted").await?;
    here.until_status(id, "completed").await?;
    here.arm(&case.fault()).await?;
    let reply = here.delete(id).await?;
    if reply.status != 204 {
        return fail(format!("the delete: {} {}", reply.status, reply.text));
    }
    struck(&here).await?;
    if case.times == MANY {
        // An hour on, it is still there and says why; its snapshots are too.
        for _ in 0..4 {
            here.advance(15 * 60).await?;
            here.tick().await?;
        }
        let rows = here.rows().await?;
        let backups = rows::backups(&rows);
        let row = backups.get(&(here.demo.deployment_id, id)).copied();
        let row = row.map(|row| row.0.clone()).unwrap_or_default();
        if row["status"] != "deleting" {
            return fail(format!("it is {} while its snapshots cannot be deleted", row["status"]));
        }
        if let crate::End::Failed(code, word) = case.end {
            is_told(&row["failure"], code, word)?;
        }
    }
    here.disarm().await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    if !here.status(id).await?.is_empty() || !here.snapshots().await?.is_empty() {
        return fail("it did not go");
    }
    let told = here.announced("Backup Deleted").await?;
    here.stop().await;
    if told.is_empty() { fail("Backup Deleted was not announced") } else { Ok(()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn met_by_a_users_delete() -> Result<()> {
    let cases = [delete_snapshot(), describe_snapshots(), the_table_and_the_bus()];
    all(cases.concat(), met_by_a_delete).await
}

fn delete_snapshot() -> Vec<Case> {
    let on = "DeleteSnapshot";
    let mut cases = passing(on, &["InternalError", DENIED, "InvalidSnapshot.InUse"]);
    cases.extend([
        stays(on, "throttle", ""),
        stays(on, "error", "InternalError"),
        stays(on, "error", DENIED).fails(0, "permission_denied", DENIED),
        stays(on, "error", "InvalidSnapshot.InUse").fails(0, "snapshot_in_use", "AMI"),
        stays(on, "error", "OperationNotPermitted").fails(0, "snapshot_locked", "lock"),
        // Deleted, though nobody said so.
        Case::new(on, "lose_reply", "", 100),
        Case::new(on, "hang", "", 1),
    ]);
    cases
}

fn describe_snapshots() -> Vec<Case> {
    let on = "DescribeSnapshots";
    let mut cases = passing(on, &["InternalError", DENIED]);
    cases.extend([
        stays(on, "throttle", ""),
        stays(on, "error", "InternalError"),
        stays(on, "error", DENIED),
    ]);
    cases
}

fn the_table_and_the_bus() -> Vec<Case> {
    let mut cases = Vec::new();
    for on in ["UpdateItem", "TransactWriteItems", "PutEvents", "DeleteItem"] {
        cases.extend(passing(on, &[]));
    }
    cases
}

/// What fails removes what it made, whatever stands against that for a while.
async fn met_by_the_removal_of_a_failed_one(here: Here, case: Case) -> Result<()> {
    here.arm(&json!({"on": "CreateSnapshots", "do": "fail_later"})).await?;
    here.arm(&case.fault()).await?;
    let id = here.create("fails").await?;
    here.until_status(id, "failed").await?;
    // The slot is free at once.
    let next = here.create("the next").await?;
    for _ in 0..3 {
        here.advance(60).await?;
        here.tick().await?;
    }
    // Its row stays while something of it is there, also through a delete.
    let deleted = here.delete(id).await?.status;
    if deleted != 204 {
        return fail(format!("the delete of the failed one: {deleted}"));
    }
    if case.times == MANY && here.status(id).await? != "deleting" {
        return fail("its row went before its snapshots");
    }
    here.disarm().await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    if here.status(next).await? != "completed" || !here.status(id).await?.is_empty() {
        return fail("the failed one is still there, or the next one is not completed");
    }
    here.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_of_what_a_failed_one_made() -> Result<()> {
    let on = "DeleteSnapshot";
    let cases = vec![
        Case::new(on, "throttle", "", 2),
        Case::new(on, "error", "InternalError", 2),
        Case::new(on, "lose_reply", "", 2),
        stays(on, "throttle", ""),
        stays(on, "error", DENIED),
        stays(on, "error", "InvalidSnapshot.InUse"),
    ];
    all(cases, met_by_the_removal_of_a_failed_one).await
}
