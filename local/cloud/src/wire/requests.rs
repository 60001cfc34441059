//! What requests ask for, read off their fields.

use super::query::Query;
use crate::Cloud;
use crate::attachments::Detachment;
use crate::creation::VolumeRequest;
use crate::error::{Ec2Error, Ec2Result};
use crate::power::Stop;
use crate::snapshots::{InstanceVolumes, SnapshotRequest};
use crate::tags;
use crate::traits::Change;
use crate::world::Tags;

/// Characters of a snapshot's description [M, and EC2's own check].
const LONGEST_DESCRIPTION: usize = 255;

pub(super) fn resource_ids(query: &Query) -> Ec2Result<Vec<String>> {
    let ids = query.list("ResourceId");
    if ids.is_empty() { Err(Ec2Error::missing("ResourceId")) } else { Ok(ids) }
}

pub(super) fn instance_volumes(query: &Query) -> Ec2Result<InstanceVolumes> {
    Ok(InstanceVolumes {
        instance: query.required("InstanceSpecification.InstanceId")?.to_owned(),
        exclude_boot: query.flag("InstanceSpecification.ExcludeBootVolume")?,
        exclude_data: query.list("InstanceSpecification.ExcludeDataVolumeId"),
    })
}

pub(super) fn snapshot_request(query: &Query) -> Ec2Result<SnapshotRequest> {
    let description = query.get("Description").unwrap_or_default();
    if description.chars().count() > LONGEST_DESCRIPTION {
        return Err(Ec2Error::invalid(format!(
            "The description is longer than {LONGEST_DESCRIPTION} characters."
        )));
    }
    let copy_tags = match query.get("CopyTagsFromSource") {
        None | Some("") => false,
        Some("volume") => true,
        Some(other) => return Err(Ec2Error::invalid_value(other, "CopyTagsFromSource")),
    };
    Ok(SnapshotRequest {
        description: description.to_owned(),
        tags: new_tags(query, "snapshot")?,
        copy_tags,
        dry_run: query.flag("DryRun")?,
    })
}

/// The tags for what a call makes.
fn new_tags(query: &Query, resource_type: &str) -> Ec2Result<Tags> {
    let mut pairs = Vec::new();
    for specification in query.members("TagSpecification") {
        match specification.get("ResourceType") {
            Some(named) if named == resource_type => pairs.extend(tag_pairs(&specification)?),
            Some(other) => {
                return Err(Ec2Error::invalid(format!(
                    "'{other}' is not a valid taggable resource type for this operation."
                )));
            }
            None => {
                return Err(Ec2Error::invalid("Tag specification resource type must have a value"));
            }
        }
    }
    tags::check_new(pairs)
}

/// A tag without a value has the empty one (M).
pub(super) fn tag_pairs(query: &Query) -> Ec2Result<Vec<(String, String)>> {
    let pairs = query.members("Tag").into_iter().map(|tag| {
        Ok((tag.required("Key")?.to_owned(), tag.get("Value").unwrap_or_default().to_owned()))
    });
    pairs.collect()
}

fn texts(query: &Query, name: &str) -> Option<String> {
    query.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
}

fn small(query: &Query, name: &str) -> Ec2Result<Option<u32>> {
    let value = texts(query, name);
    let value = value.map(|text| text.parse().map_err(|_| Ec2Error::invalid_value(&text, name)));
    value.transpose()
}

