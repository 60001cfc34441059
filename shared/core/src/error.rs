//! Why a request is refused: the contract's codes, apart from HTTP's face of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $status:literal;)*) => {
        /// What a refused request says in `code`. Each has one HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            /// Every code, in the order of the contract's table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As the API and the announcements write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that carries it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// When it is answered.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

codes! {
    /// Malformed JSON, wrong type, out of range, unknown field, bad id in the path, bad query or
    /// `idempotency-key`.
    InvalidRequest = "invalid_request", 400;
    /// Backups are made of managed deployments on AWS with network storage and a host of their
    /// own: not of this one.
    StorageNotSupported = "storage_not_supported", 400;
    /// Key missing, unknown, revoked, or expired: one reply for all.
    Unauthorized = "unauthorized", 401;
    /// The request comes from outside of the key's allowlist.
    IpNotAllowed = "ip_not_allowed", 403;
    /// The key lacks the permission.
    InsufficientPermissions = "insufficient_permissions", 403;
    /// The deployment's plan has no backups.
    PlanNotSupported = "plan_not_supported", 403;
    /// No such deployment, or the key may not see it.
    DeploymentNotFound = "deployment_not_found", 404;
    /// No such backup.
    BackupNotFound = "backup_not_found", 404;
    /// No such restore.
    RestoreNotFound = "restore_not_found", 404;
    /// The deployment has no schedule.
    ScheduleNotFound = "schedule_not_found", 404;
    /// No such node in the deployment.
    NodeNotFound = "node_not_found", 404;
    /// No such path.
    RouteNotFound = "route_not_found", 404;
    /// The path has no such method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The control plane says that the deployment is not `initialized`, or has no nodes.
    DeploymentNotReady = "deployment_not_ready", 409;
    /// Another backup is pending or in progress.
    BackupInProgress = "backup_in_progress", 409;
    /// A restore is running.
    RestoreInProgress = "restore_in_progress", 409;
    /// The backup cannot be restored from, or not to these nodes.
    BackupNotRestorable = "backup_not_restorable", 409;
    /// The limit of backups is reached.
    BackupLimitReached = "backup_limit_reached", 409;
    /// A pending or in-progress backup cannot be deleted.
    BackupNotDeletable = "backup_not_deletable", 409;
    /// A backup that is being deleted cannot be changed.
    BackupDeleting = "backup_deleting", 409;
    /// The idempotency key was used for another request.
    IdempotencyError = "idempotency_error", 409;
    /// The same request is being carried out at this moment.
    IdempotentRequestInProgress = "idempotent_request_in_progress", 409;
    /// The body is over 64 KiB.
    BodyTooLarge = "body_too_large", 413;
    /// The body is not JSON by its content type.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// The key has made all the requests of this minute.
    RateLimited = "rate_limited", 429;
    /// A fault of ours.
    Internal = "internal_error", 500;
    /// A dependency failed, or too many requests wrote the same thing at once.
    Unavailable = "unavailable", 503;
}

impl Code {
    /// Whether the same request may succeed later without a change: 408, 425,
    /// 429, 500, 502, 503, 504.
    pub const fn retryable(self) -> bool {
        matches!(self.status(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One fault of an input, at its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldIssue {
    /// Where: a body's field, a parameter of path or query, or a header; empty for the whole
    /// body.
    pub path: String,
    /// What kind: `required`, `type`, `range`, `length`, `unknown`, `duplicate`, `value`, `syntax`, `encoding`.
    pub code: String,
    /// A sentence that says what to do.
    pub reason: String,
}

impl FieldIssue {
    /// A fault of kind `code` at `path`.
    pub fn new(path: impl Into<String>, code: &str, reason: impl Into<String>) -> Self {
        Self { path: path.into(), code: code.to_owned(), reason: reason.into() }
    }
}

/// A refusal: the code, a sentence that says what to do, and the faults of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule.
    pub code: Code,
    /// A sentence for the caller. Nothing of another tenant, no secret.
    pub reason: String,
    /// Every fault found, for input errors.
    pub issues: Vec<FieldIssue>,
}

impl Refusal {
    /// A refusal without field issues.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), issues: Vec::new() }
    }

    /// An `invalid_request` with every fault found.
    pub fn invalid(issues: Vec<FieldIssue>) -> Self {
        let reason = match issues.as_slice() {
            [one] => one.reason.clone(),
            many => format!("The request has {} faults; see `field_issues`.", many.len()),
        };
        Self { code: Code::InvalidRequest, reason, issues }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.reason)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
    }
}
