//! The tags by which a lost table can be read off the snapshots.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Tag;
use backups_core::backup::Volume;
use backups_core::id::{BackupId, DeploymentId, NodeId, Nonce, RestoreId};

/// The stack that made it.
pub const STACK: &str = "ld:stack";
/// The table that knows it.
pub const TABLE: &str = "ld:table";
/// The deployment.
pub const DEPLOYMENT: &str = "ld:deployment";
/// The backup.
pub const BACKUP: &str = "ld:backup";
/// The node.
pub const NODE: &str = "ld:node";
/// The number of the call that made it.
pub const ATTEMPT: &str = "ld:attempt";
/// The restore.
pub const RESTORE: &str = "ld:restore";
/// The random word of the operation that made it.
pub const TOKEN: &str = "ld:token";
/// In front of a volume's id: the device it was attached as.
pub const DEVICE: &str = "ld:device:";

/// The most tags of a resource (EC2 user guide, "Tag restrictions").
const MOST: usize = 50;

/// Whose a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// The stack.
    pub stack: String,
    /// The table's id.
    pub table: String,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The backup.
    pub backup: BackupId,
}

impl Whose {
    /// The tags that every snapshot of the backup has.
    pub fn pairs(&self) -> [(&'static str, String); 4] {
        [
            (STACK, self.stack.clone()),
            (TABLE, self.table.clone()),
            (DEPLOYMENT, self.deployment.to_string()),
            (BACKUP, self.backup.to_string()),
        ]
    }

    /// All tags of one set. The tags of a call go on each of its snapshots
    /// alike, so the devices of all volumes stand on each, as far as they fit.
    pub fn of_set(&self, node: NodeId, attempt: u32, volumes: &[Volume]) -> Vec<Tag> {
        let mut pairs: BTreeMap<String, String> =
            self.pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        pairs.insert(NODE.to_owned(), node.to_string());
        pairs.insert(ATTEMPT.to_owned(), attempt.to_string());
        for volume in volumes.iter().take(MOST - pairs.len()) {
            pairs.insert(format!("{DEVICE}{}", volume.volume_id), volume.device.clone());
        }
        pairs.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
    }
}

/// Whose a volume of a restore is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoring {
    /// The stack.
    pub stack: String,
    /// The table's id.
    pub table: String,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The restore.
    pub restore: RestoreId,
    /// Its random word.
    pub token: Nonce,
    /// The platform's own tag, key and value, on everything that it manages.
    pub managed: (String, String),
}

impl Restoring {
    /// The tags that come off in the end.
    pub fn pairs(&self) -> [(&'static str, String); 5] {
        [
            (STACK, self.stack.clone()),
            (TABLE, self.table.clone()),
            (DEPLOYMENT, self.deployment.to_string()),
            (RESTORE, self.restore.to_string()),
            (TOKEN, self.token.as_str().to_owned()),
        ]
    }

    /// Which restore of this deployment the tags name.
    pub fn restore_of(&self, tags: &[Tag]) -> Option<RestoreId> {
        let value = |key: &str| tags.iter().find(|tag| tag.key() == Some(key))?.value();
        let ours = [
            (STACK, self.stack.clone()),
            (TABLE, self.table.clone()),
            (DEPLOYMENT, self.deployment.to_string()),
        ];
        let ours = ours.iter().all(|(key, expected)| value(key) == Some(expected));
        value(RESTORE).filter(|_| ours)?.parse().ok()
    }

    /// The same as EC2 takes them.
    pub fn tags(&self) -> Vec<Tag> {
        let pairs = self.pairs().into_iter();
        pairs.map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
    }

    /// All tags of a new volume: those of the one that it replaces, the platform's, and
    /// ours.
    pub fn of_volume(&self, replaced: &[(String, String)]) -> Vec<Tag> {
        let mut pairs: BTreeMap<String, String> = replaced.iter().cloned().collect();
        pairs.insert(self.managed.0.clone(), self.managed.1.clone());
        pairs.extend(self.pairs().into_iter().map(|(key, value)| (key.to_owned(), value)));
        pairs.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backups_core::id::VolumeId;

    #[test]
    fn tags_name_a_restore_of_this_table_and_deployment_alone() {
        let of = |table: &str, restore| Restoring {
            stack: "s".into(),
            table: table.into(),
            deployment: DeploymentId(u64::MAX),
            restore: RestoreId(restore),
            token: Nonce::from("t"),
            managed: ("k".into(), "v".into()),
        };
        let ours = of("t", 1);
        assert_eq!(ours.restore_of(&of("t", 2).tags()), Some(RestoreId(2)));
        assert_eq!(ours.restore_of(&of("lost", 2).tags()), None);
        assert_eq!(ours.restore_of(&[]), None);
        let other = Restoring { deployment: DeploymentId(7), ..of("t", 2) };
        assert_eq!(ours.restore_of(&other.tags()), None);
    }

    #[test]
    fn the_tags_of_a_large_set_stay_within_what_aws_takes() {
        let volume = |n: usize| Volume {
            volume_id: VolumeId(format!("vol-{n:017x}")),
            device: format!("/dev/sd{n}"),
            size_gib: 1,
            volume_type: "gp3".into(),
            iops: None,
            throughput: None,
            kms_key_id: None,
            availability_zone: "us-west-1a".into(),
            delete_on_termination: false,
            multi_attach: false,
            tags: Vec::new(),
        };
        let whose = Whose {
            stack: "s".into(),
            table: "t".into(),
            deployment: DeploymentId(u64::MAX),
            backup: BackupId(1),
        };
        let many: Vec<_> = (0..60).map(volume).collect();
        assert_eq!(whose.of_set(NodeId(1), 1, &many).len(), MOST);
        assert_eq!(whose.of_set(NodeId(1), 1, &many[..2]).len(), 8);
    }
}
