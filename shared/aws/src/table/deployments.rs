//! The registry's rows: what control-plane events change, and nothing else.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
};
use backups_core::deployment::{Deployment, Registry};
use backups_core::id::{DeploymentId, TenantId};

use super::{Item, META, Names, Table, TableError, call, deployment_pk, from_item, n, s, to_item};

/// What a control-plane event came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// The row says so now.
    Yes,
    /// The row is as new or newer: the event is late or doubled.
    Older,
    /// The row belongs to this tenant: a deployment never changes hands.
    OtherTenant(TenantId),
    /// There is no such deployment.
    Unknown,
}

impl Table {
    /// One deployment, strongly consistent.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, TableError> {
        self.get(deployment_pk(id), META.to_owned()).await?.map(from_item).transpose()
    }

    /// Stores the registry's part of a deployment, if its version is newer and
    /// its tenant the same. Touches no counter and no slot.
    pub async fn register(
        &self,
        id: DeploymentId,
        registry: &Registry,
    ) -> Result<Registered, TableError> {
        let attributes = to_item(META, registry)?;
        let mut sets = vec!["deployment_id = :deployment_id".to_owned()];
        let mut names = Names::new();
        let mut values: Item = [(":deployment_id".to_owned(), n(id))].into();
        for (name, value) in attributes {
            sets.push(format!("#{name} = :{name}"));
            names.insert(format!("#{name}"), name.clone());
            values.insert(format!(":{name}"), value);
        }
        sets.sort();
        let reply = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(id)))
            .key("sk", s(META))
            .update_expression(format!("SET {}", sets.join(", ")))
            .condition_expression(
                "attribute_not_exists(pk) OR (registry_version < :registry_version AND tenant_id = :tenant_id)",
            )
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        match refused(reply)? {
            None => Ok(Registered::Yes),
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
    /// ids are never used again.
    pub async fn unregister(
        &self,
        id: DeploymentId,
        version: u64,
    ) -> Result<Registered, TableError> {
        let reply = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(id)))
            .key("sk", s(META))
            .update_expression("SET registry_version = :version, deleted = :yes")
            .condition_expression("registry_version < :version")
            .expression_attribute_values(":version", n(version))
            .expression_attribute_values(":yes", AttributeValue::Bool(true))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        match refused(reply)? {
            None => Ok(Registered::Yes),
            Some(old) if old.is_empty() => Ok(Registered::Unknown),
            Some(_) => Ok(Registered::Older),
        }
    }
}

/// None: the update was made. The row as it is: its condition did not hold.
fn refused<T>(reply: Result<T, SdkError<UpdateItemError>>) -> Result<Option<Item>, TableError> {
    match reply {
        Ok(_) => Ok(None),
        Err(SdkError::ServiceError(failed)) => match failed.err() {
            UpdateItemError::ConditionalCheckFailedException(check) => {
                Ok(Some(check.item.clone().unwrap_or_default()))
            }
            _ => Err(call("UpdateItem", &SdkError::ServiceError(failed))),
        },
        Err(error) => Err(call("UpdateItem", &error)),
    }
}
