//! The calls of a restore. Each is safe to repeat: `CreateVolume` bears a client token
//! made of the restore, the node, the device, and the attempt; all others are answered
//! with what is so already.

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{
    EbsInstanceBlockDeviceSpecification, InstanceBlockDeviceMappingSpecification, ResourceType,
    Tag, TagSpecification, VolumeType,
};
use backups_core::id::{NodeId, SnapshotId, VolumeId};
use backups_core::operation::CallError;
use backups_core::restore::{Action, Call, Outcome, Setting};
use futures_util::future::join_all;

use super::tags::Restoring;
use super::{Ec2, SIDE_BY_SIDE};

/// The fastest initialization that EC2 sells, in MiB/s (EBS user guide, "Volume
/// initialization rate": 100 to 300). A Region has 5,000 of them at a time.
const INITIALIZATION_RATE: i32 = 300;

/// What EC2 answers to a dry run that it would have carried out (EC2 API reference,
/// `DryRun`).
const WOULD: &str = "DryRunOperation";

impl Ec2 {
    /// Makes the calls, side by side, and tells what each came to. `may_begin` is asked
    /// before each wave: a call that would outlive the invocation is not begun.
    pub async fn act_for_restore(
        &self,
        actions: Vec<Action>,
        whose: &Restoring,
        may_begin: impl Fn() -> bool,
    ) -> Vec<(Action, Outcome)> {
        let mut outcomes = Vec::with_capacity(actions.len());
        for wave in actions.chunks(SIDE_BY_SIDE) {
            let outcome = if may_begin() {
                join_all(wave.iter().map(|action| self.one_for_restore(action, whose))).await
            } else {
                vec![Outcome::NotBegun; wave.len()]
            };
            outcomes.extend(outcome);
        }
        for (action, outcome) in actions.iter().zip(&outcomes) {
            if let Outcome::Failed(error) = outcome {
                let (name, dry) = (action.call.name(), action.dry);
                tracing::warn!(%error, action = name, dry, "a call of EC2 failed");
            }
        }
        actions.into_iter().zip(outcomes).collect()
    }

