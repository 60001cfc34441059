//! What backups and restores have in common: who may act on one, how it fails, what a
//! call to AWS came to, and how long to pause after trouble.

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::error::Refusal;
use crate::id::Nonce;
use crate::time::{Seconds, Time};

/// Who may act on an operation, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The invocation that holds it.
    pub owner: Nonce,
    /// It is dead after this.
    pub until: Time,
}

/// Why an operation failed, or does not get on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Which kind.
    pub code: FailureCode,
    /// A sentence that says what happened and what to do.
    pub reason: String,
}

/// Makes the codes and their texts from one list.
macro_rules! failure_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// The kinds of failure of an operation that was accepted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum FailureCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl FailureCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As the API and the announcements write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

failure_codes! {
    /// A deadline of the contract passed.
    DeadlineExceeded = "deadline_exceeded";
    /// EC2 refused or failed a snapshot.
    SnapshotFailed = "snapshot_failed";
    /// A snapshot vanished.
    SnapshotMissing = "snapshot_missing";
    /// A snapshot cannot be deleted: an AMI uses it.
    SnapshotInUse = "snapshot_in_use";
    /// A snapshot cannot be deleted: it is locked.
    SnapshotLocked = "snapshot_locked";
    /// The worker's role lacks a right.
    PermissionDenied = "permission_denied";
    /// The volume's KMS key cannot be used.
    KmsUnavailable = "kms_unavailable";
    /// An account limit of AWS.
    Quota = "quota";
    /// The node's instance does not exist any more.
    NodeMissing = "node_missing";
    /// The node has no data volume.
    NoVolumes = "no_volumes";
    /// A data volume is attached to several instances.
    MultiAttach = "multi_attach";
    /// More volumes than one backup may have.
    TooManyVolumes = "too_many_volumes";
    /// EC2 could not make or keep a volume.
    VolumeFailed = "volume_failed";
    /// A volume cannot be where its node is.
    ZoneMismatch = "zone_mismatch";
    /// AWS is full.
    Capacity = "capacity";
    /// The node cannot be stopped, swapped, and started as it is.
    NodeNotRestorable = "node_not_restorable";
    /// A node does not stop.
    StopFailed = "stop_failed";
    /// Volumes cannot be taken off or put on.
    AttachFailed = "attach_failed";
    /// A node does not start.
    StartFailed = "start_failed";
    /// The backup of the present state failed.
    SafetyBackupFailed = "safety_backup_failed";
    /// The deployment's nodes changed before anything was stopped.
    Superseded = "superseded";
}

impl PartialSchema for FailureCode {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("The kinds of failure of an operation that was accepted."))
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .into()
    }
}

impl ToSchema for FailureCode {}

/// Why something did not come about, as announcements and outcomes tell it: the code of a
/// failed operation, or that of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Which kind: of [`FailureCode`] or [`crate::error::Code`].
    pub code: String,
    /// A sentence that says what happened and what to do.
    pub reason: String,
}

impl From<Failure> for Why {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code.as_str().to_owned(), reason: failure.reason }
    }
}

impl From<Refusal> for Why {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code.as_str().to_owned(), reason: refusal.reason }
    }
}

/// What a call to AWS came to, when it did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The request surely never reached AWS.
    NotApplied(String),
    /// AWS refused it; nothing was done.
    Rejected {
        /// AWS's code.
        code: String,
        /// AWS's sentence.
        message: String,
    },
    /// AWS refused it for now, because of our rate or a limit of what is pending.
    Throttled {
        /// AWS's code.
        code: String,
    },
    /// It may have happened.
    Unknown(String),
}

/// Codes of a missing right. Their messages name roles, accounts, and policies:
/// they are for our log, not for a tenant.
pub(crate) const RIGHTS: &[&str] =
    &["UnauthorizedOperation", "AccessDenied", "AccessDeniedException"];

impl CallError {
    /// What a tenant may read of it.
    pub fn shown(&self) -> String {
        match self {
            Self::Rejected { code, message }
                if RIGHTS.contains(&code.as_str()) && !message.starts_with(RIGHT_MISSING) =>
            {
                format!("{code}: a right is missing.")
            }
            other => other.to_string(),
        }
    }

    /// The same, with a full stop at its end.
    pub fn sentence(&self) -> String {
        format!("{}.", self.shown().trim_end_matches('.'))
    }

    /// The same, saying which call it was: a missing right is told by the name of
    /// the call, in our words and not in AWS's.
    #[must_use]
    pub fn of(self, operation: &str) -> Self {
        match self {
            Self::Rejected { code, .. } if RIGHTS.contains(&code.as_str()) => {
                Self::Rejected { code, message: format!("{RIGHT_MISSING} {operation} is missing") }
            }
            Self::Rejected { code, message } => {
                Self::Rejected { code, message: format!("{operation}: {message}") }
            }
            Self::Unknown(what) => Self::Unknown(format!("{operation}: {what}")),
            Self::NotApplied(what) => Self::NotApplied(format!("{operation}: {what}")),
            Self::Throttled { code } => Self::Throttled { code },
        }
    }
}

/// How a missing right is told.
const RIGHT_MISSING: &str = "the right to call";

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotApplied(what) => write!(f, "AWS could not be reached: {what}"),
            Self::Rejected { code, message } => write!(f, "{code}: {message}"),
            Self::Throttled { code } => write!(f, "{code} (throttled)"),
            Self::Unknown(what) => write!(f, "no certain answer from AWS: {what}"),
        }
    }
}

/// Whether a refusal, or an instance's state reason, says that AWS has no room: granted
/// later, and as certain as a 4xx, though EC2 gives it with status 500.
/// Source: EC2 API reference, "Error codes" (`InsufficientInstanceCapacity`,
/// `InsufficientHostCapacity`, `InsufficientVolumeCapacity`, ...); EC2 user guide,
/// "Troubleshoot instance launch issues" (`Server.InsufficientInstanceCapacity`).
pub fn is_full(code: &str) -> bool {
    let code = code.strip_prefix("Server.").unwrap_or(code);
    (code.starts_with("Insufficient") && code.contains("Capacity"))
        || code == "ReservationCapacityExceeded"
}

/// 5 s, doubled with each trouble in a row, up to 5 minutes. The shell adds jitter.
pub(crate) fn backoff(troubles: u32) -> Seconds {
    Seconds((5_i64 << troubles.saturating_sub(1).min(6)).min(300))
}
