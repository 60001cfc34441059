//! EC2's Query protocol, requests: `Filter.1.Value.2=x` and the like.

use std::collections::BTreeMap;

use crate::error::{Ec2Error, Ec2Result};

/// The fields of a request, or of a structure in it.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(body: &[u8]) -> Query {
        Query(form_urlencoded::parse(body).into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn required(&self, name: &str) -> Ec2Result<&str> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| Ec2Error::missing(name))
    }

    pub(crate) fn flag(&self, name: &str) -> Ec2Result<bool> {
        match self.get(name) {
            None | Some("") => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(Ec2Error::invalid_value(value, name)),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Ec2Result<Option<usize>> {
        let value = self
            .get(name)
            .map(|value| value.parse().map_err(|_| Ec2Error::invalid_value(value, name)));
        value.transpose()
    }

    /// `Name.1`, `Name.2`, ... in their order.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let members = self.members(name).into_iter();
        members.filter_map(|member| member.get("").map(str::to_owned)).collect()
    }

    /// `Name.1.Field`, `Name.2.Field`, ... as one structure for each number.
    pub(crate) fn members(&self, name: &str) -> Vec<Query> {
        let mut members: BTreeMap<u32, Query> = BTreeMap::new();
        for (key, value) in &self.0 {
            let Some(rest) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            let (number, field) = rest.split_once('.').unwrap_or((rest, ""));
            if let Ok(number) = number.parse() {
                members.entry(number).or_default().0.insert(field.to_owned(), value.clone());
            }
        }
        members.into_values().collect()
    }
}
