//! Control-plane events: they keep the registry's part of a deployment true.

use backups_aws::clock::Clock;
use backups_aws::table::keys::{Key, KeyWritten};
use backups_aws::table::{Registered, Table, TableError};
use backups_core::control_plane::{DeploymentChanged, DeploymentDeleted, KeyChanged};

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
    // The event is tried again later.
    let problem = format!("others write it all the time ({TRIES} tries)");
    Err(Error::Table(TableError::Row { row: "KEY".to_owned(), problem }))
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
pub(crate) async fn deleted(table: &Table, event: &DeploymentDeleted) -> Result<(), Error> {
    let (id, version) = (event.deployment_id, event.version);
    if id.0 == 0 || version == 0 {
        return Err(Error::Rejected("deployment_id and version count from 1".to_owned()));
    }
    let registered = table.unregister(id, version).await?;
    tracing::info!(deployment_id = %id, version, ?registered, "deployment deleted");
    Ok(())
}
