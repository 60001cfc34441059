//! A completed backup whose snapshot somebody has deleted is called failed, in time and
//! not before.

use super::*;
use tests::MANY;

/// Somebody deletes one of the backup's snapshots; the next run has seen it.
async fn noticed(here: &Here) -> Result<String> {
    let gone = backup(here, 1).await?.snapshots()[0].0.clone();
    here.local("POST", "delete", &json!({"snapshot_id": gone})).await?;
    let run = next_run(here).await?;
    assert_eq!(run["missing"], 1, "{run}");
    let row = backup(here, 1).await?;
    assert_eq!(row.text("status"), "completed", "one answer is no proof");
    assert_eq!(row.0["missing"]["snapshot_id"], gone.as_str());
    Ok(gone)
}

#[tokio::test]
async fn a_snapshot_deleted_by_hand_fails_its_backup_after_two_answers_an_hour_apart() -> Result<()>
{
    let here = backed_up().await?;
    let all = snapshots(&here).await?;
    let gone = noticed(&here).await?;
    assert_eq!(counted(&here).await?, 1);
    here.advance(HOUR - 120).await?;
    here.tick().await?;
    assert_eq!(here.status(1).await?, "completed", "not before the hour is over");
    here.advance(600).await?;
    here.tick().await?;
    here.settle(60).await?;

    let row = backup(&here, 1).await?;
    assert_eq!((row.text("status"), &row.0["completed_at"]), ("failed", &Value::Null));
    assert_eq!(row.0["failure"]["code"], "snapshot_missing");
    assert_eq!(counted(&here).await?, 0, "the limit has a place again");
    let told = here.announced("Backup Failed").await?;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["failure"]["code"], "snapshot_missing");

    // Days later its other snapshots are there, and it is told no more.
    for _ in 0..3 {
        let run = next_run(&here).await?;
        assert_eq!((&run["missing"], &run["snapshots"]), (&json!(0), &json!(0)), "{run}");
    }
    let left: BTreeSet<_> = all.iter().filter(|id| **id != gone).cloned().collect();
    assert_eq!(snapshots(&here).await?, left);
    assert_eq!(here.announced("Backup Failed").await?.len(), 1);

    // Its user deletes it: then they go.
    assert_eq!(here.delete(1).await?.status, 204);
    for _ in 0..20 {
        here.advance(120).await?;
        here.tick().await?;
    }
    assert_eq!(snapshots(&here).await?, BTreeSet::new());
    assert_eq!(here.status(1).await?, "");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_error_or_a_missing_right_fails_no_backup() -> Result<()> {
    let here = backed_up().await?;
    noticed(&here).await?;
    // The second answer does not come.
    let denied = json!({
        "on": "DescribeSnapshots", "do": "error", "code": "UnauthorizedOperation", "times": MANY,
    });
    here.arm(&denied).await?;
    for _ in 0..30 {
        here.advance(HOUR).await?;
        here.tick().await?;
    }
    assert_eq!(here.status(1).await?, "completed");
    let stuck = row(&here).await?;
    assert!(stuck["run"].is_object() && stuck["trouble"].is_string(), "{stuck}");
    here.disarm().await?;
    let run = next_run(&here).await?;
    assert_eq!(run["missing"], 0, "it is remembered already: {run}");
    assert_eq!(here.status(1).await?, "failed");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_backup_that_a_restore_needs_is_not_called_failed() -> Result<()> {
    let here = backed_up().await?;
    noticed(&here).await?;
    let (pk, sk) = (format!("DEPLOYMENT#{}", here.demo.deployment_id), format!("BACKUP#{:020}", 1));
    let pin = json!({
        "UpdateExpression": "SET pinned_by = :one ADD revision :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    });
    update(&here, &pk, &sk, pin).await?;
    for _ in 0..5 {
        here.advance(HOUR).await?;
        here.tick().await?;
    }
    assert_eq!(here.status(1).await?, "completed");
    let unpin = json!({
        "UpdateExpression": "REMOVE pinned_by ADD revision :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    });
    update(&here, &pk, &sk, unpin).await?;
    here.advance(HOUR).await?;
    here.tick().await?;
    here.settle(60).await?;
    assert_eq!(here.status(1).await?, "failed");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn failed_backups_that_are_pruned_are_not_those_that_lost_a_snapshot() -> Result<()> {
    let here = backed_up().await?;
    noticed(&here).await?;
    here.advance(2 * HOUR).await?;
    here.tick().await?;
    assert_eq!(here.status(1).await?, "failed");
    let left = snapshots(&here).await?;
    let quota = json!({
        "on": "CreateSnapshots", "do": "error", "code": "SnapshotLimitExceeded", "times": MANY,
    });
    here.arm(&quota).await?;
    for number in 0..22 {
        here.create(&format!("failing {number}")).await?;
        for _ in 0..200 {
            if here.in_flight().await?.is_empty() {
                break;
            }
            here.advance(60).await?;
            here.tick().await?;
        }
    }
    let list = here.list_of(here.demo.deployment_id).await?;
    let failed: Vec<u64> = list
        .iter()
        .filter(|one| one["status"] == "failed")
        .filter_map(|one| one["id"].as_u64())
        .collect();
    // Twenty, the oldest two of the others went, and the first is not among them.
    let kept: Vec<u64> = (4..=23).rev().chain([1]).collect();
    assert_eq!(failed, kept);
    assert_eq!(snapshots(&here).await?, left);
    here.stop().await;
    Ok(())
}
