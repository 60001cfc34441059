//! Tags: EC2's rules for them, and `CreateTags`/`DeleteTags`.
//!
//! The rules: EC2 user guide, "Tag restrictions"; the codes: (X); the
//! messages as EC2 words them (inf where the pages give none).

use crate::Cloud;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::world::Tags;

const MOST_TAGS: usize = 50;
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 256;

/// A tag to delete: without a value, whatever its value is (M).
pub(crate) type DeletedTag = (String, Option<String>);

/// Tags of one request: no key twice, none of AWS's, none too long.
pub(crate) fn check_new(pairs: Vec<(String, String)>) -> Ec2Result<Tags> {
    let mut tags = Tags::new();
    for (key, value) in pairs {
        if key.is_empty() {
            return Err(Ec2Error::invalid("Tag key cannot be empty."));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(Ec2Error::invalid(
                "Tag keys starting with 'aws:' are reserved for internal use",
            ));
        }
        if key.chars().count() > LONGEST_KEY {
            return Err(Ec2Error::invalid(format!(
                "Tag key exceeds the maximum length of {LONGEST_KEY} characters"
            )));
        }
        if value.chars().count() > LONGEST_VALUE {
            return Err(Ec2Error::invalid(format!(
                "Tag value exceeds the maximum length of {LONGEST_VALUE} characters"
            )));
        }
        if tags.contains_key(&key) {
            return Err(Ec2Error::invalid(format!("Duplicate tag key '{key}' specified.")));
        }
        tags.insert(key, value);
    }
    check_count(&tags)?;
    Ok(tags)
}

/// At most 50 on a resource, AWS's own not counted.
pub(crate) fn check_count(tags: &Tags) -> Ec2Result<()> {
    if tags.keys().filter(|key| !key.starts_with("aws:")).count() > MOST_TAGS {
        return Err(Ec2Error::new(
            "TagLimitExceeded",
            format!("More than {MOST_TAGS} tags specified"),
        ));
    }
    Ok(())
}

impl Cloud {
    /// The tags of a resource that EC2 knows by that id.
    fn tags_of(&self, id: &str) -> Ec2Result<&Tags> {
        let Some(kind) = IdKind::of(id) else {
            return Err(Ec2Error::new("InvalidID", format!("The ID '{id}' is not valid")));
        };
        kind.check(id)?;
        let tags = match kind {
            IdKind::Instance => self.instances.get(id).map(|i| &i.tags),
            IdKind::Volume => Some(&self.known_volume(id)?.tags),
            IdKind::Snapshot => {
                Some(self.known_snapshot(id)?).filter(|s| s.exists()).map(|s| &s.tags)
            }
        };
        tags.ok_or_else(|| Ec2Error::not_found(kind, id))
    }

    fn set_tags(&mut self, id: &str, tags: Tags) {
        let key = id.to_owned();
        let place = match IdKind::of(id) {
            Some(IdKind::Instance) => self.instances.get_mut(&key).map(|i| &mut i.tags),
            Some(IdKind::Volume) => self.volumes.get_mut(&key).map(|v| &mut v.tags),
            Some(IdKind::Snapshot) => self.snapshots.get_mut(&key).map(|s| &mut s.tags),
            None => None,
        };
        if let Some(place) = place {
            *place = tags;
        }
    }

    /// All resources or none (inf).
    pub(crate) fn create_tags(&mut self, ids: &[String], new: &Tags, dry: bool) -> Ec2Result<()> {
        self.retag(ids, dry, |tags| tags.extend(new.clone()))
    }

    /// Without tags all user tags go; AWS's own never do (M).
    pub(crate) fn delete_tags(
        &mut self,
        ids: &[String],
        gone: &[DeletedTag],
        dry: bool,
    ) -> Ec2Result<()> {
        self.retag(ids, dry, |tags| {
            tags.retain(|key, value| {
                let named =
                    gone.iter().any(|(k, v)| k == key && v.as_ref().is_none_or(|v| v == value));
                key.starts_with("aws:") || !(named || gone.is_empty())
            });
        })
    }

    fn retag(&mut self, ids: &[String], dry: bool, change: impl Fn(&mut Tags)) -> Ec2Result<()> {
        let mut changed = Vec::new();
        for id in ids {
            let mut tags = self.tags_of(id)?.clone();
            change(&mut tags);
            check_count(&tags)?;
            changed.push((id, tags));
        }
        if dry {
            return Err(Ec2Error::dry_run());
        }
        for (id, tags) in changed {
            self.set_tags(id, tags);
        }
        Ok(())
    }
}
