//! What the table's own conditions let through, asked of the functions' code.

use backups_aws::random;
use backups_aws::table::Written;
use backups_aws::table::keys::{Key, KeyWritten, Permission};
use backups_core::backup::{Backup, BackupType, Volume};
use backups_core::create::{Cause, NewBackup, Room, decide_for};
use backups_core::deployment::Deployment;
use backups_core::id::{BackupId, DeploymentId};
use backups_core::limits::Limits;
use backups_core::time::{Seconds, Time};
use serde_json::json;
use tests::{Failed, Here, Result, Setup};

use super::{Functions, samples_key};

/// Found by seed 5965: the write of an attempt's volumes that was given up was carried
/// out after that of the next one, and what was kept was of no snapshot that the backup
/// has.
#[tokio::test]
async fn volumes_that_are_kept_late_take_no_later_ones_place() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let functions = Functions::of(&here).await?;
    let (deployment, backup) = (here.demo.deployment_id, here.create("kept").await?);
    here.settle(60).await?;
    let row = functions.table.backup(DeploymentId(deployment), BackupId(backup)).await;
    let row = row.map_err(Failed::from)?.ok_or_else(|| Failed("no backup".to_owned()))?;
    let node = row.nodes[0].node_id;
    let volume = [Volume {
        volume_id: "vol-0123456789abcdef0".into(),
        device: "/dev/sdf".to_owned(),
        size_gib: 1,
        volume_type: "gp3".to_owned(),
        iops: None,
        throughput: None,
        kms_key_id: None,
        availability_zone: "us-west-1a".to_owned(),
        delete_on_termination: false,
        multi_attach: false,
        tags: Vec::new(),
    }];
    let keep = |attempt| functions.table.keep_volumes(&row, node, attempt, &volume);
    keep(3).await.map_err(Failed::from)?;
    keep(3).await.map_err(Failed::from)?;
    assert!(keep(2).await.is_err(), "an older one took its place");
    keep(4).await.map_err(Failed::from)
}

/// The deployment's row.
async fn deployment(functions: &Functions, id: u64) -> Result<Deployment> {
    let found = functions.table.deployment(DeploymentId(id)).await.map_err(Failed::from)?;
    found.ok_or_else(|| Failed("no deployment".to_owned()))
}

/// A slot's backup, as it is decided on.
fn slot(read: &Deployment, gives_way: bool, now: Time) -> Result<(Backup, Room)> {
    let request = NewBackup {
        name: "slot".to_owned(),
        node_id: None,
        backup_type: BackupType::Scheduled,
        remarks: None,
        expires_in_days: None,
    };
    let cause = Cause::Schedule { slot: now, gives_way };
    let decided = decide_for(cause, read, request, &Limits::default(), random::nonce(), now);
    decided.map_err(|refusal| Failed(refusal.to_string()))
}

/// Found by seed 10581: the backup that was to give way to a slot's expired in the second in
/// which that was decided.
#[tokio::test]
async fn a_slot_has_no_room_above_the_limit_once_what_gives_way_is_gone() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let functions = Functions::of(&here).await?;
    let id = here.demo.deployment_id;
    here.register(id, 2, &json!({"backup_limit": 1})).await?;
    let oldest = here.create("oldest").await?;
    here.until_status(oldest, "completed").await?;
    let read = deployment(&functions, id).await?;
    let now = functions.clock.now();
    let (backup, room) = slot(&read, true, now)?;
    assert_eq!((room.at_least, room.below), (1, 2));

    assert_eq!(here.delete(oldest).await?.status, 204);
    let written = functions.table.create_backup(&read, &backup, room, None).await;
    assert_eq!(written.map_err(Failed::from)?, Written::Conflict);
    here.stop().await;
    Ok(())
}

/// The tick waits for its turn between the look at the deployment and the write.
#[tokio::test]
async fn a_slot_does_not_start_once_its_deployment_is_known_to_have_been_deleted() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let functions = Functions::of(&here).await?;
    let id = here.demo.deployment_id;
    here.register(id, 9, &json!({})).await?;
    let before = deployment(&functions, id).await?;
    // It is back already when the word of its end comes.
    let gone = json!({"version": 8, "deployment_id": id});
    here.put_event("supervisor.control-plane", "Deployment Deleted", &gone).await?;
    here.settle(20).await?;
    let after = deployment(&functions, id).await?;
    assert_eq!((after.registry, after.deleted_version), (before.registry.clone(), 8));
    for (read, expected) in
        [(before, Written::Conflict), (deployment(&functions, id).await?, Written::Stored)]
    {
        let now = functions.clock.now();
        let (backup, room) = slot(&read, false, now)?;
        let written = functions.table.create_backup(&read, &backup, room, None).await;
        assert_eq!(written.map_err(Failed::from)?, expected);
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_key_keeps_what_it_is_and_stays_revoked() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let functions = Functions::of(&here).await?;
    let table = &functions.table;
    let now = functions.clock.now();
    let first = samples_key(now + Seconds::days(1))?;
    let version = |version| Key { version, ..first.clone() };
    let read = |version| Key { version, permission: Permission::Read, ..first.clone() };
    let revoked = Key { revoked_at: Some(now), ..version(3) };
    let other = |change: fn(&mut Key)| {
        let mut key = version(9);
        change(&mut key);
        key
    };
    for (key, expected) in [
        (version(1), KeyWritten::Yes),
        // It came twice.
        (version(1), KeyWritten::Yes),
        (read(1), KeyWritten::Older),
        (read(2), KeyWritten::Yes),
        (version(1), KeyWritten::Older),
        (other(|key| key.hash = "0".repeat(64)), KeyWritten::Clash),
        (other(|key| key.key_id = "other".to_owned()), KeyWritten::Clash),
        (other(|key| key.tenant_id = "other".into()), KeyWritten::Clash),
        (revoked.clone(), KeyWritten::Yes),
        // Of somebody who does not know of that.
        (version(4), KeyWritten::Older),
    ] {
        let written = table.put_key(&key, now).await.map_err(Failed::from)?;
        assert_eq!(written, expected, "{key:?}");
    }
    assert_eq!(table.key(&first.hash).await.map_err(Failed::from)?, Some(revoked.clone()));
    assert_eq!(table.key_called("sample").await.map_err(Failed::from)?, Some(revoked));
    assert_eq!(table.key(&"0".repeat(64)).await.map_err(Failed::from)?, None);
    assert_eq!(table.key_called("other").await.map_err(Failed::from)?, None);
    // One that is over long since is there as long as anybody may still speak of it.
    let old = Key { version: 5, expires_at: now + Seconds::days(-100), ..first };
    let old = Key { revoked_at: Some(now + Seconds::days(-100)), ..old };
    assert_eq!(table.put_key(&old, now).await.map_err(Failed::from)?, KeyWritten::Yes);
    let until = (now + Seconds::days(90)).unix();
    let rows = here.rows().await?;
    let rows: Vec<_> = rows.iter().filter(|row| row.text("key_id") == "sample").collect();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.0["ttl"] == until), "{rows:?}");
    here.stop().await;
    Ok(())
}
