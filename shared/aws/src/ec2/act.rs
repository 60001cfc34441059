//! The calls that change EC2.

use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::types::{InstanceSpecification, ResourceType, TagSpecification};
use backups_core::backup::{Action, Outcome, Taken, Volume};
use backups_core::id::{InstanceId, NodeId, SnapshotId, VolumeId};
use backups_core::operation::CallError;
use futures_util::future::join_all;

use super::tags::Whose;
use super::{Ec2, SIDE_BY_SIDE, snapshot_id};

impl Ec2 {
    /// Makes the calls, side by side, and tells what each came to. `may_begin`
    /// is asked before each wave: a call that would outlive the invocation is not begun.
    pub async fn act(
        &self,
        actions: Vec<Action>,
        whose: &Whose,
        may_begin: impl Fn() -> bool,
    ) -> Vec<(Action, Outcome)> {
        let mut outcomes = Vec::with_capacity(actions.len());
        for wave in actions.chunks(SIDE_BY_SIDE) {
            let outcome = if may_begin() {
                join_all(wave.iter().map(|action| self.one(action, whose))).await
            } else {
                vec![Outcome::NotBegun; wave.len()]
            };
            outcomes.extend(outcome);
        }
        for (action, outcome) in actions.iter().zip(&outcomes) {
            if let Outcome::Failed(error) = outcome {
                tracing::warn!(%error, action = name(action), "a call of EC2 failed");
            }
        }
        actions.into_iter().zip(outcomes).collect()
    }

    async fn one(&self, action: &Action, whose: &Whose) -> Outcome {
        let result = match action {
            Action::CreateSnapshots { node_id, instance_id, attempt, description, volumes } => {
                self.create_snapshots(*node_id, instance_id, *attempt, description, volumes, whose)
                    .await
            }
            Action::DeleteSnapshot(id) => self.delete_snapshot(id).await.map(|()| Outcome::Deleted),
        };
        result.unwrap_or_else(Outcome::Failed)
    }

    /// One `CreateSnapshots` without retries: the call has no client token, and
    /// one that is repeated after a lost reply takes the snapshots twice.
    async fn create_snapshots(
        &self,
        node: NodeId,
        instance: &InstanceId,
        attempt: u32,
        description: &str,
        volumes: &[Volume],
        whose: &Whose,
    ) -> Result<Outcome, CallError> {
        let set = InstanceSpecification::builder()
            .instance_id(instance.as_str())
            .exclude_boot_volume(true)
            .build();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::Snapshot)
            .set_tags(Some(whose.of_set(node, attempt, volumes)))
            .build();
        let once = aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled());
        let reply = self
            .client
            .create_snapshots()
            .instance_specification(set)
            .description(description)
            .tag_specifications(tags)
            .customize()
            .config_override(once)
            .send()
            .await
            .map_err(|error| crate::error::sort(&error))?;
        let made = reply.snapshots().iter().filter_map(|made| {
            Some(Taken {
                snapshot_id: snapshot_id(made.snapshot_id())?,
                volume_id: VolumeId::from(made.volume_id()?),
                size_gib: u64::try_from(made.volume_size()?).ok()?,
                progress: 0,
                asked: false,
            })
        });
        Ok(Outcome::Created(made.collect()))
    }

    /// One `DeleteSnapshot`, idempotent: what is not there is deleted.
    pub(super) async fn delete_snapshot(&self, id: &SnapshotId) -> Result<(), CallError> {
        let reply = self.client.delete_snapshot().snapshot_id(id.as_str()).send().await;
        match reply.map_err(|error| crate::error::sort(&error)) {
            Err(CallError::Rejected { code, .. }) if code == "InvalidSnapshot.NotFound" => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// The stack that this client acts for.
    pub fn stack(&self) -> &str {
        &self.stack
    }
}

/// The API operation of an action.
fn name(action: &Action) -> &'static str {
    match action {
        Action::CreateSnapshots { .. } => "CreateSnapshots",
        Action::DeleteSnapshot(_) => "DeleteSnapshot",
    }
}
