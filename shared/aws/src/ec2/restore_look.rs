//! Looking at EC2 for a restore: instances with what hangs on them, volumes, and what
//! of an instance stands in the way of stopping it.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    AttributeBooleanValue, EbsInfo, HibernationOptions, Instance as Ec2Instance,
    InstanceAttributeName, InstanceLifecycleType, Reservation, SpotInstanceType,
    Volume as Ec2Volume,
};
use backups_core::backup::Presence;
use backups_core::id::{InstanceId, SnapshotId, VolumeId};
use backups_core::operation::CallError;
use backups_core::restore::{Attached, Look, Machine, Seen, SeenVolume};
use backups_core::time::Time;
use futures_util::future::try_join_all;

use super::look::{filter, refused};
use super::tags::Restoring;
use super::{CHUNK, Ec2, PAGE, SIDE_BY_SIDE};

/// The tag by which an Auto Scaling group marks its instances (EC2 Auto Scaling user
/// guide).
const AUTO_SCALING: &str = "aws:autoscaling:groupName";

impl Ec2 {
    /// Looks at all of EC2 that `look` asks for. What is in the table is the caller's.
    ///
    /// # Errors
    /// Any call that failed: what was seen is whole or nothing.
    pub async fn look_for_restore(
        &self,
        look: &Look,
        whose: &Restoring,
    ) -> Result<Seen, CallError> {
        let mut seen = Seen::default();
        if !look.instances.is_empty() {
            seen.instances = self.machines(look).await?;
        }
        if !look.volumes.is_empty() {
            seen.volumes = self.volumes(&look.volumes, whose).await?;
        }
        if look.tagged {
            let pairs = whose.pairs().into_iter();
            let filters =
                pairs.map(|(key, value)| filter(&format!("tag:{key}"), vec![value])).collect();
            let mut pages = self
                .client
                .describe_volumes()
                .set_filters(Some(filters))
                .into_paginator()
                .page_size(PAGE)
                .send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| refused("DescribeVolumes", &error))?;
                seen.tagged.extend(page.volumes().iter().filter_map(|one| volume(one, whose)));
            }
        }
        Ok(seen)
    }

    /// Whether each of a backup's snapshots is there.
    ///
    /// # Errors
    /// As [`Ec2::look_for_restore`].
    pub async fn snapshots_for_restore(
        &self,
        ids: &[SnapshotId],
    ) -> Result<BTreeMap<SnapshotId, Presence>, CallError> {
        self.presence(ids, true).await
    }

    async fn machines(&self, look: &Look) -> Result<BTreeMap<InstanceId, Machine>, CallError> {
        let mut machines = BTreeMap::new();
        let mut found = Vec::new();
        for chunk in look.instances.chunks(CHUNK) {
            let values = chunk.iter().map(|id| id.0.clone()).collect();
            let mut pages = self
                .client
                .describe_instances()
                .filters(filter("instance-id", values))
                .into_paginator()
                .page_size(PAGE)
                .send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| refused("DescribeInstances", &error))?;
                found.extend(page.reservations().iter().flat_map(Reservation::instances).cloned());
            }
        }
        for instance in &found {
            let Some(id) = instance.instance_id() else { continue };
            machines.insert(InstanceId::from(id), machine(instance));
        }
        let missing: Vec<_> =
            look.instances.iter().filter(|id| !machines.contains_key(*id)).cloned().collect();
        for id in missing {
            match self.confirm_instance(&id).await? {
                Confirmed::Shown(instance) => {
                    machines.insert(id, machine(&instance));
                    found.push(*instance);
                }
                Confirmed::Gone => {
                    let gone = Machine { state: "terminated".to_owned(), ..Machine::default() };
                    machines.insert(id, gone);
                }
                Confirmed::Neither => {}
            }
        }
        if look.settings_of_volumes {
            let mut all = self.instances(&look.instances).await?;
            for (id, machine) in &mut machines {
                machine.volumes = all.remove(id).map(|one| one.data_volumes).unwrap_or_default();
            }
        }
        if look.traits {
            self.judge(&found, &mut machines).await?;
        }
        Ok(machines)
    }

    /// What EC2 says when it is asked for this very id.
    async fn confirm_instance(&self, id: &InstanceId) -> Result<Confirmed, CallError> {
        match self.client.describe_instances().instance_ids(id.as_str()).send().await {
            Ok(reply) => {
                let mut shown = reply.reservations().iter().flat_map(Reservation::instances);
                let shown = shown.find(|one| one.instance_id() == Some(id.as_str()));
                let shown = shown.cloned().map(Box::new);
                Ok(shown.map_or(Confirmed::Neither, Confirmed::Shown))
            }
            Err(error) => match refused("DescribeInstances", &error) {
                CallError::Rejected { code, .. } if code == "InvalidInstanceID.NotFound" => {
                    Ok(Confirmed::Gone)
                }
                other => Err(other),
            },
        }
    }

    /// What of each instance stands in a restore's way.
    async fn judge(
        &self,
        found: &[Ec2Instance],
        machines: &mut BTreeMap<InstanceId, Machine>,
    ) -> Result<(), CallError> {
        let types: BTreeSet<_> =
            found.iter().filter_map(|one| one.instance_type().cloned()).collect();
        let mut most = BTreeMap::new();
        for chunk in types.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
            let reply = self
                .client
                .describe_instance_types()
                .set_instance_types(Some(chunk.to_vec()))
                .send()
                .await
                .map_err(|error| refused("DescribeInstanceTypes", &error))?;
            for one in reply.instance_types() {
                let limit = one.ebs_info().and_then(EbsInfo::maximum_ebs_attachments);
                if let (Some(kind), Some(limit)) = (one.instance_type(), limit) {
                    most.insert(kind.clone(), usize::try_from(limit).unwrap_or(0));
                }
            }
        }
        let one_time = self.one_time_spot(found).await?;
        for wave in found.chunks(SIDE_BY_SIDE) {
            let protected =
                try_join_all(wave.iter().map(|one| self.is_stop_protected(one))).await?;
            for (instance, protected) in wave.iter().zip(protected) {
                let Some(id) = instance.instance_id() else { continue };
                let Some(machine) = machines.get_mut(&InstanceId::from(id)) else { continue };
                machine.unfit = unfit(instance, protected, one_time.contains(id));
                machine.most_volumes =
                    instance.instance_type().and_then(|kind| most.get(kind).copied());
            }
        }
        Ok(())
    }

    /// Of Spot Instances those whose request is fulfilled once: they cannot be stopped
    /// (EC2 user guide, "Stop and start your Spot Instances").
    async fn one_time_spot(&self, found: &[Ec2Instance]) -> Result<BTreeSet<String>, CallError> {
        let spot = found
            .iter()
            .filter(|one| one.instance_lifecycle() == Some(&InstanceLifecycleType::Spot));
        let mut one_time = BTreeSet::new();
        let all: Vec<_> = spot
            .filter_map(|one| Some((one.instance_id()?, one.spot_instance_request_id()?)))
            .collect();
        for chunk in all.chunks(CHUNK) {
            let ids = chunk.iter().map(|(_, request)| (*request).to_owned()).collect();
            let reply = self
                .client
                .describe_spot_instance_requests()
                .set_spot_instance_request_ids(Some(ids))
                .send()
                .await
                .map_err(|error| refused("DescribeSpotInstanceRequests", &error))?;
            for request in reply.spot_instance_requests() {
                if request.r#type() != Some(&SpotInstanceType::Persistent) {
                    let of = chunk
                        .iter()
                        .filter(|(_, id)| Some(*id) == request.spot_instance_request_id());
                    one_time.extend(of.map(|(instance, _)| (*instance).to_owned()));
                }
            }
        }
        Ok(one_time)
    }

    async fn is_stop_protected(&self, instance: &Ec2Instance) -> Result<bool, CallError> {
        let reply = self
            .client
            .describe_instance_attribute()
            .instance_id(instance.instance_id().unwrap_or_default())
            .attribute(InstanceAttributeName::DisableApiStop)
            .send()
            .await
            .map_err(|error| refused("DescribeInstanceAttribute", &error))?;
        Ok(reply.disable_api_stop().and_then(AttributeBooleanValue::value).unwrap_or(false))
    }

    /// Volumes by id. One that the list leaves out is asked for by its own id.
    async fn volumes(
        &self,
        ids: &[VolumeId],
        whose: &Restoring,
    ) -> Result<BTreeMap<VolumeId, SeenVolume>, CallError> {
        let mut seen: BTreeMap<_, _> =
            ids.iter().map(|id| (id.clone(), SeenVolume::Unlisted)).collect();
        for chunk in ids.chunks(CHUNK) {
            let values = chunk.iter().map(|id| id.0.clone()).collect();
            let mut pages = self
                .client
                .describe_volumes()
                .filters(filter("volume-id", values))
                .into_paginator()
                .page_size(PAGE)
                .send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| refused("DescribeVolumes", &error))?;
                seen.extend(page.volumes().iter().filter_map(|one| volume(one, whose)));
            }
        }
        let unlisted: Vec<_> = seen
            .iter()
            .filter(|(_, one)| **one == SeenVolume::Unlisted)
            .map(|(id, _)| id.clone())
            .collect();
        for wave in unlisted.chunks(SIDE_BY_SIDE) {
            seen.extend(try_join_all(wave.iter().map(|id| self.confirm_volume(id, whose))).await?);
        }
        Ok(seen)
    }

    async fn confirm_volume(
        &self,
        id: &VolumeId,
        whose: &Restoring,
    ) -> Result<(VolumeId, SeenVolume), CallError> {
        match self.client.describe_volumes().volume_ids(id.as_str()).send().await {
            Ok(reply) => Ok(reply
                .volumes()
                .iter()
                .find_map(|one| volume(one, whose))
                .unwrap_or((id.clone(), SeenVolume::Unlisted))),
            Err(error) => match refused("DescribeVolumes", &error) {
                CallError::Rejected { code, .. } if code == "InvalidVolume.NotFound" => {
                    Ok((id.clone(), SeenVolume::NotFound))
                }
                other => Err(other),
            },
        }
    }
}

