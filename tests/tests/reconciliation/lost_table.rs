//! Who loses the table loses no snapshot and no volume, and is told.

use super::*;
use tests::http::Call;

/// A stack with backups, and with volumes that a restore keeps for a while.
async fn rich() -> Result<Here> {
    let parameters = vec![("OldVolumeHours".to_owned(), "72".to_owned())];
    let here = Here::start(Setup { tick: 2, parameters, ..Setup::default() }).await?;
    completed(&here, "one").await?;
    completed(&here, "two").await?;
    let path = format!("/deployments/{}/backups/1/restore", here.demo.deployment_id);
    let reply = here.send(Call::new("POST", path).key(&here.demo.keys.manage)).await?;
    assert_eq!(reply.status, 204, "{}", reply.text);
    for _ in 0..1200 {
        let rows = here.rows().await?;
        let over = |row: &Row| row.restore().is_some() && row.text("status") == "completed";
        let tagged = |row: &Row| row.0["leftovers"][0]["tagged"] == true;
        if rows.iter().any(|row| over(row) && tagged(row)) {
            here.settle(60).await?;
            return Ok(here);
        }
        a_moment().await;
    }
    fail("the restore is never over")
}

/// A week of ticks, hour by hour.
async fn a_week(here: &Here) -> Result<()> {
    for _ in 0..7 * 24 {
        here.advance(HOUR).await?;
        here.tick().await?;
    }
    Ok(())
}

/// Nothing has gone; and once a day at most it was told.
async fn all_is_there_and_told(here: &Here, lost: impl Fn(&Row) -> bool) -> Result<()> {
    let (before, held) = (snapshots(here).await?, volumes(here).await?);
    let tagged = here.state().await?["volumes"]
        .as_array()
        .map_or(0, |all| all.iter().filter(|one| one["tags"]["ld:stack"].is_string()).count());
    assert!(before.len() >= 12 && tagged >= 6, "{} and {tagged}", before.len());
    lose(here, lost).await?;
    a_week(here).await?;
    assert_eq!(snapshots(here).await?, before);
    assert_eq!(volumes(here).await?, held);

    let told = here.announced("Orphans Found").await?;
    assert!((6..=8).contains(&told.len()), "{told:?}");
    let mut times: Vec<jiff::Timestamp> = Vec::new();
    for one in &told {
        assert_eq!(one["orphans"]["snapshots"], before.len(), "{one}");
        assert_eq!(one["orphans"]["volumes"], tagged, "{one}");
        assert_eq!(one["orphans"]["deleted"], 0, "{one}");
        for name in ["tenant_id", "deployment_id", "backup_id", "restore_id", "status", "failure"] {
            assert!(one.as_object().is_some_and(|one| one.contains_key(name)), "{name}: {one}");
            assert_eq!(one[name], Value::Null, "{name}");
        }
        times.push(one["at"].as_str().unwrap_or_default().parse()?);
    }
    let apart = times.windows(2).map(|two| two[1].duration_since(two[0]));
    assert!(apart.min().is_none_or(|least| least.as_hours() >= 23), "{times:?}");
    let ids: BTreeSet<_> = told.iter().map(|one| one["announcement_id"].to_string()).collect();
    assert_eq!(ids.len(), told.len(), "each has an id of its own");
    Ok(())
}

