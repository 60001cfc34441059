//! EC2's operations: what a request is about, what of it must hold, what it
//! does, and its answer.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::filter::{Filters, Paging};
use super::query::Query;
use super::shapes::volume_nodes;
use super::xml::{self, Node, items, text};
use super::{Reply, internal_error};
use crate::Cloud;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::faults::Verdict;
use crate::snapshots::{InstanceVolumes, SnapshotRequest};
use crate::tags;
use crate::throttle::Limit;
use crate::world::Tags;

const SERVICE: &str = "ec2";
/// Characters of a snapshot's description [M, and EC2's own check].
const LONGEST_DESCRIPTION: usize = 255;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    CreateSnapshot,
    CreateSnapshots,
    CreateTags,
    DeleteSnapshot,
    DeleteTags,
    DescribeInstances,
    DescribeSnapshots,
    DescribeTags,
    DescribeVolumes,
}

const OPERATIONS: &[(&str, Operation)] = &[
    ("CreateSnapshot", Operation::CreateSnapshot),
    ("CreateSnapshots", Operation::CreateSnapshots),
    ("CreateTags", Operation::CreateTags),
    ("DeleteSnapshot", Operation::DeleteSnapshot),
    ("DeleteTags", Operation::DeleteTags),
    ("DescribeInstances", Operation::DescribeInstances),
    ("DescribeSnapshots", Operation::DescribeSnapshots),
    ("DescribeTags", Operation::DescribeTags),
    ("DescribeVolumes", Operation::DescribeVolumes),
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
        match operation {
            Operation::CreateSnapshots => {
                let which = instance_volumes(query).ok();
                let volumes = which.as_ref().and_then(|which| self.volumes_of(which).ok());
                let instance = which.map(|which| which.instance);
                instance.into_iter().chain(volumes.unwrap_or_default()).collect()
            }
            Operation::CreateSnapshot => {
                query.get("VolumeId").map(str::to_owned).into_iter().collect()
            }
            Operation::DeleteSnapshot => {
                query.get("SnapshotId").map(str::to_owned).into_iter().collect()
            }
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
        let narrow = ["InstanceId.1", "VolumeId.1", "SnapshotId.1", "Filter.1.Name", "MaxResults"];
        let (bucket, limit) = match operation {
            Operation::CreateSnapshot | Operation::CreateSnapshots | Operation::DeleteSnapshot => {
                (name.to_owned(), Limit::SNAPSHOTS)
            }
            Operation::CreateTags | Operation::DeleteTags => (name.to_owned(), Limit::TAGS),
            _ if narrow.iter().any(|field| query.get(field).is_some()) => {
                (name.to_owned(), Limit::FILTERED)
            }
            _ => (format!("{name} of all"), Limit::UNFILTERED),
        };
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
        }
    }

    fn describe_snapshots(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let ids = query.list("SnapshotId");
        for id in &ids {
            self.known_snapshot(id)?;
        }
        let owners = query.list("Owner");
        let filters = Filters::parse(
            query,
            &[
                "description",
                "encrypted",
                "owner-id",
                "progress",
                "snapshot-id",
                "status",
                "storage-tier",
                "volume-id",
                "volume-size",
            ],
            true,
        )?;
        let paging = Paging::parse(query, None)?.at_most(self.short_pages);
        end_of_dry_run(query)?;
        let ours =
            owners.is_empty() || owners.iter().any(|o| o == "self" || *o == self.config.account);
        let ids = narrowed(ids, &filters, "snapshot-id");
        let rows = self.shown_snapshots(ids.as_ref()).filter(|s| {
            ours && filters.match_all(&s.tags, |name| {
                vec![match name {
                    "description" => s.description.clone(),
                    "encrypted" => s.encrypted.to_string(),
                    "owner-id" => self.config.account.clone(),
                    "progress" => format!("{}%", s.progress(self.now)),
                    "snapshot-id" => s.id.clone(),
                    "status" => s.state.name().to_owned(),
                    "storage-tier" => "standard".to_owned(),
                    "volume-id" => s.volume.clone(),
                    _ => s.size_gib.to_string(),
                }]
            })
        });
        let (page, token) = paging.page(rows, |s| s.id.clone());
        let set = items("snapshotSet", page.into_iter().map(|s| self.snapshot_nodes(s, true)));
        Ok([set].into_iter().chain(token).collect())
    }

    fn describe_instances(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let ids = query.list("InstanceId");
        check_known(&ids, IdKind::Instance, |id| self.instances.get(id).is_some())?;
        let filters = Filters::parse(
            query,
            &[
                "availability-zone",
                "block-device-mapping.volume-id",
                "instance-id",
                "instance-state-code",
                "instance-state-name",
                "instance-type",
            ],
            true,
        )?;
        let paging = Paging::parse(query, Some(&ids))?.at_most(self.short_pages);
        end_of_dry_run(query)?;
        let ids = narrowed(ids, &filters, "instance-id");
        let rows = self.instances.pick(ids.as_ref()).filter(|i| {
            filters.match_all(&i.tags, |name| match name {
                "availability-zone" => vec![i.zone.clone()],
                "block-device-mapping.volume-id" => {
                    i.attachments.iter().map(|a| a.volume.clone()).collect()
                }
                "instance-id" => vec![i.id.clone()],
                "instance-state-code" => vec![i.state.code().to_string()],
                "instance-state-name" => vec![i.state.name().to_owned()],
                _ => vec![i.kind.clone()],
            })
        });
        let (page, token) = paging.page(rows, |i| i.id.clone());
        let set = items("reservationSet", page.into_iter().map(|i| self.reservation(i)));
        Ok([set].into_iter().chain(token).collect())
    }

    fn describe_volumes(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let ids = query.list("VolumeId");
        check_known(&ids, IdKind::Volume, |id| self.volumes.get(id).is_some())?;
        let filters = Filters::parse(
            query,
            &[
                "attachment.device",
                "attachment.instance-id",
                "attachment.status",
                "availability-zone",
                "encrypted",
                "size",
                "snapshot-id",
                "status",
                "volume-id",
                "volume-type",
            ],
            true,
        )?;
        let paging = Paging::parse(query, None)?.at_most(self.short_pages);
        end_of_dry_run(query)?;
        let ids = narrowed(ids, &filters, "volume-id");
        let attached = self.attached();
        let rows = self.volumes.pick(ids.as_ref()).filter(|v| {
            filters.match_all(&v.tags, |name| match name {
                "attachment.device" => {
                    attached.of(&v.id).iter().map(|(_, a)| a.device.clone()).collect()
                }
                "attachment.instance-id" => {
                    attached.of(&v.id).iter().map(|(i, _)| i.id.clone()).collect()
                }
                "attachment.status" => {
                    attached.of(&v.id).iter().map(|_| "attached".to_owned()).collect()
                }
                "availability-zone" => vec![v.zone.clone()],
                "encrypted" => vec![v.encrypted.to_string()],
                "size" => vec![v.size_gib.to_string()],
                "snapshot-id" => v.snapshot.iter().cloned().collect(),
                "status" => vec![attached.state(&v.id).to_owned()],
                "volume-id" => vec![v.id.clone()],
                _ => vec![v.kind.clone()],
            })
        });
        let (page, token) = paging.page(rows, |v| v.id.clone());
        let set = items("volumeSet", page.into_iter().map(|v| volume_nodes(v, &attached)));
        Ok([set].into_iter().chain(token).collect())
    }

    fn describe_tags(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let names = &["key", "resource-id", "resource-type", "value"];
        let filters = Filters::parse(query, names, true)?;
        let paging = Paging::parse(query, None)?.at_most(self.short_pages);
        end_of_dry_run(query)?;
        let instances = self.instances.values().map(|i| (IdKind::Instance, &i.id, &i.tags));
        let volumes = self.volumes.values().map(|v| (IdKind::Volume, &v.id, &v.tags));
        let snapshots = self.shown_snapshots(None).map(|s| (IdKind::Snapshot, &s.id, &s.tags));
        let rows = instances
            .chain(snapshots)
            .chain(volumes)
            .flat_map(|(kind, id, tags)| {
                tags.iter().map(move |(key, value)| (kind, id, key, value))
            })
            .filter(|(kind, id, key, value)| {
                // `tag:<key>` is about this tag, not about its neighbours.
                let own = Tags::from([((*key).clone(), (*value).clone())]);
                filters.match_all(&own, |name| {
                    vec![match name {
                        "key" => (*key).clone(),
                        "resource-id" => (*id).clone(),
                        "resource-type" => kind.resource_type().to_owned(),
                        _ => (*value).clone(),
                    }]
                })
            });
        let (page, token) = paging.page(rows, |(_, id, key, _)| format!("{id}/{key}"));
        let set = page.into_iter().map(|(kind, id, key, value)| {
            vec![
                text("resourceId", id),
                text("resourceType", kind.resource_type()),
                text("key", key),
                text("value", value),
            ]
        });
        Ok([items("tagSet", set)].into_iter().chain(token).collect())
    }
}

