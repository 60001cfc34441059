//! EC2's errors: a code, a message, an HTTP status (X).

/// An EC2 error as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ec2Error {
    pub(crate) code: String,
    pub(crate) message: String,
}

pub(crate) type Ec2Result<T> = Result<T, Ec2Error>;

impl Ec2Error {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Ec2Error { code: code.to_owned(), message: message.into() }
    }

    pub(crate) fn status(&self) -> u16 {
        status_of(&self.code)
    }

    /// A dry run that would have gone through answers with an error (X).
    pub(crate) fn dry_run() -> Self {
        Ec2Error::new("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    }

    pub(crate) fn throttled() -> Self {
        Ec2Error::new("RequestLimitExceeded", "Request limit exceeded.")
    }

    pub(crate) fn invalid_action(action: &str) -> Self {
        Ec2Error::new(
            "InvalidAction",
            format!("The action {action} is not valid for this web service."),
        )
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        Ec2Error::new(
            "MissingParameter",
            format!("The request must contain the parameter {parameter}"),
        )
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Ec2Error::new("InvalidParameterValue", message)
    }

    pub(crate) fn invalid_value(value: &str, parameter: &str) -> Self {
        Ec2Error::invalid(format!("Value ({value}) for parameter {parameter} is invalid."))
    }

    pub(crate) fn combination(message: impl Into<String>) -> Self {
        Ec2Error::new("InvalidParameterCombination", message)
    }

    pub(crate) fn not_found(kind: IdKind, id: &str) -> Self {
        let message = match kind {
            IdKind::Instance => format!("The instance ID '{id}' does not exist"),
            IdKind::Volume => format!("The volume '{id}' does not exist."),
            IdKind::Snapshot => format!("The snapshot '{id}' does not exist."),
        };
        Ec2Error::new(kind.not_found(), message)
    }
}

/// The HTTP status of an error code, where AWS's pages give one: EC2's client
/// errors are 400 but for those of authorisation, server errors 5xx (X).
pub(crate) fn status_of(code: &str) -> u16 {
    match code {
        "DryRunOperation" => 412,
        "AuthFailure" => 401,
        "UnauthorizedOperation" | "OptInRequired" | "Blocked" | "PendingVerification" => 403,
        "RequestLimitExceeded" | "Unavailable" | "ServiceUnavailable" => 503,
        "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalException"
        | "InsufficientInstanceCapacity"
        | "InsufficientCapacity"
        | "InsufficientAddressCapacity"
        | "InsufficientVolumeCapacity" => 500,
        _ => 400,
    }
}

/// The kinds of resources that EC2 ids name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdKind {
    Instance,
    Volume,
    Snapshot,
}

impl IdKind {
    pub(crate) const ALL: [IdKind; 3] = [IdKind::Instance, IdKind::Volume, IdKind::Snapshot];

    pub(crate) fn prefix(self) -> &'static str {
        match self {
            IdKind::Instance => "i",
            IdKind::Volume => "vol",
            IdKind::Snapshot => "snap",
        }
    }

    /// As tags and tag specifications name it [M, `ResourceType`].
    pub(crate) fn resource_type(self) -> &'static str {
        match self {
            IdKind::Instance => "instance",
            IdKind::Volume => "volume",
            IdKind::Snapshot => "snapshot",
        }
    }

    fn not_found(self) -> &'static str {
        match self {
            IdKind::Instance => "InvalidInstanceID.NotFound",
            IdKind::Volume => "InvalidVolume.NotFound",
            IdKind::Snapshot => "InvalidSnapshot.NotFound",
        }
    }

    fn malformed(self) -> &'static str {
        match self {
            IdKind::Instance => "InvalidInstanceID.Malformed",
            IdKind::Volume => "InvalidVolumeID.Malformed",
            IdKind::Snapshot => "InvalidSnapshotID.Malformed",
        }
    }

    /// What an id names, by its prefix.
    pub(crate) fn of(id: &str) -> Option<IdKind> {
        let (prefix, _) = id.split_once('-')?;
        IdKind::ALL.into_iter().find(|kind| kind.prefix() == prefix)
    }

    /// Ids are the prefix and 8 (old) or 17 hexadecimal digits; others are
    /// malformed (X).
    pub(crate) fn check(self, id: &str) -> Ec2Result<()> {
        let digits = id.strip_prefix(self.prefix()).and_then(|rest| rest.strip_prefix('-'));
        let good = digits.is_some_and(|digits| {
            matches!(digits.len(), 8 | 17)
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if good {
            return Ok(());
        }
        Err(Ec2Error::new(
            self.malformed(),
            format!("Invalid id: \"{id}\" (expecting \"{}-...\")", self.prefix()),
        ))
    }
}
