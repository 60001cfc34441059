//! Instances' own operations: their answers, their attributes, their types,
//! their Spot requests and their zones.

use std::collections::BTreeSet;

use super::describe::end_of_dry_run;
use super::filter::{Filters, Paging};
use super::query::Query;
use super::requests;
use super::shapes::{mapping_nodes, state_nodes, time};
use super::xml::{Node, elements, items, text};
use crate::Cloud;
use crate::error::{Ec2Error, Ec2Result};
use crate::power::Turned;
use crate::traits::{SpotRequest, attachment_limit};
use crate::world::{Instance, InstanceState, Tags};

impl Cloud {
    pub(super) fn answer_stop_instances(&mut self, query: &Query) -> Ec2Result<Vec<Node>> {
        let turned =
            self.stop_instances(&requests::instance_ids(query)?, requests::stop(query)?)?;
        Ok(vec![turned_nodes(&turned)])
    }

    pub(super) fn answer_start_instances(&mut self, query: &Query) -> Ec2Result<Vec<Node>> {
        let ids = requests::instance_ids(query)?;
        let turned = self.start_instances(&ids, query.flag("DryRun")?)?;
        Ok(vec![turned_nodes(&turned)])
    }

    pub(super) fn answer_modify_instance(&mut self, query: &Query) -> Ec2Result<Vec<Node>> {
        let id = query.required("InstanceId")?;
        self.modify_instance(id, requests::change(query)?, query.flag("DryRun")?)?;
        Ok(vec![text("return", true)])
    }

    /// One attribute at a time (M); of those that the service needs.
    pub(super) fn describe_instance_attribute(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let instance = self.known_instance(query.required("InstanceId")?)?;
        let attribute = query.required("Attribute")?;
        let flag = |name, on: bool| elements(name, vec![text("value", on)]);
        let value = |name, value: &str| elements(name, vec![text("value", value)]);
        let traits = &instance.traits;
        let node = match attribute {
            "disableApiStop" => flag("disableApiStop", traits.stop_protection),
            "disableApiTermination" => flag("disableApiTermination", traits.termination_protection),
            "blockDeviceMapping" => mapping_nodes(instance),
            "rootDeviceName" => value("rootDeviceName", &instance.root_device),
            "instanceType" => value("instanceType", &instance.kind),
            other => return Err(Ec2Error::invalid_value(other, "attribute")),
        };
        end_of_dry_run(query)?;
        Ok(vec![text("instanceId", &instance.id), node])
    }

    /// Of all there are the types that instances have.
    pub(super) fn describe_instance_types(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let named = query.list("InstanceType");
        let wrong: Vec<&str> =
            named.iter().map(String::as_str).filter(|name| !is_type(name)).collect();
        if !wrong.is_empty() {
            return Err(Ec2Error::new(
                "InvalidInstanceType",
                format!(
                    "The following supplied instance types do not exist: [{}]",
                    wrong.join(", ")
                ),
            ));
        }
        let filters = Filters::parse(query, &["instance-type"], false)?;
        let paging = Paging::parse(query, None)?.at_most(self.short_pages);
        end_of_dry_run(query)?;
        let all = self.instances.values().map(|i| i.kind.clone());
        let types: BTreeSet<String> =
            if named.is_empty() { all.collect() } else { named.into_iter().collect() };
        let rows =
            types.iter().filter(|one| filters.match_all(&Tags::new(), |_| vec![(*one).clone()]));
        let (page, token) = paging.page(rows, |one| (*one).clone());
        let set = page.into_iter().map(|one| {
            let (most, kind) = attachment_limit(one);
            let ebs = vec![
                text("ebsOptimizedSupport", "default"),
                text("encryptionSupport", "supported"),
                text("nvmeSupport", "required"),
                text("maximumEbsAttachments", most),
                text("attachmentLimitType", kind),
            ];
            vec![text("instanceType", one), elements("ebsInfo", ebs)]
        });
        Ok([items("instanceTypeSet", set)].into_iter().chain(token).collect())
    }

