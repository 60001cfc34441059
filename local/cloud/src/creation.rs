//! `CreateVolume` and `DeleteVolume`.
//!
//! ```text
//!  create ─► Creating ─► Ready ─► Deleting ─► gone
//!               ├──────► Error ──────┘
//!               └─► gone (its KMS key cannot be used)
//! ```

use serde::Serialize;
use serde_json::json;

use crate::Cloud;
use crate::agenda::Work;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::faults::FaultAction;
use crate::world::{
    Initialization, Snapshot, SnapshotState, Tags, Token, Volume, VolumeFailure, VolumeState,
};

/// What `VolumeInitializationRate` can be, in MiB/s (M).
const RATES: std::ops::RangeInclusive<u32> = 100..=300;
/// The rates of all volumes of the Region that are being initialized, in
/// MiB/s (EBS user guide, Initialize volumes).
const MOST_RATE: u32 = 5_000;
/// "up to 64 ASCII characters" (EC2 developer guide, Idempotency).
const LONGEST_TOKEN: usize = 64;

/// What a `CreateVolume` asks for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct VolumeRequest {
    pub(crate) snapshot: Option<String>,
    pub(crate) zone: String,
    pub(crate) size: Option<u32>,
    pub(crate) kind: String,
    pub(crate) iops: Option<u32>,
    pub(crate) throughput: Option<u32>,
    pub(crate) encrypted: Option<bool>,
    pub(crate) kms_key: Option<String>,
    pub(crate) multi_attach: bool,
    pub(crate) rate: Option<u32>,
    pub(crate) tags: Tags,
    /// Not a parameter that another call with the same token must share.
    #[serde(skip)]
    pub(crate) token: Option<String>,
    #[serde(skip)]
    pub(crate) dry_run: bool,
}

/// What a volume type can be given (M): the largest size in GiB, and IOPS and
/// throughput in MiB/s where they can be asked for. That a size has a least
/// and IOPS go with it is not simulated.
struct Kind {
    most_gib: u32,
    iops: Option<std::ops::RangeInclusive<u32>>,
    throughput: Option<std::ops::RangeInclusive<u32>>,
}

fn kind(name: &str) -> Option<Kind> {
    let (most_gib, iops, throughput) = match name {
        "standard" => (1_024, None, None),
        "gp2" | "st1" | "sc1" => (16_384, None, None),
        "gp3" => (65_536, Some(3_000..=80_000), Some(125..=2_000)),
        "io1" => (16_384, Some(100..=64_000), None),
        "io2" => (65_536, Some(100..=256_000), None),
        _ => return None,
    };
    Some(Kind { most_gib, iops, throughput })
}

impl Cloud {
    /// A volume by its id, as EC2's front end knows it: in the lag after its
    /// creation not yet (C), and while it is being deleted no more (inf).
    pub(crate) fn known_volume(&self, id: &str) -> Ec2Result<&Volume> {
        IdKind::Volume.check(id)?;
        self.volumes
            .get(id)
            .filter(|v| v.known(self.now) && v.state != VolumeState::Deleting)
            .ok_or_else(|| Ec2Error::not_found(IdKind::Volume, id))
    }

    /// `CreateVolume`; gives the volume as the answer shows it. It is
    /// accepted long before it is known whether its key can be used (M).
    pub(crate) fn create_volume(&mut self, request: &VolumeRequest) -> Ec2Result<Volume> {
        if let Some(made) = self.made_before(request)? {
            return Ok(made);
        }
        let kind = request.check()?;
        let source = match &request.snapshot {
            Some(id) => Some(self.source(id)?.clone()),
            None => None,
        };
        let source = source.as_ref();
        if !self.config.zones.contains(&request.zone) {
            return Err(Ec2Error::new(
                "InvalidZone.NotFound",
                format!("The zone '{}' does not exist.", request.zone),
            ));
        }
        let size_gib = request.size_gib(&kind, source)?;
        let kms_key = self.key_of(request, source)?;
        if request.dry_run {
            return Err(Ec2Error::dry_run());
        }
        if let Some(source) = source.filter(|s| s.state != SnapshotState::Completed) {
            return Err(Ec2Error::new(
                "IncorrectState",
                format!("Snapshot is in invalid state - {}", source.state.name()),
            ));
        }
        let initialization = self.initialization(request.rate, size_gib)?;
        // Last, so that the fault strikes only a call that is accepted.
        let about: Vec<String> = request.snapshot.iter().cloned().collect();
        let struck = self.strike("CreateVolume", &about, &[FaultAction::FailLater]).is_some();
        let fails = struck
            .then(|| if self.rng.bool() { VolumeFailure::Vanishes } else { VolumeFailure::Errs });
        let id = self.aws_id("vol");
        let done_at = self.later(self.config.pace.volume_ms.clone());
        let visible_at = self.later(self.config.pace.describe_lag_ms.clone());
        let volume = Volume {
            id: id.clone(),
            zone: request.zone.clone(),
            size_gib,
            kind: request.kind.clone(),
            iops: request.iops.or(baseline_iops(&request.kind, size_gib)),
            throughput: request.throughput.or((request.kind == "gp3").then_some(125)),
            encrypted: kms_key.is_some(),
            kms_key,
            multi_attach: request.multi_attach,
            created_at: self.now,
            snapshot: request.snapshot.clone(),
            tags: request.tags.clone(),
            content: source.and_then(|s| s.content.clone()),
            snapshot_at: None,
            state: VolumeState::Creating,
            visible_at: Some(visible_at),
            fails,
            initialization,
        };
        self.volumes.insert(id.clone(), volume.clone());
        if let Some(token) = &request.token {
            let row = Token { asked: request.fingerprint(), volume: volume.clone() };
            self.tokens.insert(token.clone(), row);
        }
        self.plan(done_at, Work::FinishVolume(id));
        Ok(volume)
    }