/// The ids that a describe is about at most: those given, or those that its
/// filter by id names. None: any.
fn narrowed(ids: Vec<String>, filters: &Filters, name: &str) -> Option<BTreeSet<String>> {
    if ids.is_empty() { filters.exactly(name).cloned() } else { Some(ids.into_iter().collect()) }
}

/// Describes have a dry run too.
fn end_of_dry_run(query: &Query) -> Ec2Result<()> {
    if query.flag("DryRun")? { Err(Ec2Error::dry_run()) } else { Ok(()) }
}

/// Well-formed ids of things that exist; one error names all that do not.
fn check_known(ids: &[String], kind: IdKind, known: impl Fn(&str) -> bool) -> Ec2Result<()> {
    for id in ids {
        kind.check(id)?;
    }
    let missing: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !known(id)).collect();
    match (missing.as_slice(), kind) {
        ([], _) => Ok(()),
        ([_, _, ..], IdKind::Instance) => Err(Ec2Error::new(
            "InvalidInstanceID.NotFound",
            format!("The instance IDs '{}' do not exist", missing.join(", ")),
        )),
        ([id, ..], kind) => Err(Ec2Error::not_found(kind, id)),
    }
}

fn resource_ids(query: &Query) -> Ec2Result<Vec<String>> {
    let ids = query.list("ResourceId");
    if ids.is_empty() { Err(Ec2Error::missing("ResourceId")) } else { Ok(ids) }
}

fn instance_volumes(query: &Query) -> Ec2Result<InstanceVolumes> {
    Ok(InstanceVolumes {
        instance: query.required("InstanceSpecification.InstanceId")?.to_owned(),
        exclude_boot: query.flag("InstanceSpecification.ExcludeBootVolume")?,
        exclude_data: query.list("InstanceSpecification.ExcludeDataVolumeId"),
    })
}

fn snapshot_request(query: &Query) -> Ec2Result<SnapshotRequest> {
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
    let mut pairs = Vec::new();
    for specification in query.members("TagSpecification") {
        match specification.get("ResourceType") {
            Some("snapshot") => pairs.extend(tag_pairs(&specification)?),
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
    Ok(SnapshotRequest {
        description: description.to_owned(),
        tags: tags::check_new(pairs)?,
        copy_tags,
        dry_run: query.flag("DryRun")?,
    })
}

/// A tag without a value has the empty one (M).
fn tag_pairs(query: &Query) -> Ec2Result<Vec<(String, String)>> {
    let pairs = query.members("Tag").into_iter().map(|tag| {
        Ok((tag.required("Key")?.to_owned(), tag.get("Value").unwrap_or_default().to_owned()))
    });
    pairs.collect()
}