    async fn one_for_restore(&self, action: &Action, whose: &Restoring) -> Outcome {
        let made = match &action.call {
            Call::CreateVolume { node_id, setting, snapshot_id, attempt, with_rate } => {
                let token = token(whose, *node_id, &setting.device, *attempt);
                self.create_volume(setting, snapshot_id, *with_rate, token, action.dry, whose).await
            }
            call => self.simple(call, action.dry, whose).await.map(|()| Outcome::Done),
        };
        match made {
            Ok(outcome) => outcome,
            Err(CallError::Rejected { code, .. }) if action.dry && code == WOULD => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn create_volume(
        &self,
        setting: &Setting,
        snapshot: &SnapshotId,
        with_rate: bool,
        token: String,
        dry: bool,
        whose: &Restoring,
    ) -> Result<Outcome, CallError> {
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::Volume)
            .set_tags(Some(whose.of_volume(&setting.tags)))
            .build();
        let reply = self
            .client
            .create_volume()
            .snapshot_id(snapshot.as_str())
            .availability_zone(&setting.zone)
            .volume_type(VolumeType::from(setting.volume_type.as_str()))
            .size(i32::try_from(setting.size_gib).unwrap_or(i32::MAX))
            .set_iops(setting.iops)
            .set_throughput(setting.throughput)
            .set_encrypted(setting.kms_key_id.as_ref().map(|_| true))
            .set_kms_key_id(setting.kms_key_id.clone())
            .set_volume_initialization_rate(with_rate.then_some(INITIALIZATION_RATE))
            .tag_specifications(tags)
            .client_token(token)
            .set_dry_run(dry.then_some(true))
            .send()
            .await
            .map_err(|error| crate::error::sort(&error))?;
        match reply.volume_id() {
            Some(id) => Ok(Outcome::Created(VolumeId::from(id))),
            None => Err(CallError::Unknown("CreateVolume answered without a volume".to_owned())),
        }
    }

    /// Every call whose answer says no more than that it was taken.
    async fn simple(&self, call: &Call, dry: bool, whose: &Restoring) -> Result<(), CallError> {
        let client = &self.client;
        let dry = dry.then_some(true);
        match call {
            Call::CreateVolume { .. } => Ok(()),
            Call::Stop(id) => taken(
                client.stop_instances().instance_ids(id.as_str()).set_dry_run(dry).send().await,
            ),
            Call::Start(id) => taken(
                client.start_instances().instance_ids(id.as_str()).set_dry_run(dry).send().await,
            ),
            Call::Detach { instance_id, volume_id, device } => already(
                taken(
                    client
                        .detach_volume()
                        .instance_id(instance_id.as_str())
                        .volume_id(volume_id.as_str())
                        .device(device)
                        .set_dry_run(dry)
                        .send()
                        .await,
                ),
                // It does not hang there (EC2 API reference, "Error codes").
                &["InvalidAttachment.NotFound"],
            ),
            Call::Attach { instance_id, volume_id, device } => taken(
                client
                    .attach_volume()
                    .instance_id(instance_id.as_str())
                    .volume_id(volume_id.as_str())
                    .device(device)
                    .set_dry_run(dry)
                    .send()
                    .await,
            ),
            Call::SetDeleteOnTermination { instance_id, device, to } => {
                let ebs = EbsInstanceBlockDeviceSpecification::builder()
                    .delete_on_termination(*to)
                    .build();
                let one = InstanceBlockDeviceMappingSpecification::builder()
                    .device_name(device)
                    .ebs(ebs)
                    .build();
                taken(
                    client
                        .modify_instance_attribute()
                        .instance_id(instance_id.as_str())
                        .block_device_mappings(one)
                        .set_dry_run(dry)
                        .send()
                        .await,
                )
            }
            Call::Keep(id) => taken(
                client
                    .create_tags()
                    .resources(id.as_str())
                    .set_tags(Some(whose.tags()))
                    .set_dry_run(dry)
                    .send()
                    .await,
            ),
            Call::Release(id) => {
                let keys =
                    whose.pairs().into_iter().map(|(key, _)| Tag::builder().key(key).build());
                taken(
                    client
                        .delete_tags()
                        .resources(id.as_str())
                        .set_tags(Some(keys.collect()))
                        .set_dry_run(dry)
                        .send()
                        .await,
                )
            }
            Call::DeleteVolume(id) => already(
                taken(client.delete_volume().volume_id(id.as_str()).set_dry_run(dry).send().await),
                &["InvalidVolume.NotFound"],
            ),
        }
    }

    /// One `DeleteVolume`, idempotent: what is not there is deleted.
    pub(super) async fn delete_volume(&self, id: &VolumeId) -> Result<(), CallError> {
        let reply = self.client.delete_volume().volume_id(id.as_str()).send().await;
        already(taken(reply), &["InvalidVolume.NotFound"])
    }
}

/// What a call came to whose answer is of no further use.
fn taken<T, E>(reply: Result<T, SdkError<E>>) -> Result<(), CallError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    reply.map(|_| ()).map_err(|error| crate::error::sort(&error))
}

/// The same, where these refusals say that it is so already.
fn already(done: Result<(), CallError>, codes: &[&str]) -> Result<(), CallError> {
    match done {
        Err(CallError::Rejected { code, .. }) if codes.contains(&code.as_str()) => Ok(()),
        other => other,
    }
}

/// The client token of one attempt: at most 64 ASCII characters (EC2 API reference,
/// "Ensuring idempotency").
fn token(whose: &Restoring, node: NodeId, device: &str, attempt: u32) -> String {
    let device = device.rsplit('/').next().unwrap_or_default();
    let start: String = whose.token.as_str().chars().take(20).collect();
    format!("{start}-{:x}-{device:.16}-{attempt}", node.0)
}
