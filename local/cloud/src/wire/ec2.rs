//! EC2's operations: what a request is about, what of it must hold, what it
//! does, and its answer.

use jiff::Timestamp;

use super::query::Query;
use super::requests::{instance_volumes, resource_ids, snapshot_request, tag_pairs};
use super::xml::{self, Node, items, text};
use super::{Reply, internal_error};
use crate::Cloud;
use crate::error::{Ec2Error, Ec2Result};
use crate::faults::Verdict;
use crate::tags;
use crate::throttle::Limit;

const SERVICE: &str = "ec2";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    AttachVolume,
    CreateSnapshot,
    CreateSnapshots,
    CreateTags,
    CreateVolume,
    DeleteSnapshot,
    DeleteTags,
    DeleteVolume,
    DescribeAvailabilityZones,
    DescribeInstanceAttribute,
    DescribeInstanceTypes,
    DescribeInstances,
    DescribeSnapshots,
    DescribeSpotInstanceRequests,
    DescribeTags,
    DescribeVolumeStatus,
    DescribeVolumes,
    DetachVolume,
    ModifyInstanceAttribute,
    StartInstances,
    StopInstances,
}

const OPERATIONS: &[(&str, Operation)] = &[
    ("AttachVolume", Operation::AttachVolume),
    ("CreateSnapshot", Operation::CreateSnapshot),
    ("CreateSnapshots", Operation::CreateSnapshots),
    ("CreateTags", Operation::CreateTags),
    ("CreateVolume", Operation::CreateVolume),
    ("DeleteSnapshot", Operation::DeleteSnapshot),
    ("DeleteTags", Operation::DeleteTags),
    ("DeleteVolume", Operation::DeleteVolume),
    ("DescribeAvailabilityZones", Operation::DescribeAvailabilityZones),
    ("DescribeInstanceAttribute", Operation::DescribeInstanceAttribute),
    ("DescribeInstanceTypes", Operation::DescribeInstanceTypes),
    ("DescribeInstances", Operation::DescribeInstances),
    ("DescribeSnapshots", Operation::DescribeSnapshots),
    ("DescribeSpotInstanceRequests", Operation::DescribeSpotInstanceRequests),
    ("DescribeTags", Operation::DescribeTags),
    ("DescribeVolumeStatus", Operation::DescribeVolumeStatus),
    ("DescribeVolumes", Operation::DescribeVolumes),
    ("DetachVolume", Operation::DetachVolume),
    ("ModifyInstanceAttribute", Operation::ModifyInstanceAttribute),
    ("StartInstances", Operation::StartInstances),
    ("StopInstances", Operation::StopInstances),
];

/// The names of the operations that are simulated.
pub(crate) fn operations() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, _)| *name)
}

impl Cloud {
    /// Answers an EC2 request: a form-encoded body of API version 2016-11-15.
    ///
    /// In this order: an armed fault strikes, the action's token bucket is
    /// asked, the parameters are checked, a dry run ends, the work is done.
    pub fn ec2(&mut self, now: Timestamp, body: &[u8]) -> Reply {
        self.advance(now);
        let query = Query::parse(body);
        let request_id = self.uuid();
        let name: String = query.get("Action").unwrap_or_default().chars().take(64).collect();
        let Some((_, operation)) = OPERATIONS.iter().find(|(known, _)| *known == name) else {
            let error = match name.as_str() {
                "" => Ec2Error::new("MissingAction", "The request must contain an Action."),
                name => Ec2Error::invalid_action(name),
            };
            self.record(now, SERVICE, &name, &[], false, &error.code);
            return xml::error(&error, &request_id);
        };
        let mut about = self.about(*operation, &query);
        let dry_run = query.flag("DryRun").unwrap_or(false);
        let verdict = self.verdict(&name, &about);
        let result = match &verdict {
            Verdict::Proceed | Verdict::LoseReply => {
                self.carry_out(*operation, &name, &query, &mut about)
            }
            Verdict::Throttle => Err(Ec2Error::throttled()),
            Verdict::Error(code) => {
                let code = code.as_deref().unwrap_or(internal_error(SERVICE));
                Err(Ec2Error::new(code, "A fault was armed for this call."))
            }
            Verdict::Hang => {
                self.record(now, SERVICE, &name, &about, dry_run, "hang");
                return Reply::Hang;
            }
        };
        let outcome = result.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
        self.record(now, SERVICE, &name, &about, dry_run, outcome);
        match (verdict, result) {
            (Verdict::LoseReply, _) => Reply::LoseReply,
            (_, Ok(nodes)) => xml::answer(&name, &request_id, &nodes),
            (_, Err(error)) => xml::error(&error, &request_id),
        }
    }

