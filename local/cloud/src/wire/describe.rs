//! Describes of instances, volumes, snapshots and tags.

use std::collections::BTreeSet;

use super::filter::{Filters, Paging};
use super::query::Query;
use super::shapes::volume_nodes;
use super::xml::{Node, items, text};
use crate::Cloud;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::world::{Tags, Volume};

impl Cloud {
    pub(super) fn describe_snapshots(&self, query: &Query) -> Ec2Result<Vec<Node>> {
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

    pub(super) fn describe_instances(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let ids = query.list("InstanceId");
        self.known_instances(&ids)?;
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

    /// A volume by its id, as describes show it: also one that is being
    /// deleted.
    pub(super) fn shown_volume(&self, id: &str) -> Ec2Result<&Volume> {
        IdKind::Volume.check(id)?;
        let volume = self.volumes.get(id).filter(|v| v.known(self.now));
        volume.ok_or_else(|| Ec2Error::not_found(IdKind::Volume, id))
    }

    pub(super) fn describe_volumes(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let ids = query.list("VolumeId");
        for id in &ids {
            self.shown_volume(id)?;
        }
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
        // Those of some instances are known without a look at all volumes, too.
        let ids = narrowed(ids, &filters, "volume-id").or_else(|| {
            let instances = filters.exactly("attachment.instance-id")?;
            let attachments = self.instances.pick(Some(instances)).flat_map(|i| &i.attachments);
            Some(attachments.map(|a| a.volume.clone()).collect())
        });
        let attached = self.attached(ids.as_ref());
        let known = self.volumes.pick(ids.as_ref()).filter(|v| v.known(self.now));
        let rows = known.filter(|v| {
            filters.match_all(&v.tags, |name| match name {
                "attachment.device" => {
                    attached.of(&v.id).iter().map(|(_, a)| a.device.clone()).collect()
                }
                "attachment.instance-id" => {
                    attached.of(&v.id).iter().map(|(i, _)| i.id.clone()).collect()
                }
                "attachment.status" => {
                    attached.of(&v.id).iter().map(|(_, a)| a.state.name().to_owned()).collect()
                }
                "availability-zone" => vec![v.zone.clone()],
                "encrypted" => vec![v.encrypted.to_string()],
                "size" => vec![v.size_gib.to_string()],
                "snapshot-id" => v.snapshot.iter().cloned().collect(),
                "status" => vec![attached.state(v).to_owned()],
                "volume-id" => vec![v.id.clone()],
                _ => vec![v.kind.clone()],
            })
        });
        let (page, token) = paging.page(rows, |v| v.id.clone());
        let set = items(
            "volumeSet",
            page.into_iter().map(|v| volume_nodes(v, attached.state(v), attached.of(&v.id))),
        );
        Ok([set].into_iter().chain(token).collect())
    }

    pub(super) fn describe_tags(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let names = &["key", "resource-id", "resource-type", "value"];
        let filters = Filters::parse(query, names, true)?;
        let paging = Paging::parse(query, None)?.at_most(self.short_pages);
        end_of_dry_run(query)?;
        let instances = self.instances.values().map(|i| (IdKind::Instance, &i.id, &i.tags));
        let volumes = self.volumes.values().filter(|v| v.known(self.now));
        let volumes = volumes.map(|v| (IdKind::Volume, &v.id, &v.tags));
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
pub(super) fn narrowed(
    ids: Vec<String>,
    filters: &Filters,
    name: &str,
) -> Option<BTreeSet<String>> {
    if ids.is_empty() { filters.exactly(name).cloned() } else { Some(ids.into_iter().collect()) }
}

/// Describes have a dry run too.
pub(super) fn end_of_dry_run(query: &Query) -> Ec2Result<()> {
    if query.flag("DryRun")? { Err(Ec2Error::dry_run()) } else { Ok(()) }
}
