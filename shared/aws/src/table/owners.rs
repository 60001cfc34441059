//! Which backup a set of snapshots belongs to, and the volumes it was taken from.

use backups_core::backup::{Backup, Volume};
use backups_core::id::{BackupId, DeploymentId, NodeId, SnapshotId};
use serde::{Deserialize, Serialize};

use super::{Table, TableError, deployment_pk, from_item, owner_pk, s, to_item, volumes_sk};

/// The owner of a set of snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Whose.
    pub deployment_id: DeploymentId,
    /// Which backup.
    pub backup_id: BackupId,
}

/// The volumes of one node's set.
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

    /// Keeps the volumes of a node as they are just before its snapshots.
    pub async fn keep_volumes(
        &self,
        backup: &Backup,
        node: NodeId,
        attempt: u32,
        volumes: &[Volume],
    ) -> Result<(), TableError> {
        let sk = volumes_sk(backup.id, node);
        let mut item = to_item(&sk, &Volumes { attempt, volumes: volumes.to_vec() })?;
        item.insert("pk".into(), s(deployment_pk(backup.deployment_id)));
        item.insert("sk".into(), s(sk));
        self.put(item).await
    }

    /// The volumes of a node as they were kept with the backup.
    pub async fn kept_volumes(
        &self,
        backup: &Backup,
        node: NodeId,
    ) -> Result<Vec<Volume>, TableError> {
        let row =
            self.get(deployment_pk(backup.deployment_id), volumes_sk(backup.id, node)).await?;
        Ok(match row {
            Some(row) => from_item::<Volumes>(row)?.volumes,
            None => Vec::new(),
        })
    }
}
