//! Control-plane events: they keep the registry's part of a deployment true.

use backups_aws::table::{Registered, Table};
use backups_core::control_plane::{DeploymentChanged, DeploymentDeleted};

use crate::Error;

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
