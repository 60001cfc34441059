//! Faults on the calls of EC2 that make a backup.

use serde_json::json;
use tests::{Here, MANY, Result, Setup, audit};

use crate::{Case, all, passing, stays};

const DENIED: &str = "UnauthorizedOperation";

#[tokio::test(flavor = "multi_thread")]
async fn met_by_a_backup() -> Result<()> {
    let cases = [create_snapshots(), describe_snapshots(), describe_instances_and_volumes()];
    all(cases.concat(), crate::met_by_a_backup).await
}

fn create_snapshots() -> Vec<Case> {
    let on = "CreateSnapshots";
    let mut cases = passing(on, &["InternalError", "Unavailable"]);
    // Every reply is lost, and every set is found by its tags.
    cases.push(stays(on, "lose_reply", ""));
    cases.extend([
        stays(on, "throttle", "").fails(5 * 60, "deadline_exceeded", "RequestLimitExceeded"),
        stays(on, "error", "InternalError").fails(0, "snapshot_failed", "InternalError"),
        stays(on, "error", "ConcurrentSnapshotLimitExceeded").fails(
            5 * 60,
            "deadline_exceeded",
            "ConcurrentSnapshotLimitExceeded",
        ),
        // What AWS refuses is not asked for again.
        stays(on, "error", DENIED).fails(0, "permission_denied", DENIED),
        Case::new(on, "error", DENIED, 1).fails(0, "permission_denied", "role"),
        Case::new(on, "error", "SnapshotLimitExceeded", 1).fails(0, "quota", "quota"),
        Case::new(on, "error", "InvalidParameterValue", 1).fails(0, "snapshot_failed", on),
        // One of six fails, and the whole backup does.
        Case::new(on, "fail_later", "", 1).fails(0, "snapshot_failed", "create it again"),
        stays(on, "fail_later", "").fails(0, "snapshot_failed", "snap-"),
    ]);
    cases
}

fn describe_snapshots() -> Vec<Case> {
    let on = "DescribeSnapshots";
    let mut cases = passing(on, &["InternalError", DENIED]);
    let day = 25 * 60;
    cases.extend([
        stays(on, "throttle", "").fails(day, "deadline_exceeded", "RequestLimitExceeded"),
        stays(on, "error", "InternalError").fails(day, "deadline_exceeded", "InternalError"),
        stays(on, "error", DENIED).fails(day, "deadline_exceeded", DENIED),
        stays(on, "lose_reply", "").fails(day, "deadline_exceeded", "24 hours"),
    ]);
    cases
}

fn describe_instances_and_volumes() -> Vec<Case> {
    let mut cases = Vec::new();
    for on in ["DescribeInstances", "DescribeVolumes"] {
        cases.extend(passing(on, &["InternalError", DENIED]));
        cases.extend([
            stays(on, "throttle", "").fails(5 * 60, "deadline_exceeded", "RequestLimitExceeded"),
            stays(on, "error", "InternalError").fails(16, "deadline_exceeded", "InternalError"),
            stays(on, "error", DENIED).fails(16, "deadline_exceeded", DENIED),
            stays(on, "lose_reply", "").fails(16, "deadline_exceeded", "15 minutes"),
        ]);
    }
    cases
}

/// The reply is lost, and the set that nobody heard of fails: it is not taken
/// for the backup's, and it does not stay.
#[tokio::test]
async fn a_set_that_nobody_heard_of_and_that_fails() -> Result<()> {
    // So fast that it has failed before it is looked for.
    let here = Here::start(Setup { speed: 100_000.0, ..Setup::default() }).await?;
    here.arm(&json!({"on": "CreateSnapshots", "do": "lose_reply", "times": 3})).await?;
    here.arm(&json!({"on": "CreateSnapshots", "do": "fail_later", "times": 1})).await?;
    let id = here.create("n").await?;
    here.until_status(id, "completed").await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    let calls = here.calls().await?;
    let made = calls.iter().filter(|call| call["operation"] == "CreateSnapshots").count();
    assert_eq!(made, 4, "two sets are adopted, and one is made anew");
    here.stop().await;
    Ok(())
}

/// Every reply is lost and nothing can be looked at: it fails by its deadline
/// without knowing what it made, and removes that all the same.
#[tokio::test]
async fn what_a_failed_one_never_knew_of_is_removed_too() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    here.arm(&json!({"on": "CreateSnapshots", "do": "lose_reply", "times": MANY})).await?;
    here.arm(&json!({"on": "DescribeSnapshots", "do": "error", "times": MANY})).await?;
    let id = here.create("n").await?;
    here.advance(16 * 60).await?;
    here.tick().await?;
    here.until_status(id, "failed").await?;
    assert_eq!(here.snapshots().await?.len(), 6);
    here.disarm().await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    assert_eq!(here.snapshots().await?.len(), 0);
    here.stop().await;
    Ok(())
}

/// No answer within the caller's time-out of 15 s: as few as possible, side by side.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_hang() -> Result<()> {
    let stays = stays("CreateSnapshots", "hang", "");
    let mut cases = vec![stays.fails(16, "deadline_exceeded", "15 minutes")];
    let once = ["CreateSnapshots", "DescribeSnapshots", "DescribeInstances", "DescribeVolumes"];
    cases.extend(once.map(|on| Case::new(on, "hang", "", 1)));
    all(cases, crate::met_by_a_backup).await
}
