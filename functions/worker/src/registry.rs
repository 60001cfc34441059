//! Control-plane events: they keep the registry's part of a deployment true.

use backups_aws::clock::Clock;
use backups_aws::table::keys::{Key, KeyWritten};
use backups_aws::table::{Registered, Stored, Table, TableError};
use backups_core::control_plane::{DeploymentChanged, DeploymentDeleted, KeyChanged};
use backups_core::id::DeploymentId;
use backups_core::time::Time;

use crate::Error;

/// How often a row that somebody else wrote is tried again.
const TRIES: u32 = 8;

/// Stores how a deployment is now.
///
/// # Errors
/// A refused event ([`Error::Rejected`]) changes nothing and goes to the
/// dead-letter queue with its reason.
pub(crate) async fn changed(
    table: &Table,
    region: &str,
    event: DeploymentChanged,
) -> Result<(), Error> {
    let id = event.deployment_id;
    let version = event.version;
    let registry = event.registry(region).map_err(|rejected| Error::Rejected(rejected.0))?;
    match table.register(id, &registry).await? {
        Registered::Yes => tracing::info!(deployment_id = %id, version, "deployment registered"),
        Registered::Older => {
            tracing::info!(deployment_id = %id, version, "an older event; nothing changed");
        }
        Registered::OtherTenant(tenant) => {
            return Err(Error::Rejected(format!(
                "deployment {id} belongs to tenant {tenant}; an event says it is {}'s",
                registry.tenant_id
            )));
        }
    }
    Ok(())
}

/// Stores how a key is now.
///
/// # Errors
/// As [`changed`].
pub(crate) async fn key_changed(
    table: &Table,
    event: KeyChanged,
    clock: &Clock,
) -> Result<(), Error> {
    let key = event.key(clock.now()).map_err(|rejected| Error::Rejected(rejected.0))?;
    let (key_id, version) = (key.key_id.as_str(), key.version);
    for attempt in 0..TRIES {
        clock.others_first(attempt).await;
        match table.put_key(&key).await? {
            KeyWritten::Yes => tracing::info!(key_id, version, "key stored"),
            // Late, and still the end of it: what is revoked stays so, in whatever order.
            KeyWritten::Older if key.revoked_at.is_some() => {
                if !end(table, &key).await? {
                    continue;
                }
                tracing::info!(key_id, version, "an older event; key revoked");
            }
            KeyWritten::Older => tracing::info!(key_id, version, "an older event; nothing changed"),
            KeyWritten::Clash => {
                return Err(Error::Rejected(format!(
                    "key {key_id}: the id or the hash is another key's, or the tenant another"
                )));
            }
            KeyWritten::Conflict => continue,
        }
        return Ok(());
    }
    Err(contended("KEY"))
}

/// Ends the key that is there as the older event says. False: it met another write.
async fn end(table: &Table, older: &Key) -> Result<bool, Error> {
    let there = table.key_called(&older.key_id).await?;
    match there.zip(older.revoked_at) {
        Some((there, at)) if there.revoked_at.is_none() => {
            Ok(table.put_key(&there.revoked(at)).await? == KeyWritten::Yes)
        }
        _ => Ok(true),
    }
}

/// Marks a deployment as deleted.
///
/// # Errors
/// As [`changed`].
pub(crate) async fn deleted(
    table: &Table,
    event: &DeploymentDeleted,
    clock: &Clock,
) -> Result<(), Error> {
    let (id, version) = (event.deployment_id, event.version);
    if id.0 == 0 || version == 0 {
        return Err(Error::Rejected("deployment_id and version count from 1".to_owned()));
    }
    let registered = table.unregister(id, version).await?;
    tracing::info!(deployment_id = %id, version, ?registered, "deployment deleted");
    // Also if the event is doubled: the first may have ended here.
    for attempt in 0..TRIES {
        clock.others_first(attempt).await;
        if unscheduled(table, id, clock.now()).await? {
            return Ok(());
        }
    }
    Err(contended("SCHEDULE"))
}

/// Others wrote a row each time: the event is tried again later.
fn contended(row: &str) -> Error {
    let problem = format!("others write it all the time ({TRIES} tries)");
    Error::Table(TableError::Row { row: row.to_owned(), problem })
}

/// A deleted deployment's schedule goes: one that is disabled or yearly would outlive it.
/// False: somebody else wrote it meanwhile.
async fn unscheduled(table: &Table, id: DeploymentId, now: Time) -> Result<bool, TableError> {
    let deleted = table.deployment(id).await?.is_none_or(|found| found.registry.deleted);
    let schedule = table.schedule(id).await?.filter(|one| one.setting.is_some() && deleted);
    let Some(schedule) = schedule else { return Ok(true) };
    let mut after = schedule.clone();
    (after.setting, after.waiting) = (None, None);
    let due = after.due(now);
    Ok(matches!(table.write_schedule(Some(&schedule), after, due).await?, Stored::Yes(_)))
}
