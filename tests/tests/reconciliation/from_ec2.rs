//! What EC2 has and nobody needs: it goes on evidence, after a day, within the cap.

use super::*;
use backups_aws::clock::Clock;
use backups_aws::sdk;
use backups_aws::settings::Settings;
use worker::Worker;

#[tokio::test]
async fn a_snapshot_that_its_backups_row_does_not_name_goes_after_a_day() -> Result<()> {
    let here = backed_up().await?;
    let all = snapshots(&here).await?;
    // The row comes to not name one of them: as a stray of an unknown outcome would be.
    let stray = backup(&here, 1).await?.snapshots()[0].0.clone();
    let pk = format!("DEPLOYMENT#{}", here.demo.deployment_id);
    let forget = json!({
        "UpdateExpression": "REMOVE nodes[0].#set[0]",
        "ExpressionAttributeNames": {"#set": "set"},
    });
    update(&here, &pk, &format!("BACKUP#{:020}", 1), forget).await?;
    // A run before the day is over leaves it.
    let soon = json!({
        "UpdateExpression": "SET next_at = :now, due_at = :now",
        "ExpressionAttributeValues": {":now": {"S": here.now().await?.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}},
    });
    update(&here, "STACK", "RECONCILIATION", soon).await?;
    here.advance(60).await?;
    here.tick().await?;
    assert!(row(&here).await?["last"]["finished_at"].is_string(), "a run has ended");
    assert_eq!(snapshots(&here).await?, all, "it is not a day old");

    let run = next_run(&here).await?;
    assert_eq!((&run["deleted"], &run["snapshots"]), (&json!(1), &json!(0)), "{run}");
    let left = all.into_iter().filter(|id| *id != stray).collect::<BTreeSet<_>>();
    assert_eq!(snapshots(&here).await?, left);
    assert_eq!(here.announced("Orphans Found").await?, Vec::<Value>::new());
    assert_eq!(here.status(1).await?, "completed");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_snapshot_of_a_deleted_backup_goes_by_its_tombstone() -> Result<()> {
    let here = backed_up().await?;
    let token = backup(&here, 1).await?.text("token").to_owned();
    assert_eq!(here.delete(1).await?.status, 204);
    for _ in 0..10 {
        here.advance(120).await?;
        here.tick().await?;
    }
    assert_eq!(snapshots(&here).await?, BTreeSet::new());
    // It shows up late; so does a copy, which has not the backup's word; and one of a
    // backup of which there is neither row nor tombstone.
    let late = made_by_hand(&here, 1, &token).await?;
    let copies = made_by_hand(&here, 1, "somebody").await?;
    let unknown = made_by_hand(&here, 99, &token).await?;
    here.advance(DAY).await?;
    let run = next_run(&here).await?;
    assert_eq!((&run["deleted"], &run["snapshots"]), (&json!(late.len()), &json!(12)), "{run}");
    assert_eq!(snapshots(&here).await?, copies.union(&unknown).cloned().collect());
    let told = here.announced("Orphans Found").await?;
    assert_eq!(told.len(), 1, "{told:?}");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_run_deletes_a_hundred_at_most_and_says_what_it_left() -> Result<()> {
    let here = backed_up().await?;
    let token = backup(&here, 1).await?.text("token").to_owned();
    let kept = snapshots(&here).await?;
    let mut strays = BTreeSet::new();
    // More than a page of a describe holds.
    while strays.len() < 205 {
        strays.extend(made_by_hand(&here, 1, &token).await?);
    }
    let mut left = strays.len();
    // Those that a run met while they were made were too young.
    assert_eq!(snapshots(&here).await?.len(), left + kept.len());
    here.advance(DAY).await?;
    for _ in 0..3 {
        let run = next_run(&here).await?;
        let deleted = left.min(100);
        left -= deleted;
        assert_eq!((&run["deleted"], &run["withheld"]), (&json!(deleted), &json!(left)), "{run}");
        assert_eq!(snapshots(&here).await?.len(), left + kept.len());
    }
    assert_eq!(snapshots(&here).await?, kept);
    // Twice there was more than it might delete.
    let told = here.announced("Orphans Found").await?;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|one| one["orphans"]["snapshots"] == 0), "{told:?}");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_run_deletes_nothing_while_deletions_are_paused_and_says_so() -> Result<()> {
    for switch in ["deletions", "writes"] {
        let here = backed_up().await?;
        let token = backup(&here, 1).await?.text("token").to_owned();
        let strays = made_by_hand(&here, 1, &token).await?;
        here.advance(DAY).await?;
        here.admin(&["pause", switch]).await?;
        // An operator sees beforehand what will go: no orphan, but named when all is.
        assert_eq!(listed(&here, &["list", "--json"]).await?, json!([]));
        let doomed = listed(&here, &["list", "--all", "--json"]).await?;
        let doomed = doomed.as_array().cloned().unwrap_or_default();
        assert!(doomed.iter().all(|one| one["removed_by"] == "run"), "{doomed:?}");
        let ids: BTreeSet<_> =
            doomed.iter().map(|one| one["id"].as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(ids, strays);
        let all = snapshots(&here).await?;
        let run = next_run(&here).await?;
        assert_eq!((&run["deleted"], &run["withheld"]), (&json!(0), &json!(strays.len())), "{run}");
        assert_eq!(snapshots(&here).await?, all);
        here.admin(&["resume", switch]).await?;
        assert_eq!(next_run(&here).await?["deleted"], strays.len());
        assert!(snapshots(&here).await?.is_disjoint(&strays));
        here.stop().await;
    }
    Ok(())
}

/// What the operator's command lists.
async fn listed(here: &Here, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(admin(here, arguments).await?.lines().next().unwrap_or_default())?)
}

#[tokio::test]
async fn what_ec2_does_not_let_go_is_tried_again_the_next_day() -> Result<()> {
    let here = backed_up().await?;
    let token = backup(&here, 1).await?.text("token").to_owned();
    let strays = made_by_hand(&here, 1, &token).await?;
    here.advance(DAY).await?;
    let held = strays.first().cloned().unwrap_or_default();
    let in_use = json!({
        "on": "DeleteSnapshot", "do": "error", "code": "InvalidSnapshot.InUse", "resource": held,
    });
    here.arm(&in_use).await?;
    let run = next_run(&here).await?;
    assert_eq!(run["deleted"], strays.len() - 1, "{run}");
    assert!(snapshots(&here).await?.contains(&held));
    assert_eq!(next_run(&here).await?["deleted"], 1);
    assert!(!snapshots(&here).await?.contains(&held));
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_no_evidence() -> Result<()> {
    let here = backed_up().await?;
    let all = snapshots(&here).await?;
    let (pk, sk) = (format!("DEPLOYMENT#{}", here.demo.deployment_id), format!("BACKUP#{:020}", 1));
    // A later release knows a status more.
    let ahead = json!({
        "UpdateExpression": "SET #status = :status",
        "ExpressionAttributeNames": {"#status": "status"},
        "ExpressionAttributeValues": {":status": {"S": "archived"}},
    });
    update(&here, &pk, &sk, ahead).await?;
    here.advance(2 * DAY).await?;
    for _ in 0..2 {
        let run = next_run(&here).await?;
        assert_eq!((&run["deleted"], &run["snapshots"]), (&json!(0), &json!(0)), "{run}");
    }
    assert_eq!(snapshots(&here).await?, all);
    here.stop().await;
    Ok(())
}

/// A run of which the worker died between two pages: it has judged the snapshots, and was
/// about to look at the volumes.
async fn crashed() -> Result<Here> {
    let here = backed_up().await?;
    lose(&here, |row| row.backup().is_some()).await?;
    here.advance(2 * DAY).await?;
    let environment = here.environment();
    let settings = Settings::from_lookup(&|name| environment.get(name).cloned())?;
    let (clock, control) = Clock::adjustable();
    let ahead = here.now().await?.duration_since(clock.timestamp());
    control.advance(ahead.unsigned_abs());
    let sdk = sdk::local_config(&clock, &here.demo.aws_endpoint, &here.demo.region).await;
    let worker = Worker::new(&settings, &sdk, clock);
    here.arm(&json!({"on": "DescribeVolumes", "do": "hang"})).await?;
    let event = json!({
        "source": "supervisor.backups", "detail-type": "Operation Due",
        "detail": {"version": 1, "deployment_id": 0, "operation": "reconciliation", "id": 0},
    });
    let work = worker::handle(&worker, event, worker::TIMEOUT);
    // Its end is one that no code of it sees.
    let ended = tokio::time::timeout(Duration::from_secs(5), Box::pin(work)).await;
    assert!(ended.is_err(), "{ended:?}");
    let row = row(&here).await?;
    assert_eq!(row["run"]["phase"], "volumes", "{row}");
    assert_eq!(row["run"]["snapshots"]["orphans"], 6);
    assert!(row["lease"].is_object(), "{row}");
    here.disarm().await?;
    Ok(here)
}

#[tokio::test]
async fn a_run_goes_on_from_its_place_after_a_crash_between_pages() -> Result<()> {
    let here = Box::pin(crashed()).await?;
    let began = row(&here).await?["run"]["started_at"].clone();
    let calls = here.calls().await?.len();
    // Not while the dead one's lease holds: not by a tick, nor by an event that comes twice.
    here.tick().await?;
    let due = json!({"version": 1, "deployment_id": 0, "operation": "reconciliation", "id": 0});
    here.put_event("supervisor.backups", "Operation Due", &due).await?;
    here.settle(60).await?;
    assert_eq!(row(&here).await?["run"]["phase"], "volumes");
    here.advance(180).await?;
    here.tick().await?;
    let row = row(&here).await?;
    assert_eq!((&row["run"], &row["last"]["started_at"]), (&Value::Null, &began), "{row}");
    assert_eq!(row["last"]["snapshots"], 6);
    let calls = here.calls().await?[calls..].to_vec();
    let count =
        |operation: &str| calls.iter().filter(|call| call["operation"] == operation).count();
    assert_eq!((count("DescribeSnapshots"), count("DescribeVolumes")), (0, 1), "{calls:?}");
    assert_eq!(here.announced("Orphans Found").await?.len(), 1);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_place_that_ec2_does_not_know_any_more_begins_its_phase_anew() -> Result<()> {
    let here = Box::pin(crashed()).await?;
    let stale = json!({
        "UpdateExpression": "SET run.place = :place",
        "ExpressionAttributeValues": {":place": {"M": {"token": {"S": "zz"}}}},
    });
    update(&here, "STACK", "RECONCILIATION", stale).await?;
    for _ in 0..5 {
        here.advance(180).await?;
        here.tick().await?;
    }
    let row = row(&here).await?;
    assert_eq!((&row["run"], &row["last"]["snapshots"]), (&Value::Null, &json!(6)), "{row}");
    here.stop().await;
    Ok(())
}
