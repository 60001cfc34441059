//! Volumes' own operations: their answers, and how far they are initialized.

use super::describe::{end_of_dry_run, narrowed};
use super::filter::{Filters, Paging};
use super::query::Query;
use super::requests;
use super::shapes::{attachment_nodes, volume_nodes};
use super::xml::{Node, elements, items, text};
use crate::Cloud;
use crate::error::Ec2Result;
use crate::world::{Volume, VolumeState};

/// What the initialization of a volume takes without a paid rate, in MiB/s
/// (inf).
const DEFAULT_RATE: u32 = 100;

impl Cloud {
    /// Attachments are "not returned by `CreateVolume`" (M): not even those of
    /// a volume that was made before, by a call with the same token.
    pub(super) fn answer_create_volume(
        &mut self,
        query: &Query,
        about: &mut Vec<String>,
    ) -> Ec2Result<Vec<Node>> {
        let request = self.volume_request(query)?;
        let volume = self.create_volume(&request)?;
        about.push(volume.id.clone());
        let attached = self.attachments_of(&volume.id).next().is_some();
        Ok(volume_nodes(&volume, volume.state.name(attached), &[]))
    }

    pub(super) fn answer_attach_volume(&mut self, query: &Query) -> Ec2Result<Vec<Node>> {
        let (volume, instance) = (query.required("VolumeId")?, query.required("InstanceId")?);
        let device = query.required("Device")?;
        self.attach_volume(volume, instance, device, query.flag("DryRun")?)?;
        Ok(attachment_nodes(instance, self.attachment(volume, instance)?))
    }

    pub(super) fn answer_detach_volume(&mut self, query: &Query) -> Ec2Result<Vec<Node>> {
        let which = requests::detachment(query)?;
        let instance = self.detach_volume(&which)?;
        Ok(attachment_nodes(&instance, self.attachment(&which.volume, &instance)?))
    }

    pub(super) fn describe_volume_status(&self, query: &Query) -> Ec2Result<Vec<Node>> {
        let ids = query.list("VolumeId");
        for id in &ids {
            self.shown_volume(id)?;
        }
        let filters = Filters::parse(query, &["availability-zone", "volume-status.status"], false)?;
        let paging = Paging::parse(query, None)?.at_most(self.short_pages);
        end_of_dry_run(query)?;
        let ids = narrowed(ids, &filters, "volume-id");
        let known = self.volumes.pick(ids.as_ref()).filter(|v| v.known(self.now));
        let rows = known.filter(|v| {
            filters.match_all(&v.tags, |name| match name {
                "availability-zone" => vec![v.zone.clone()],
                _ => vec![status(v).to_owned()],
            })
        });
        let (page, token) = paging.page(rows, |v| v.id.clone());
        let set = items("volumeStatusSet", page.into_iter().map(|v| self.volume_status(v)));
        Ok([set].into_iter().chain(token).collect())
    }

    fn volume_status(&self, volume: &Volume) -> Vec<Node> {
        let passed = if status(volume) == "ok" { "passed" } else { "not-applicable" };
        let detail = |name: &str, status: &str| vec![text("name", name), text("status", status)];
        let details = [detail("io-enabled", passed), detail("io-performance", "not-applicable")];
        let mut nodes = vec![
            text("volumeId", &volume.id),
            text("availabilityZone", &volume.zone),
            elements(
                "volumeStatus",
                vec![text("status", status(volume)), items("details", details)],
            ),
            items("eventsSet", []),
            items("actionsSet", []),
        ];
        // "Not available for empty volumes" [M].
        if volume.snapshot.is_some() {
            nodes.push(elements("initializationStatusDetails", self.initialized(volume)));
        }
        nodes
    }

    fn initialized(&self, volume: &Volume) -> Vec<Node> {
        let until = volume.initialization.map_or_else(
            || {
                let seconds = u64::from(volume.size_gib) * 1024 / u64::from(DEFAULT_RATE);
                volume.created_at + self.span(seconds * 1000)
            },
            |paid| paid.until,
        );
        let total = until.duration_since(volume.created_at).as_millis().max(1);
        let done = self.now.duration_since(volume.created_at).as_millis();
        let progress = (done * 100 / total).clamp(0, 100);
        let kind = if volume.initialization.is_some() { "provisioned-rate" } else { "default" };
        let mut nodes = vec![text("initializationType", kind), text("progress", progress)];
        if volume.initialization.is_some() {
            let left = until.duration_since(self.now).as_secs().max(0);
            nodes.push(text("estimatedTimeToCompleteInSeconds", left));
        }
        nodes
    }
}

fn status(volume: &Volume) -> &'static str {
    match volume.state {
        VolumeState::Ready => "ok",
        VolumeState::Error => "impaired",
        VolumeState::Creating | VolumeState::Deleting => "insufficient-data",
    }
}
