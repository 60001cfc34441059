//! Events that vanish, come twice, or come late: they cost time and never truth.

use serde_json::json;
use tests::{Here, MANY, Result, Setup, audit, rows};

use crate::{Case, all, met_by_a_backup, stays};

#[tokio::test(flavor = "multi_thread")]
async fn of_ebs_and_of_the_bus() -> Result<()> {
    let mut cases = Vec::new();
    for on in ["event", "bus"] {
        for action in ["drop", "double", "delay"] {
            cases.extend([1, 2, 5].map(|times| Case::new(on, action, "", times)));
            // Everything dropped on the bus moves nothing; see below.
            if (on, action) != ("bus", "drop") {
                cases.push(stays(on, action, ""));
            }
        }
    }
    all(cases, met_by_a_backup).await
}

/// The bus swallows everything, and says that it took it: what was asked for
/// meanwhile is done once the bus is back.
#[tokio::test]
async fn a_bus_that_swallows_everything() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    here.arm(&json!({"on": "bus", "do": "drop", "times": MANY})).await?;
    let id = here.create("unheard").await?;
    for _ in 0..5 {
        here.advance(60).await?;
        here.tick().await?;
    }
    assert_eq!(here.status(id).await?, "pending");
    assert_eq!(
        here.calls().await?.iter().filter(|call| call["operation"] == "CreateSnapshots").count(),
        0
    );
    here.disarm().await?;
    here.until_status(id, "completed").await?;
    here.arm(&json!({"on": "bus", "do": "drop", "times": MANY})).await?;
    assert_eq!(here.delete(id).await?.status, 204);
    here.advance(600).await?;
    here.tick().await?;
    assert_eq!(here.status(id).await?, "deleting");
    here.disarm().await?;
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    assert_eq!(here.status(id).await?, "");
    here.stop().await;
    Ok(())
}

/// Nobody tells of the snapshots' end: the tick finds it, within two of it.
#[tokio::test]
async fn without_one_event_the_tick_is_enough() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    here.arm(&json!({"on": "event", "do": "drop", "times": MANY})).await?;
    let id = here.create("unseen").await?;
    here.seen(id, "in_progress").await?;
    let mut ticks = 0;
    while here.status(id).await? != "completed" {
        here.advance(60).await?;
        here.tick().await?;
        ticks += 1;
        assert!(ticks <= 3, "in progress after {ticks} ticks");
    }
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    here.stop().await;
    Ok(())
}

/// A person deletes a snapshot of a running backup: it fails and says so.
#[tokio::test]
async fn a_snapshot_deleted_behind_our_back() -> Result<()> {
    let here = Here::start(Setup { speed: 10.0, ..Setup::default() }).await?;
    let id = here.create("n").await?;
    here.seen(id, "in_progress").await?;
    let rows = here.rows().await?;
    let snapshots = rows::backups(&rows)[&(here.demo.deployment_id, id)].snapshots();
    here.local("POST", "delete", &json!({"snapshot_id": snapshots[0].0})).await?;
    let rows = here.until_status(id, "failed").await?;
    let failure = rows::backups(&rows)[&(here.demo.deployment_id, id)].0["failure"].clone();
    assert_eq!(failure["code"], "snapshot_missing", "{failure}");
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    here.stop().await;
    Ok(())
}

/// A person terminates a node: its backup fails and says which.
#[tokio::test]
async fn a_node_terminated_behind_our_back() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let instance = here.demo.nodes[2].instance_id.clone();
    here.local("POST", "terminate", &json!({"instance_id": instance})).await?;
    here.advance(600).await?;
    let id = here.create("n").await?;
    let rows = here.until_status(id, "failed").await?;
    let failure = rows::backups(&rows)[&(here.demo.deployment_id, id)].0["failure"].clone();
    assert_eq!(failure["code"], "node_missing", "{failure}");
    assert!(failure.to_string().contains(&instance));
    let rows = here.rest().await?;
    audit::demand(&here, &rows).await?;
    here.stop().await;
    Ok(())
}