/// What EC2 says of an instance that it left out of a list.
enum Confirmed {
    Shown(Box<Ec2Instance>),
    Gone,
    /// It neither shows nor denies it.
    Neither,
}

/// An instance as the rules see it.
fn machine(instance: &Ec2Instance) -> Machine {
    let root = instance.root_device_name().unwrap_or_default();
    let attached = instance.block_device_mappings().iter().filter_map(|one| {
        let (device, ebs) = (one.device_name()?, one.ebs()?);
        (device != root).then(|| Attached {
            volume_id: VolumeId::from(ebs.volume_id().unwrap_or_default()),
            device: device.to_owned(),
            state: ebs.status().map_or("", |state| state.as_str()).to_owned(),
            delete_on_termination: ebs.delete_on_termination().unwrap_or(false),
        })
    });
    let mut attached: Vec<_> = attached.collect();
    attached.sort_by(|a, b| a.device.cmp(&b.device));
    let state = instance.state().and_then(|state| state.name());
    Machine {
        state: state.map_or("unknown", |name| name.as_str()).to_owned(),
        state_reason: instance.state_reason().and_then(|reason| reason.code()).map(str::to_owned),
        zone: instance
            .placement()
            .and_then(|placement| placement.availability_zone())
            .unwrap_or_default()
            .to_owned(),
        launched_at: instance.launch_time().map(|at| Time::from_unix(at.secs())),
        root_device: root.to_owned(),
        attached,
        volumes: Vec::new(),
        unfit: None,
        most_volumes: None,
    }
}