    /// The volume that a call with the same token made; as it was made, if it
    /// is gone (inf: "the response might differ" is all that is said of it).
    fn made_before(&self, request: &VolumeRequest) -> Ec2Result<Option<Volume>> {
        let Some(token) = &request.token else { return Ok(None) };
        if token.len() > LONGEST_TOKEN || !token.is_ascii() {
            return Err(Ec2Error::invalid("Client token is too long or not ASCII."));
        }
        let Some(row) = self.tokens.get(token) else { return Ok(None) };
        if row.asked != request.fingerprint() {
            return Err(Ec2Error::new(
                "IdempotentParameterMismatch",
                "The request uses the same client token as a previous, but non-identical request.",
            ));
        }
        if request.dry_run {
            return Err(Ec2Error::dry_run());
        }
        Ok(Some(self.volumes.get(&row.volume.id).unwrap_or(&row.volume).clone()))
    }

    /// The snapshot to make a volume from.
    fn source(&self, id: &str) -> Ec2Result<&Snapshot> {
        let source = self.known_snapshot(id)?;
        if source.exists() { Ok(source) } else { Err(Ec2Error::not_found(IdKind::Snapshot, id)) }
    }

    /// The ARN of its key, if it is to be encrypted: of an encrypted snapshot
    /// in any case, and with the snapshot's key unless another is named (E).
    fn key_of(
        &self,
        request: &VolumeRequest,
        source: Option<&Snapshot>,
    ) -> Ec2Result<Option<String>> {
        let given = source.filter(|s| s.encrypted);
        match (&request.kms_key, request.encrypted) {
            (Some(named), Some(true)) => Ok(Some(self.key_arn(named))),
            // "the encrypted state must be true" [M]; the code as EC2 has it.
            (Some(_), _) => Err(Ec2Error::new(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            )),
            // (inf) the code.
            (None, Some(false)) if given.is_some() => Err(Ec2Error::combination(
                "A volume of an encrypted snapshot cannot be unencrypted.",
            )),
            (None, Some(true)) if given.is_none() => Ok(Some(self.default_key())),
            (None, _) => Ok(given.map(|s| s.kms_key.clone().unwrap_or_else(|| self.default_key()))),
        }
    }

    /// How long a rate is taken up: until all of the snapshot is there.
    fn initialization(
        &self,
        rate: Option<u32>,
        size_gib: u32,
    ) -> Ec2Result<Option<Initialization>> {
        let Some(rate) = rate else { return Ok(None) };
        let rates = self.volumes.values().filter_map(|v| v.initialization);
        let used: u32 =
            rates.filter(|one| one.until > self.now).map(|one| one.mib_per_second).sum();
        if used + rate > MOST_RATE {
            // That "the request fails" is documented, its code is not (inf).
            return Err(Ec2Error::new(
                "VolumeInitializationRateLimitExceeded",
                format!(
                    "The cumulative volume initialization rate of {MOST_RATE} MiB/s would be exceeded."
                ),
            ));
        }
        let ms = u64::from(size_gib) * 1024 * 1000 / u64::from(rate);
        let until = self.now + self.span(ms);
        Ok(Some(Initialization { mib_per_second: rate, until }))
    }

    /// Its creation ends: well, or as a fault or its key has it.
    pub(crate) fn finish_volume(&mut self, id: &str) {
        let Some(volume) = self.volumes.get(id) else { return };
        let key = volume.kms_key.clone().filter(|arn| self.unusable(arn));
        let (fails, cause) = match (key, volume.fails) {
            (Some(arn), _) => (Some(VolumeFailure::Vanishes), format!("{arn} is disabled.")),
            (None, None) => (None, String::new()),
            (None, fails) => (fails, "An internal error occurred.".to_owned()),
        };
        let key = id.to_owned();
        match fails {
            Some(VolumeFailure::Vanishes) => {
                self.volumes.remove(&key);
            }
            Some(VolumeFailure::Errs) => self.set_volume_state(id, VolumeState::Error),
            None => self.set_volume_state(id, VolumeState::Ready),
        }
        let result = if fails.is_some() { "failed" } else { "available" };
        self.notify_volume(id, "createVolume", result, &cause);
    }

