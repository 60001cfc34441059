//! Which backup a set of snapshots belongs to, and the volumes it was taken from.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use backups_core::backup::{Backup, Volume};
use backups_core::id::{BackupId, DeploymentId, NodeId, SnapshotId};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::{
    Item, Table, TableError, call, deployment_pk, from_item, n, owner_pk, s, to_item,
    volumes_prefix, volumes_sk,
};

/// The owner of a set of snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Whose.
    pub deployment_id: DeploymentId,
    /// Which backup.
    pub backup_id: BackupId,
}

/// How many volumes are kept in one row. Each may have 50 tags of up to 384
/// characters (EC2 user guide, "Tag restrictions").
const VOLUMES_A_ROW: usize = 10;

/// Volumes of one node's set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Volumes {
    attempt: u32,
    volumes: Vec<Volume>,
}

impl Table {
    /// The backup that the set with this smallest snapshot id belongs to. None:
    /// not a set of ours.
    pub async fn owner(&self, smallest: &SnapshotId) -> Result<Option<Owner>, TableError> {
        self.get(owner_pk(smallest), "OWNER".to_owned()).await?.map(from_item).transpose()
    }

    /// Writes down whose set it is, so that its events find the backup.
    pub async fn own(&self, smallest: &SnapshotId, backup: &Backup) -> Result<(), TableError> {
        let owner = Owner { deployment_id: backup.deployment_id, backup_id: backup.id };
        let mut item = to_item("OWNER", &owner)?;
        item.insert("pk".into(), s(owner_pk(smallest)));
        item.insert("sk".into(), s("OWNER"));
        self.put(item).await
    }

    /// Forgets whose set it was.
    pub(super) async fn disown(&self, smallest: &SnapshotId) -> Result<(), TableError> {
        self.delete(owner_pk(smallest), "OWNER".to_owned()).await
    }

    /// Keeps the volumes of a node as they are just before its snapshots, each
    /// with its tags: ten to a row stay below DynamoDB's 400 KB whatever the tags.
    ///
    /// Those of a later attempt stay: a write that was given up may be carried out when
    /// the next attempt has long been made.
    pub async fn keep_volumes(
        &self,
        backup: &Backup,
        node: NodeId,
        attempt: u32,
        volumes: &[Volume],
    ) -> Result<(), TableError> {
        let puts = volumes.chunks(VOLUMES_A_ROW).enumerate().map(|(part, volumes)| async move {
            let sk = volumes_sk(backup.id, node, part);
            let mut item = to_item(&sk, &Volumes { attempt, volumes: volumes.to_vec() })?;
            item.insert("pk".into(), s(deployment_pk(backup.deployment_id)));
            item.insert("sk".into(), s(sk));
            self.put_unless_later(item, attempt.into()).await
        });
        // Side by side: a node may have some hundred volumes, and the lease runs.
        try_join_all(puts).await.map(|_| ())
    }

    /// Writes a row that says of which attempt it is, unless one of a later attempt is
    /// there: then whoever writes is late, and must not go on.
    pub(super) async fn put_unless_later(
        &self,
        item: Item,
        attempt: u64,
    ) -> Result<(), TableError> {
        let reply = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(attempt) OR attempt <= :attempt")
            .expression_attribute_values(":attempt", n(attempt))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        reply.map(|_| ()).map_err(|error| call("PutItem", &error))
    }

    /// Removes the kept volumes of a backup.
    pub(super) async fn forget_volumes(&self, backup: &Backup) -> Result<(), TableError> {
        let prefix = volumes_prefix(backup.id);
        for row in self.begin_with(backup.deployment_id, &prefix).await? {
            if let Some(AttributeValue::S(sk)) = row.get("sk") {
                self.delete(deployment_pk(backup.deployment_id), sk.clone()).await?;
            }
        }
        Ok(())
    }
}