/// Why an instance cannot be stopped and started, as a sentence.
fn unfit(instance: &Ec2Instance, protected: bool, one_time: bool) -> Option<String> {
    let tag = |key: &str| {
        instance.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value())
    };
    let stopped = instance
        .state()
        .and_then(|state| state.name())
        .is_some_and(|name| name.as_str() == "stopped");
    let hibernates =
        instance.hibernation_options().and_then(HibernationOptions::configured).unwrap_or(false);
    if protected {
        return Some("it is protected against being stopped. Take the stop protection off (ModifyInstanceAttribute, DisableApiStop), then restore again.".to_owned());
    }
    if one_time {
        return Some("it is a one-time Spot Instance, which EC2 does not stop. Move the node to another instance, then restore again.".to_owned());
    }
    if let Some(group) = tag(AUTO_SCALING) {
        return Some(format!(
            "it is in the Auto Scaling group {group}, which replaces an instance that is stopped. Detach it from the group, then restore again."
        ));
    }
    if let Some(operator) = instance.operator().filter(|one| one.managed() == Some(true)) {
        let by = operator.principal().unwrap_or("another service");
        return Some(format!("it is managed by {by}, which alone may stop it. Restore by hand."));
    }
    if hibernates && stopped {
        return Some("it is stopped and may be hibernated: its memory would not fit the volumes. Start it, then restore again.".to_owned());
    }
    None
}

/// A volume as the rules see it.
fn volume(found: &Ec2Volume, whose: &Restoring) -> Option<(VolumeId, SeenVolume)> {
    let instances = found.attachments().iter().filter_map(|one| one.instance_id());
    let there = SeenVolume::There {
        state: found.state().map_or("", |state| state.as_str()).to_owned(),
        snapshot_id: found.snapshot_id().filter(|id| !id.is_empty()).map(SnapshotId::from),
        instances: instances.map(InstanceId::from).collect(),
        of: whose.restore_of(found.tags()),
    };
    Some((VolumeId::from(found.volume_id()?), there))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{
        InstanceState, InstanceStateName, OperatorResponse, Tag, builders::InstanceBuilder,
    };

    use super::*;

    #[test]
    fn each_cause_that_keeps_an_instance_from_a_stop_and_a_start_is_told() {
        let state = |name: InstanceStateName| InstanceState::builder().name(name).build();
        let running = || Ec2Instance::builder().state(state(InstanceStateName::Running));
        let grouped = Tag::builder().key(AUTO_SCALING).value("nodes").build();
        let operator =
            OperatorResponse::builder().managed(true).principal("eks.amazonaws.com").build();
        let hibernates = HibernationOptions::builder().configured(true).build();
        let told = |instance: InstanceBuilder, protected, one_time| {
            unfit(&instance.build(), protected, one_time).unwrap_or_default()
        };
        assert!(told(running(), true, false).contains("stop protection"));
        assert!(told(running(), false, true).contains("one-time Spot"));
        assert!(told(running().tags(grouped), false, false).contains("Auto Scaling group nodes"));
        assert!(told(running().operator(operator), false, false).contains("eks.amazonaws.com"));
        let asleep = Ec2Instance::builder()
            .state(state(InstanceStateName::Stopped))
            .hibernation_options(hibernates.clone());
        assert!(told(asleep, false, false).contains("hibernated"));
        // It runs: it is stopped without hibernation.
        assert_eq!(told(running().hibernation_options(hibernates), false, false), "");
        assert_eq!(told(running(), false, false), "");
    }
}