impl Cloud {
    /// A `CreateVolume`, which names its zone one way or the other (M).
    pub(super) fn volume_request(&self, query: &Query) -> Ec2Result<VolumeRequest> {
        let zone = match (texts(query, "AvailabilityZone"), texts(query, "AvailabilityZoneId")) {
            (Some(_), Some(_)) => {
                return Err(Ec2Error::combination(
                    "Either AvailabilityZone or AvailabilityZoneId must be specified, but not both.",
                ));
            }
            (Some(name), None) => name,
            (None, Some(id)) => self.zone_of_id(&id).unwrap_or(id),
            (None, None) => return Err(Ec2Error::missing("AvailabilityZone")),
        };
        let encrypted = query.get("Encrypted").filter(|value| !value.is_empty());
        Ok(VolumeRequest {
            snapshot: texts(query, "SnapshotId"),
            zone,
            size: small(query, "Size")?,
            // "Default: gp2" [M].
            kind: texts(query, "VolumeType").unwrap_or_else(|| "gp2".to_owned()),
            iops: small(query, "Iops")?,
            throughput: small(query, "Throughput")?,
            encrypted: encrypted.map(|_| query.flag("Encrypted")).transpose()?,
            kms_key: texts(query, "KmsKeyId"),
            multi_attach: query.flag("MultiAttachEnabled")?,
            rate: small(query, "VolumeInitializationRate")?,
            tags: new_tags(query, "volume")?,
            token: texts(query, "ClientToken"),
            dry_run: query.flag("DryRun")?,
        })
    }
}

pub(super) fn detachment(query: &Query) -> Ec2Result<Detachment> {
    Ok(Detachment {
        volume: query.required("VolumeId")?.to_owned(),
        instance: texts(query, "InstanceId"),
        device: texts(query, "Device"),
        force: query.flag("Force")?,
        dry_run: query.flag("DryRun")?,
    })
}

pub(super) fn stop(query: &Query) -> Ec2Result<Stop> {
    Ok(Stop {
        force: query.flag("Force")?,
        hibernate: query.flag("Hibernate")?,
        dry_run: query.flag("DryRun")?,
    })
}

/// The instances that a call is about: at least one, none twice.
pub(super) fn instance_ids(query: &Query) -> Ec2Result<Vec<String>> {
    let mut ids: Vec<String> = Vec::new();
    for id in query.list("InstanceId") {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    if ids.is_empty() { Err(Ec2Error::missing("InstanceId")) } else { Ok(ids) }
}

/// Attributes that can be changed on AWS, and not here (M).
const ATTRIBUTES: [&str; 10] = [
    "Attribute",
    "InstanceType.Value",
    "EbsOptimized.Value",
    "EnaSupport.Value",
    "GroupId.1",
    "InstanceInitiatedShutdownBehavior.Value",
    "Kernel.Value",
    "SourceDestCheck.Value",
    "SriovNetSupport.Value",
    "UserData.Value",
];

/// The one attribute that a `ModifyInstanceAttribute` changes (M).
pub(super) fn change(query: &Query) -> Ec2Result<Change> {
    let mut changes = Vec::new();
    for (name, make) in [
        ("DisableApiStop.Value", Change::StopProtection as fn(bool) -> Change),
        ("DisableApiTermination.Value", Change::TerminationProtection),
    ] {
        if query.get(name).is_some() {
            changes.push(make(query.flag(name)?));
        }
    }
    let devices = query.members("BlockDeviceMapping");
    if !devices.is_empty() {
        let devices = devices.iter().map(|device| {
            // "If no value is specified [...], the default is true" [M].
            let goes = match device.get("Ebs.DeleteOnTermination") {
                None | Some("") => true,
                Some(_) => device.flag("Ebs.DeleteOnTermination")?,
            };
            Ok((device.required("DeviceName")?.to_owned(), goes))
        });
        changes.push(Change::DeleteOnTermination(devices.collect::<Ec2Result<_>>()?));
    }
    match (changes.pop(), changes.is_empty()) {
        (Some(change), true) => Ok(change),
        (Some(_), false) => {
            Err(Ec2Error::combination("Fields for multiple attribute types specified"))
        }
        (None, _) => {
            let other = ATTRIBUTES.iter().find(|name| query.get(name).is_some());
            Err(Ec2Error::combination(other.map_or_else(
                || "No attributes specified.".to_owned(),
                |name| format!("{name} is not simulated."),
            )))
        }
    }
}