#[tokio::test]
async fn losing_the_whole_table_deletes_nothing_and_is_told_once_a_day() -> Result<()> {
    let here = rich().await?;
    all_is_there_and_told(&here, |_| true).await?;
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn losing_every_row_but_the_stacks_own_deletes_nothing_either() -> Result<()> {
    let here = rich().await?;
    all_is_there_and_told(&here, |row| row.text("pk") != "STACK").await?;
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_operator_lists_orphans_and_removes_them_by_name() -> Result<()> {
    let here = backed_up().await?;
    let all: Vec<String> = snapshots(&here).await?.into_iter().collect();
    for (stack, seen) in [(here.demo.event_bus.as_str(), all.len()), ("mistyped", 0)] {
        let said = admin(&here, &["list", "--stack", stack]).await?;
        assert_eq!(said, format!("none, of {seen} snapshots and volumes of the stack `{stack}`"));
    }

    // What a row needs is not removed, nor what is not ours, nor what hangs somewhere.
    let volume = here.demo.nodes[0].volume_ids[0].clone();
    let ids = [all[0].as_str(), volume.as_str()];
    let Err(Failed(said)) = admin(&here, &["remove", ids[0], ids[1], "--yes"]).await else {
        return fail("removed");
    };
    assert!(said.contains("a row names it") && said.contains("does not bear the tag"), "{said}");

    // Their rows are lost: they are listed at once, and not removed before a day is over.
    lose(&here, |row| row.backup().is_some()).await?;
    let Err(Failed(said)) = admin(&here, &["remove", &all[0], "--yes"]).await else {
        return fail("removed");
    };
    assert!(said.contains("younger than a day"), "{said}");

    let listed: Value = serde_json::from_str(&admin(&here, &["list", "--json"]).await?)?;
    let ids: BTreeSet<_> =
        listed.as_array().into_iter().flatten().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(ids, all.iter().map(String::as_str).collect());
    assert_eq!(listed[0]["deployment_id"], here.demo.deployment_id);
    assert_eq!((&listed[0]["kind"], &listed[0]["backup_id"]), (&json!("snapshot"), &json!(1)));
    assert!(listed[0]["because"].as_str().is_some_and(|why| why.contains("neither a row")));

    here.advance(DAY).await?;
    // Nobody is asked on a terminal that is none.
    let Err(Failed(said)) = admin(&here, &["remove", &all[0]]).await else {
        return fail("removed");
    };
    assert!(said.contains("nothing was ordered"), "{said}");
    assert_eq!(snapshots(&here).await?.len(), all.len());

    let said = admin(&here, &["remove", &all[0], &all[1], "--yes"]).await?;
    assert_eq!(said, format!("{}  gone\n{}  gone", all[0], all[1]));
    let left: Vec<String> = snapshots(&here).await?.into_iter().collect();
    assert_eq!(left, all[2..]);
    // What is gone is removed: an order may be given again.
    admin(&here, &["remove", &all[0], "--yes", "--json"]).await?;
    here.stop().await;
    Ok(())
}

/// What this release cannot read vouches for its own snapshots, and hides nobody else's.
#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_hide_the_orphans() -> Result<()> {
    let here = backed_up().await?;
    let row = json!({
        "pk": {"S": format!("DEPLOYMENT#{}", here.demo.deployment_id)},
        "sk": {"S": format!("BACKUP#{:020}", 1)}, "status": {"S": "hibernating"},
    });
    here.put_item(&row).await?;
    let Err(Failed(said)) = admin(&here, &["list", "--json"]).await else {
        return fail("all is judged");
    };
    let listed: Value = serde_json::from_str(said.lines().next().unwrap_or_default())?;
    assert_eq!(listed, json!([]), "none of its snapshots is called an orphan");
    let all: Vec<String> = snapshots(&here).await?.into_iter().collect();
    for id in &all {
        assert!(said.contains(&format!("{id} is not judged: the row BACKUP#")), "{said}");
    }
    // Nor does it keep an order from its answer.
    let order = ["remove", "--yes"].into_iter().chain(all.iter().map(String::as_str));
    let Err(Failed(said)) = admin(&here, &order.collect::<Vec<_>>()).await else {
        return fail("they are removed");
    };
    for id in &all {
        let line = format!("{id}  not deleted: it is not judged: the row BACKUP#");
        assert!(said.contains(&line), "{said}");
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_order_about_orphans_that_cannot_be_read_is_a_dead_letter() -> Result<()> {
    let here = backed_up().await?;
    let many = vec!["snap-1"; 51];
    let wrong = [
        (json!({"version": 2, "order_id": "a", "ids": ["snap-1"]}), "version 2 is not known"),
        (json!({"version": 1, "order_id": "", "ids": ["snap-1"]}), "1 to 64 bytes"),
        (json!({"version": 1, "order_id": "a", "ids": []}), "about 1 to 50 ids"),
        (json!({"version": 1, "order_id": "b", "ids": many}), "about 1 to 50 ids"),
        (json!({"version": 1, "order_id": "c", "ids": ["i-0123"]}), "an id is that of"),
        (json!({"version": 1, "order_id": "c", "ids": ["vol-*"]}), "an id is that of"),
        (json!({"version": 1, "order_id": "d", "ids": ["snap-1"], "force": true}), "unknown field"),
    ];
    for (detail, _) in &wrong {
        here.put_event("supervisor.backups", "Orphan Removal Ordered", detail).await?;
    }
    for _ in 0..300 {
        here.advance(120).await?;
        let letters = here.local("GET", "dead_letters", &Value::Null).await?.to_string();
        if wrong.iter().all(|(_, why)| letters.contains(why)) {
            here.stop().await;
            return Ok(());
        }
        a_moment().await;
    }
    fail(here.local("GET", "dead_letters", &Value::Null).await?.to_string())
}