    fn set_volume_state(&mut self, id: &str, state: VolumeState) {
        if let Some(volume) = self.volumes.get_mut(&id.to_owned()) {
            volume.state = state;
        }
    }

    /// `DeleteVolume`. It is described as `deleting` for a while, but no call
    /// knows it any more.
    pub(crate) fn delete_volume(&mut self, id: &str, dry_run: bool) -> Ec2Result<()> {
        let state = self.known_volume(id)?.state;
        if dry_run {
            return Err(Ec2Error::dry_run());
        }
        if let Some((instance, _)) = self.attachments_of(id).next() {
            return Err(Ec2Error::new(
                "VolumeInUse",
                format!("Volume {id} is currently attached to {}", instance.id),
            ));
        }
        if state == VolumeState::Creating {
            // "must be in the available state" (M); in `error` it goes too.
            return Err(Ec2Error::new("IncorrectState", format!("Volume '{id}' is creating.")));
        }
        self.set_volume_state(id, VolumeState::Deleting);
        let at = self.later(self.config.pace.describe_lag_ms.clone());
        self.plan(at, Work::ForgetVolume(id.to_owned()));
        Ok(())
    }

    /// `EBS Volume Notification` (E).
    pub(crate) fn notify_volume(&mut self, id: &str, event: &str, result: &str, cause: &str) {
        let (region, account) = (&self.config.region, &self.config.account);
        let resources = vec![format!("arn:aws:ec2:{region}:{account}:volume/{id}")];
        let request_id = self.uuid();
        let detail = json!({
            "result": result, "cause": cause, "event": event, "request-id": request_id,
        });
        self.emit("EBS Volume Notification", resources, detail);
    }
}

/// What a volume has without asking: shown also where it cannot be asked for
/// [M, `Volume.Iops`].
fn baseline_iops(kind: &str, size_gib: u32) -> Option<u32> {
    match kind {
        "gp3" => Some(3_000),
        "gp2" => Some((size_gib * 3).clamp(100, 16_000)),
        _ => None,
    }
}

impl VolumeRequest {
    /// All that another call with the same token must share.
    fn fingerprint(&self) -> String {
        crate::table::to_json(self)
    }

    /// What can be seen without a look at the world.
    fn check(&self) -> Ec2Result<Kind> {
        let name = &self.kind;
        let Some(kind) = kind(name) else {
            return Err(Ec2Error::new(
                "UnknownVolumeType",
                format!("Unsupported volume type '{name}' for volume creation."),
            ));
        };
        let asked =
            [("iops", self.iops, &kind.iops), ("throughput", self.throughput, &kind.throughput)];
        for (parameter, value, range) in asked {
            match (value, range) {
                (None, _) => {}
                (Some(_), None) => {
                    return Err(Ec2Error::combination(format!(
                        "The parameter {parameter} is not supported for {name} volumes."
                    )));
                }
                (Some(value), Some(range)) => {
                    if !range.contains(&value) {
                        return Err(Ec2Error::invalid(format!(
                            "Volume {parameter} of {value} is not between {} and {}.",
                            range.start(),
                            range.end()
                        )));
                    }
                }
            }
        }
        if matches!(name.as_str(), "io1" | "io2") && self.iops.is_none() {
            return Err(Ec2Error::missing("iops"));
        }
        if self.multi_attach && !matches!(name.as_str(), "io1" | "io2") {
            return Err(Ec2Error::combination(format!(
                "The parameter MultiAttachEnabled is not supported for {name} volumes."
            )));
        }
        match (self.rate, &self.snapshot) {
            (Some(_), None) => Err(Ec2Error::combination(
                "The parameter VolumeInitializationRate requires the parameter SnapshotId.",
            )),
            (Some(rate), _) if !RATES.contains(&rate) => {
                Err(Ec2Error::invalid_value(&rate.to_string(), "VolumeInitializationRate"))
            }
            _ => Ok(kind),
        }
    }

    fn size_gib(&self, kind: &Kind, source: Option<&Snapshot>) -> Ec2Result<u32> {
        let (Some(size), least) =
            (self.size.or(source.map(|s| s.size_gib)), source.map_or(1, |s| s.size_gib.max(1)))
        else {
            return Err(Ec2Error::missing("size/snapshot"));
        };
        if size < least {
            return Err(Ec2Error::invalid(format!(
                "Volume of {size}GiB is smaller than snapshot or than 1GiB; minimum is {least}GiB."
            )));
        }
        if size > kind.most_gib {
            return Err(Ec2Error::invalid(format!(
                "Volume of {size}GiB is too large for volume type {}; maximum is {}GiB",
                self.kind, kind.most_gib
            )));
        }
        Ok(size)
    }
}