    pub(super) fn describe_spot_requests(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let ids = query.list("SpotInstanceRequestId");
        let spot: Vec<(&str, SpotRequest, &Instance)> = self
            .instances
            .values()
            .filter_map(|i| Some((i.spot_request.as_deref()?, i.traits.spot?, i)))
            .collect();
        if let Some(id) = ids.iter().find(|id| !spot.iter().any(|(known, ..)| known == id)) {
            return Err(Ec2Error::new(
                "InvalidSpotInstanceRequestID.NotFound",
                format!("The spot instance request ID '{id}' does not exist"),
            ));
        }
        let names = &["instance-id", "spot-instance-request-id", "state", "type"];
        let filters = Filters::parse(query, names, false)?;
        let paging = Paging::parse(query, None)?.at_most(self.short_pages);
        end_of_dry_run(query)?;
        let mut rows: Vec<_> = spot
            .into_iter()
            .filter(|(id, ..)| ids.is_empty() || ids.iter().any(|one| one == id))
            .filter(|(id, kind, i)| {
                filters.match_all(&i.tags, |name| {
                    vec![match name {
                        "instance-id" => i.id.clone(),
                        "spot-instance-request-id" => (*id).to_owned(),
                        "state" => request_state(i).to_owned(),
                        _ => kind.name().to_owned(),
                    }]
                })
            })
            .collect();
        rows.sort_by_key(|(id, ..)| *id);
        let (page, token) = paging.page(rows.into_iter(), |(id, ..)| (*id).to_owned());
        let set = page.into_iter().map(|(id, kind, instance)| {
            vec![
                text("spotInstanceRequestId", id),
                text("type", kind.name()),
                text("state", request_state(instance)),
                text("instanceId", &instance.id),
                text("launchedAvailabilityZone", &instance.zone),
                text("productDescription", "Linux/UNIX"),
                text("createTime", time(instance.launched_at)),
            ]
        });
        Ok([items("spotInstanceRequestSet", set)].into_iter().chain(token).collect())
    }

    pub(super) fn describe_zones(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let (names, ids) = (query.list("ZoneName"), query.list("ZoneId"));
        let all: Vec<(&String, String)> =
            self.config.zones.iter().map(|zone| (zone, self.zone_id(zone))).collect();
        let unknown = names.iter().find(|name| !all.iter().any(|(zone, _)| zone == name));
        let unknown =
            unknown.or_else(|| ids.iter().find(|id| !all.iter().any(|(_, one)| one == *id)));
        if let Some(unknown) = unknown {
            return Err(Ec2Error::invalid(format!("Invalid availability zone: [{unknown}]")));
        }
        let filters =
            Filters::parse(query, &["region-name", "state", "zone-id", "zone-name"], false)?;
        end_of_dry_run(query)?;
        let region = &self.config.region;
        let rows = all.iter().filter(|(zone, id)| {
            (names.is_empty() || names.contains(zone))
                && (ids.is_empty() || ids.contains(id))
                && filters.match_all(&Tags::new(), |name| {
                    vec![match name {
                        "region-name" => region.clone(),
                        "state" => "available".to_owned(),
                        "zone-id" => id.clone(),
                        _ => (*zone).clone(),
                    }]
                })
        });
        let set = rows.map(|(zone, id)| {
            vec![
                text("optInStatus", "opt-in-not-required"),
                items("messageSet", []),
                text("regionName", region),
                text("zoneName", zone),
                text("zoneId", id),
                text("groupName", format!("{region}-zg-1")),
                text("networkBorderGroup", region),
                text("zoneType", "availability-zone"),
                text("zoneState", "available"),
            ]
        });
        Ok(vec![items("availabilityZoneInfo", set)])
    }

    /// As AWS shortens a Region: `usw1-az1`. Here they are numbered in the
    /// order of their names; on AWS that differs by account.
    fn zone_id(&self, zone: &str) -> String {
        let mut parts = self.config.region.split('-');
        let (area, side) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let short = ["north", "south", "east", "west", "central"];
        let side: String =
            short.iter().filter(|one| side.contains(**one)).map(|one| &one[..1]).collect();
        let number = parts.next().unwrap_or_default();
        let at = self.config.zones.iter().position(|one| one == zone).unwrap_or_default();
        format!("{area}{side}{number}-az{}", at + 1)
    }

    pub(super) fn zone_of_id(&self, id: &str) -> Option<String> {
        self.config.zones.iter().find(|zone| self.zone_id(zone) == id).cloned()
    }
}

/// `InstanceStateChange` (M).
fn turned_nodes(turned: &[Turned]) -> Node {
    items(
        "instancesSet",
        turned.iter().map(|(id, before, after)| {
            vec![
                text("instanceId", id),
                elements("currentState", state_nodes(*after)),
                elements("previousState", state_nodes(*before)),
            ]
        }),
    )
}

/// A family, a dot and a size: which there are is not simulated.
fn is_type(name: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.split_once('.').is_some_and(|(family, size)| word(family) && word(size))
}

/// [M, `SpotInstanceState`]: `disabled` while its user stopped it (EC2 user
/// guide, Spot request states).
fn request_state(instance: &Instance) -> &'static str {
    match instance.state {
        InstanceState::Stopping | InstanceState::Stopped => "disabled",
        InstanceState::ShuttingDown | InstanceState::Terminated => "closed",
        InstanceState::Pending | InstanceState::Running => "active",
    }
}