    /// The resources that a request names, for the log and for faults; also
    /// those of a request that is going to be refused.
    fn about(&self, operation: Operation, query: &Query) -> Vec<String> {
        let filtered = |name: &str| -> Vec<String> {
            let filters = query.members("Filter").into_iter();
            let named = filters.filter(|filter| filter.get("Name") == Some(name));
            named.flat_map(|filter| filter.list("Value")).collect()
        };
        let named = |names: &[&str]| -> Vec<String> {
            names.iter().filter_map(|name| query.get(name)).map(str::to_owned).collect()
        };
        match operation {
            Operation::CreateSnapshots => {
                let which = instance_volumes(query).ok();
                let volumes = which.as_ref().and_then(|which| self.volumes_of(which).ok());
                let instance = which.map(|which| which.instance);
                instance.into_iter().chain(volumes.unwrap_or_default()).collect()
            }
            Operation::CreateSnapshot | Operation::DeleteVolume => named(&["VolumeId"]),
            Operation::DeleteSnapshot | Operation::CreateVolume => named(&["SnapshotId"]),
            Operation::AttachVolume | Operation::DetachVolume => named(&["VolumeId", "InstanceId"]),
            Operation::DescribeInstanceAttribute | Operation::ModifyInstanceAttribute => {
                named(&["InstanceId"])
            }
            Operation::StartInstances | Operation::StopInstances => query.list("InstanceId"),
            Operation::DescribeSpotInstanceRequests => filtered("instance-id"),
            Operation::DescribeVolumeStatus => query.list("VolumeId"),
            Operation::DescribeAvailabilityZones | Operation::DescribeInstanceTypes => Vec::new(),
            Operation::CreateTags | Operation::DeleteTags => query.list("ResourceId"),
            Operation::DescribeInstances => {
                [query.list("InstanceId"), filtered("instance-id")].concat()
            }
            Operation::DescribeVolumes => {
                let instances = filtered("attachment.instance-id");
                [query.list("VolumeId"), filtered("volume-id"), instances].concat()
            }
            Operation::DescribeSnapshots => {
                [query.list("SnapshotId"), filtered("snapshot-id"), filtered("volume-id")].concat()
            }
            Operation::DescribeTags => filtered("resource-id"),
        }
    }

