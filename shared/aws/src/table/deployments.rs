//! The registry's rows: what control-plane events change, and nothing else.

use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
};
use backups_core::deployment::{Deployment, Registry};
use backups_core::id::{DeploymentId, TenantId};
use backups_core::key::Key;

use super::{
    Item, META, Names, Table, TableError, call, deployment_pk, from_item, met_transaction, n, s,
    to_item,
};

/// The attribute without which a deployment's row is only the mark of a
/// `Deployment Deleted` that came first.
const TENANT: &str = "tenant_id";

/// How often a write that meets a transaction on the row (a create, say) is tried.
const TRIES: u32 = 6;

/// The pause before the first new try; it doubles, with jitter.
const PAUSE: Duration = Duration::from_millis(50);

/// What a control-plane event came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// The row says so now.
    Yes,
    /// The row is as new or newer: the event is late or doubled.
    Older,
    /// The row belongs to this tenant: a deployment never changes hands.
    OtherTenant(TenantId),
}

/// Whether the control plane has said anything of the deployment that has this row.
pub(super) fn is_registered(row: &Item) -> bool {
    row.contains_key(TENANT)
}

/// Whether the key may see it.
pub(super) fn opened(key: &Key, id: DeploymentId, row: &Item) -> bool {
    let tenant = row.get(TENANT).and_then(|tenant| tenant.as_s().ok());
    tenant.is_some_and(|tenant| key.opens(id, &tenant.as_str().into()))
}

impl Table {
    /// One deployment, strongly consistent.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, TableError> {
        let row = self.get(deployment_pk(id), META.to_owned()).await?;
        row.filter(is_registered).map(from_item).transpose()
    }

    /// The same for whoever has this key. None also of one that the key may not see: that is
    /// told by its tenant alone, so that a row that cannot be read does not show through.
    pub async fn deployment_for(
        &self,
        key: &Key,
        id: DeploymentId,
    ) -> Result<Option<Deployment>, TableError> {
        let row = self.get(deployment_pk(id), META.to_owned()).await?;
        row.filter(|row| opened(key, id, row)).map(from_item).transpose()
    }

    /// Stores the registry's part of a deployment, if its version is newer and
    /// its tenant the same. Touches no counter and no slot.
    pub async fn register(
        &self,
        id: DeploymentId,
        registry: &Registry,
    ) -> Result<Registered, TableError> {
        let mut sets = vec!["deployment_id = :deployment_id".to_owned()];
        let mut names = Names::new();
        let mut values: Item = [(":deployment_id".to_owned(), n(id))].into();
        for (name, value) in to_item(META, registry)? {
            sets.push(format!("#{name} = :{name}"));
            names.insert(format!("#{name}"), name.clone());
            values.insert(format!(":{name}"), value);
        }
        sets.sort();
        let condition = "attribute_not_exists(pk) OR (registry_version < :registry_version \
                         AND (attribute_not_exists(tenant_id) OR tenant_id = :tenant_id))";
        let set = format!("SET {}", sets.join(", "));
        match self.update_registry(id, set, condition, Some(names), values).await? {
            None => Ok(Registered::Yes),
            Some(old) if !old.contains_key(TENANT) => Ok(Registered::Older),
            Some(old) => {
                let old: Deployment = from_item(old)?;
                if old.registry.tenant_id == registry.tenant_id {
                    Ok(Registered::Older)
                } else {
                    Ok(Registered::OtherTenant(old.registry.tenant_id))
                }
            }
        }
    }

    /// Marks a deployment as deleted. Its row and its counters stay for ever:
    /// ids are never used again. One that is not there yet leaves its mark too:
    /// events come in any order, and an older `Deployment Changed` must not
    /// bring it to life. One that is back by then keeps that it was deleted.
    pub async fn unregister(
        &self,
        id: DeploymentId,
        version: u64,
    ) -> Result<Registered, TableError> {
        let at: Item = [(":version".to_owned(), n(version))].into();
        let mut values = at.clone();
        values.insert(":yes".to_owned(), AttributeValue::Bool(true));
        let set = "SET registry_version = :version, deleted = :yes, deleted_version = :version";
        let condition = "attribute_not_exists(pk) OR registry_version < :version";
        if self.update_registry(id, set.to_owned(), condition, None, values).await?.is_none() {
            return Ok(Registered::Yes);
        }
        let set = "SET deleted_version = :version".to_owned();
        let condition = "attribute_not_exists(deleted_version) OR deleted_version < :version";
        self.update_registry(id, set, condition, None, at).await?;
        Ok(Registered::Older)
    }

    /// Updates a deployment's row. Some: the row as it is, whose condition did
    /// not hold.
    async fn update_registry(
        &self,
        id: DeploymentId,
        set: String,
        condition: &str,
        names: Option<Names>,
        values: Item,
    ) -> Result<Option<Item>, TableError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(id)))
            .key("sk", s(META))
            .update_expression(set)
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let mut tried = 1;
        loop {
            let Err(error) = update.clone().send().await else { return Ok(None) };
            match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(check)) => {
                    return Ok(Some(check.item.clone().unwrap_or_default()));
                }
                Some(met) if met_transaction(met) && tried < TRIES => {
                    tokio::time::sleep(crate::random::jitter(PAUSE * 2_u32.pow(tried))).await;
                    tried += 1;
                }
                _ => return Err(call("UpdateItem", &error)),
            }
        }
    }
}
