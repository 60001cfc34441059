//! What goes wrong for a while: a service that is down, a quota that is full, a
//! right that somebody took away.

use std::ops::RangeInclusive;

use fastrand::Rng;
use jiff::Timestamp;

use super::call::{Call, Service};
use super::doing::Doing;

/// A kind of trouble that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Ec2Down,
    Ec2Slow,
    DescribeThrottled,
    DescribeDenied,
    /// Lists are empty, of what has been there for long.
    ListsNothing,
    DynamoDown,
    DynamoSlow,
    EventsDown,
    CreateThrottled,
    CreateDenied,
    CreateKms,
    CreateQuota,
    DeleteInUse,
    DeleteLocked,
    DeleteDenied,
    /// AWS has no room for a node that is started.
    StartFull,
    StartRefused,
    StopRefused,
    AttachRefused,
    DetachDenied,
    VolumeRefused,
    /// No tick comes, for hours.
    TicksAway,
}

/// A trouble and when it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spell {
    pub(crate) trouble: Trouble,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    /// It is about some of the instances alone.
    pub(crate) partial: bool,
}

impl Spell {
    /// Whether it is this trouble, now.
    pub(crate) fn is_on(&self, trouble: Trouble, now: Timestamp) -> bool {
        self.trouble == trouble && self.from <= now && now < self.until
    }

    /// Whether the call is of an instance that it is not about.
    pub(crate) fn spares(&self, call: &Call) -> bool {
        let fields = ["InstanceSpecification.InstanceId", "InstanceId", "InstanceId.1"];
        let instance = fields.map(|name| call.field(name)).concat();
        self.partial && instance.ends_with(['0', '2', '4', '6', '8', 'a', 'c', 'e'])
    }

    /// The code with which it refuses a call now.
    pub(crate) fn refuses(&self, call: &Call, now: Timestamp) -> Option<&'static str> {
        let on = self.is_on(self.trouble, now) && !self.spares(call);
        on.then(|| self.trouble.refuses(call.service.name(), &call.operation)).flatten()
    }
}

impl Trouble {
    /// How many of them are a restore's alone.
    pub(crate) const OF_RESTORES: usize = 6;

    /// What any seed may have: without the ticks nothing is in time.
    pub(crate) const ALL: [Self; 21] = [
        Self::Ec2Down,
        Self::Ec2Slow,
        Self::DescribeThrottled,
        Self::DescribeDenied,
        Self::ListsNothing,
        Self::DynamoDown,
        Self::DynamoSlow,
        Self::EventsDown,
        Self::CreateThrottled,
        Self::CreateDenied,
        Self::CreateKms,
        Self::CreateQuota,
        Self::DeleteInUse,
        Self::DeleteLocked,
        Self::DeleteDenied,
        Self::StartFull,
        Self::StartRefused,
        Self::StopRefused,
        Self::AttachRefused,
        Self::DetachDenied,
        Self::VolumeRefused,
    ];

    /// What somebody does in the middle of it, or it would stand in nobody's way.
    pub(crate) const fn invites(self) -> Option<Doing> {
        match self {
            Self::Ec2Down
            | Self::CreateThrottled
            | Self::CreateDenied
            | Self::CreateKms
            | Self::CreateQuota
            | Self::Ec2Slow
            | Self::DynamoSlow => Some(Doing::Create),
            Self::ListsNothing | Self::DeleteInUse | Self::DeleteLocked | Self::DeleteDenied => {
                Some(Doing::Delete)
            }
            Self::StartFull
            | Self::StartRefused
            | Self::StopRefused
            | Self::AttachRefused
            | Self::DetachDenied
            | Self::VolumeRefused => Some(Doing::Restore),
            _ => None,
        }
    }