    fn carry_out(
        &mut self,
        operation: Operation,
        name: &str,
        query: &Query,
        about: &mut Vec<String>,
    ) -> Ec2Result<Vec<Node>> {
        let (bucket, limit) = bucket(operation, name, query);
        if !self.take_token(&bucket, limit) {
            return Err(Ec2Error::throttled());
        }
        match operation {
            Operation::CreateSnapshots => {
                let (which, request) = (instance_volumes(query)?, snapshot_request(query)?);
                let made = self.create_snapshots(&which, &request)?;
                about.extend(made.iter().cloned());
                let made = made.iter().filter_map(|id| self.snapshots.get(id));
                Ok(vec![items("snapshotSet", made.map(|s| self.snapshot_info(s)))])
            }
            Operation::CreateSnapshot => {
                let volume = query.required("VolumeId")?;
                let made = self.create_snapshot(volume, &snapshot_request(query)?)?;
                about.extend(made.iter().cloned());
                let made = made.iter().filter_map(|id| self.snapshots.get(id));
                Ok(made.flat_map(|s| self.snapshot_nodes(s, false)).collect())
            }
            Operation::DeleteSnapshot => {
                self.delete_snapshot(query.required("SnapshotId")?, query.flag("DryRun")?)?;
                Ok(vec![text("return", true)])
            }
            Operation::CreateVolume => self.answer_create_volume(query, about),
            Operation::DeleteVolume => {
                self.delete_volume(query.required("VolumeId")?, query.flag("DryRun")?)?;
                Ok(vec![text("return", true)])
            }
            Operation::AttachVolume => self.answer_attach_volume(query),
            Operation::DetachVolume => self.answer_detach_volume(query),
            Operation::StopInstances => self.answer_stop_instances(query),
            Operation::StartInstances => self.answer_start_instances(query),
            Operation::ModifyInstanceAttribute => self.answer_modify_instance(query),
            Operation::CreateTags => {
                let new = tags::check_new(tag_pairs(query)?)?;
                if new.is_empty() {
                    return Err(Ec2Error::missing("Tag"));
                }
                self.create_tags(&resource_ids(query)?, &new, query.flag("DryRun")?)?;
                Ok(vec![text("return", true)])
            }
            Operation::DeleteTags => {
                let gone: Vec<tags::DeletedTag> = query
                    .members("Tag")
                    .iter()
                    .map(|tag| {
                        Ok((tag.required("Key")?.to_owned(), tag.get("Value").map(str::to_owned)))
                    })
                    .collect::<Ec2Result<_>>()?;
                self.delete_tags(&resource_ids(query)?, &gone, query.flag("DryRun")?)?;
                Ok(vec![text("return", true)])
            }
            Operation::DescribeInstances => self.describe_instances(query),
            Operation::DescribeVolumes => self.describe_volumes(query),
            Operation::DescribeSnapshots => self.describe_snapshots(query),
            Operation::DescribeTags => self.describe_tags(query),
            Operation::DescribeVolumeStatus => self.describe_volume_status(query),
            Operation::DescribeInstanceAttribute => self.describe_instance_attribute(query),
            Operation::DescribeInstanceTypes => self.describe_instance_types(query),
            Operation::DescribeSpotInstanceRequests => self.describe_spot_requests(query),
            Operation::DescribeAvailabilityZones => self.describe_zones(query),
        }
    }
}

/// An action's token bucket, by its name, and how much it holds (T).
fn bucket(operation: Operation, name: &str, query: &Query) -> (String, Limit) {
    // A describe of one thing by its id, or of those by a filter or in pages.
    let narrow = [
        "InstanceId",
        "InstanceId.1",
        "VolumeId.1",
        "SnapshotId.1",
        "SpotInstanceRequestId.1",
        "InstanceType.1",
        "ZoneName.1",
        "ZoneId.1",
        "Filter.1.Name",
        "MaxResults",
    ];
    let limit = match operation {
        Operation::CreateSnapshot | Operation::CreateSnapshots | Operation::DeleteSnapshot => {
            Limit::SNAPSHOTS
        }
        Operation::CreateVolume | Operation::DeleteVolume => Limit::VOLUMES,
        Operation::CreateTags | Operation::DeleteTags => Limit::TAGS,
        Operation::AttachVolume
        | Operation::DetachVolume
        | Operation::StopInstances
        | Operation::ModifyInstanceAttribute => Limit::MUTATING,
        Operation::StartInstances => Limit::START,
        _ if narrow.iter().any(|field| query.get(field).is_some()) => Limit::FILTERED,
        _ => return (format!("{name} of all"), Limit::UNFILTERED),
    };
    (name.to_owned(), limit)
}
