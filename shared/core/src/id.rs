//! Ids as types, so that no two bare numbers or strings stand side by side.
//!
//! Deployment and node ids exceed 2^53: they are exact `u64`s here, numbers in
//! JSON and `N` attributes in DynamoDB, never floats.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is a decimal number from 1 to 18446744073709551615, without sign or leading zero")
    }
}

impl std::error::Error for NotAnId {}

/// Reads a canonical decimal id: digits only, from 1, no leading zero.
fn canonical(text: &str) -> Result<u64, NotAnId> {
    let first = text.bytes().next().ok_or(NotAnId)?;
    if first == b'0' || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NotAnId);
    }
    text.parse().map_err(|_| NotAnId)
}

/// An id in JSON. `uint64` is of the `OpenAPI` initiative's registry of formats.
fn number(about: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some(about.trim_ascii()))
        .format(Some(SchemaFormat::Custom("uint64".to_owned())))
        .minimum(Some(1_u64))
        .maximum(Some(u64::MAX))
        .into()
}

macro_rules! number_id {
    ($(#[doc = $doc:literal])* $name:ident) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                canonical(text).map(Self)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                number(concat!($($doc),*))
            }
        }

        impl ToSchema for $name {}
    };
}

number_id!(
    /// A deployment of the platform. May exceed 2^53.
    DeploymentId
);
number_id!(
    /// A node of a deployment: one EC2 instance at a time. May exceed 2^53.
    NodeId
);
number_id!(
    /// A backup: 1, 2, 3 ... per deployment, never used again.
    BackupId
);

number_id!(
    /// A restore: 1, 2, 3 ... per deployment, never used again.
    RestoreId
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The id as AWS or the platform writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text_id!(
    /// A tenant of the platform. Opaque.
    TenantId
);
text_id!(
    /// An EC2 instance, `i-…`.
    InstanceId
);
text_id!(
    /// An EBS volume, `vol-…`.
    VolumeId
);
text_id!(
    /// An EBS snapshot, `snap-…`.
    SnapshotId
);
text_id!(
    /// A random value that marks one write, one announcement, or one backup's
    /// snapshots as ours: 32 hex digits, drawn by the shell.
    Nonce
);

impl Default for Nonce {
    /// That of a row which was never written.
    fn default() -> Self {
        Self(String::new())
    }
}

impl SnapshotId {
    /// The snapshot's id out of an ARN. Events carry three shapes of it
    /// (`arn:aws:ec2::R:snapshot/ID`, `arn:aws:ec2:R::snapshot/ID`,
    /// `arn:aws:ec2:R:A:snapshot/ID`), and other partitions than `aws`: what
    /// follows the last `/` is the id in all of them. None if that is not `snap-…`.
    /// Source: EBS user guide, "Amazon EventBridge events for Amazon EBS".
    pub fn from_arn(arn: &str) -> Option<Self> {
        let id = arn.rsplit('/').next()?;
        let digits = id.strip_prefix("snap-")?;
        let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| Self(id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_paths_are_canonical_decimals_from_one() {
        assert_eq!("18446744073709551615".parse(), Ok(DeploymentId(u64::MAX)));
        assert_eq!("9007199254740993".parse(), Ok(DeploymentId(9_007_199_254_740_993)));
        for bad in [
            "",
            "0",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "18446744073709551616",
            "١",
            "0x1",
        ] {
            assert_eq!(bad.parse::<DeploymentId>(), Err(NotAnId), "{bad:?}");
        }
    }

    #[test]
    fn every_documented_arn_shape_names_the_snapshot() {
        let id = Some(SnapshotId::from("snap-0abc123def456789a"));
        for arn in [
            "arn:aws:ec2::us-west-1:snapshot/snap-0abc123def456789a",
            "arn:aws:ec2:us-west-1::snapshot/snap-0abc123def456789a",
            "arn:aws:ec2:us-west-1:123456789012:snapshot/snap-0abc123def456789a",
            "arn:aws-cn:ec2:cn-north-1::snapshot/snap-0abc123def456789a",
        ] {
            assert_eq!(SnapshotId::from_arn(arn), id, "{arn}");
        }
        for bad in
            ["", "arn:aws:ec2::us-west-1:volume/vol-01", "snap-", "arn:x/snap-zz", "arn:x/snap-01/"]
        {
            assert_eq!(SnapshotId::from_arn(bad), None, "{bad}");
        }
    }
}