    /// Its line in the reach table.
    pub(crate) const fn line(self) -> &'static str {
        match self {
            Self::Ec2Down => "spell ec2_down",
            Self::Ec2Slow => "spell ec2_slow",
            Self::DescribeThrottled => "spell describe_throttled",
            Self::DescribeDenied => "spell describe_denied",
            Self::ListsNothing => "spell lists_nothing",
            Self::DynamoDown => "spell dynamodb_down",
            Self::DynamoSlow => "spell dynamodb_slow",
            Self::EventsDown => "spell events_down",
            Self::CreateThrottled => "spell create_throttled",
            Self::CreateDenied => "spell create_denied",
            Self::CreateKms => "spell create_kms",
            Self::CreateQuota => "spell create_quota",
            Self::DeleteInUse => "spell delete_in_use",
            Self::DeleteLocked => "spell delete_locked",
            Self::DeleteDenied => "spell delete_denied",
            Self::StartFull => "spell start_full",
            Self::StartRefused => "spell start_refused",
            Self::StopRefused => "spell stop_refused",
            Self::AttachRefused => "spell attach_refused",
            Self::DetachDenied => "spell detach_denied",
            Self::VolumeRefused => "spell volume_refused",
            Self::TicksAway => "spell ticks_away",
        }
    }

    /// How long it lasts: mostly minutes; at times as long as what it stands in
    /// the way of can wait.
    pub(crate) fn minutes(self, rng: &mut Rng) -> i64 {
        match (self, rng.u8(0..4)) {
            // Four hours, and a backup is given up.
            (Self::CreateThrottled, 0) => rng.i64(60..=300),
            // A delete is tried again hourly in the end.
            (Self::DeleteInUse | Self::DeleteLocked | Self::DeleteDenied, 0) => rng.i64(60..=240),
            // One node runs and the start of another is refused for longer than its
            // deadline: neither way is left.
            (Self::StartRefused, 0..=1) => rng.i64(20..=60),
            // Slots pass that nobody sees.
            (Self::TicksAway, _) => rng.i64(40..=400),
            // Every row that is due is tried each minute.
            (_, 0) => rng.i64(30..=60),
            _ => rng.i64(1..=30),
        }
    }

    /// How many milliseconds a call takes until it is carried out, if this trouble is
    /// about it: up to just less than its caller waits.
    pub(crate) const fn slows(self, service: Service) -> Option<RangeInclusive<u64>> {
        match (self, service) {
            (Self::Ec2Slow, Service::Ec2) => Some(3_000..=14_500),
            (Self::DynamoSlow, Service::DynamoDb) => Some(700..=2_900),
            _ => None,
        }
    }

    /// The code with which a call is refused, if this trouble is about it.
    /// Source: EC2 API reference, "Error codes".
    fn refuses(self, service: &str, operation: &str) -> Option<&'static str> {
        match (self, service, operation) {
            (Self::Ec2Down, "ec2", _) => Some("Unavailable"),
            (Self::DynamoDown, "dynamodb", _) => Some("InternalServerError"),
            (Self::EventsDown, "events", _) => Some("InternalException"),
            (Self::CreateThrottled, _, "CreateSnapshots") => Some("RequestLimitExceeded"),
            (Self::DescribeThrottled, "ec2", _) if operation.starts_with("Describe") => {
                Some("RequestLimitExceeded")
            }
            (Self::DescribeDenied, "ec2", _) if operation.starts_with("Describe") => {
                Some("UnauthorizedOperation")
            }
            (Self::CreateDenied, _, "CreateSnapshots")
            | (Self::DeleteDenied, _, "DeleteSnapshot")
            | (Self::DetachDenied, _, "DetachVolume") => Some("UnauthorizedOperation"),
            (Self::CreateKms, _, "CreateSnapshots") => Some("InvalidKMSKey.InvalidState"),
            (Self::CreateQuota, _, "CreateSnapshots") => Some("ResourceLimitExceeded"),
            (Self::DeleteInUse, _, "DeleteSnapshot") => Some("InvalidSnapshot.InUse"),
            (Self::DeleteLocked, _, "DeleteSnapshot") | (Self::StopRefused, _, "StopInstances") => {
                Some("OperationNotPermitted")
            }
            (Self::StartFull, _, "StartInstances") => Some("InsufficientInstanceCapacity"),
            (Self::StartRefused, _, "StartInstances") => Some("InvalidParameterCombination"),
            (Self::AttachRefused, _, "AttachVolume") => Some("AttachmentLimitExceeded"),
            (Self::VolumeRefused, _, "CreateVolume") => Some("VolumeLimitExceeded"),
            _ => None,
        }
    }
}
