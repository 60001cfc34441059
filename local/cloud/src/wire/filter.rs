//! What all describes share: filters and pages.

use std::collections::BTreeSet;

use super::query::Query;
use super::xml::{Node, text};
use crate::error::{Ec2Error, Ec2Result};
use crate::world::Tags;

/// Values over all filters of a request (EC2 user guide, "Filtering").
const MOST_VALUES: usize = 200;

/// The filters of a describe: all must match, each by one of its values.
#[derive(Debug)]
pub(crate) struct Filters(Vec<Filter>);

#[derive(Debug)]
struct Filter {
    name: String,
    /// Values that stand for themselves: no need to try one after the other.
    plain: BTreeSet<String>,
    /// Values with a character that has a meaning.
    wildcards: Vec<String>,
}

impl Filters {
    /// A name that is neither among these nor, where the resource has tags, a
    /// tag's is refused.
    pub(crate) fn parse(query: &Query, names: &[&str], tagged: bool) -> Ec2Result<Filters> {
        let mut filters = Vec::new();
        let mut count = 0;
        for member in query.members("Filter") {
            let name = member.required("Name")?;
            let of_tags = tagged && (name == "tag-key" || name.starts_with("tag:"));
            if !of_tags && !names.contains(&name) {
                return Err(Ec2Error::invalid(format!("The filter '{name}' is invalid")));
            }
            let values = member.list("Value");
            count += values.len();
            if count > MOST_VALUES {
                return Err(Ec2Error::new(
                    "FilterLimitExceeded",
                    format!(
                        "The maximum number of filter values specified on a single call is {MOST_VALUES}"
                    ),
                ));
            }
            let (wildcards, plain): (Vec<_>, Vec<_>) =
                values.into_iter().partition(|value| value.contains(['*', '?', '\\']));
            let plain = plain.into_iter().collect();
            filters.push(Filter { name: name.to_owned(), plain, wildcards });
        }
        Ok(Filters(filters))
    }

    /// `field` gives what a resource has for a filter's name.
    pub(crate) fn match_all(&self, tags: &Tags, field: impl Fn(&str) -> Vec<String>) -> bool {
        self.0.iter().all(|filter| match filter.name.strip_prefix("tag:") {
            Some(key) => tags.get(key).is_some_and(|value| filter.wants(value)),
            None if filter.name == "tag-key" => tags.keys().any(|key| filter.wants(key)),
            None => field(&filter.name).iter().any(|value| filter.wants(value)),
        })
    }

    /// The only values of that name that can match, if they are known without
    /// a look at the resources.
    pub(crate) fn exactly(&self, name: &str) -> Option<&BTreeSet<String>> {
        let filter = self.0.iter().find(|filter| filter.name == name)?;
        filter.wildcards.is_empty().then_some(&filter.plain)
    }
}

impl Filter {
    fn wants(&self, value: &str) -> bool {
        self.plain.contains(value)
            || self.wildcards.iter().any(|one| wildcard_matches(one, value, true))
    }
}

/// `*` stands for any text, `?` (in EC2's filters, not in event patterns) for
/// one character, a backslash takes either's meaning away (EC2 user guide,
/// "Filtering"; (EB)). Case matters.
pub(crate) fn wildcard_matches(pattern: &str, value: &str, question_mark: bool) -> bool {
    enum Part {
        Any,
        One,
        Is(char),
    }
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        parts.push(match char {
            '*' => Part::Any,
            '?' if question_mark => Part::One,
            '\\' => Part::Is(chars.next().unwrap_or('\\')),
            char => Part::Is(char),
        });
    }
    let value: Vec<char> = value.chars().collect();
    // Greedy, going back to the last star only: linear but for repeats.
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < value.len() {
        match parts.get(at) {
            Some(Part::Any) => {
                star = Some((at, from));
                at += 1;
                continue;
            }
            Some(Part::One) => {}
            Some(Part::Is(char)) if *char == value[from] => {}
            _ => {
                let Some((star_at, star_from)) = star else { return false };
                star = Some((star_at, star_from + 1));
                (at, from) = (star_at + 1, star_from + 1);
                continue;
            }
        }
        at += 1;
        from += 1;
    }
    parts[at..].iter().all(|part| matches!(part, Part::Any))
}

/// One page of a describe.
#[derive(Debug, Default)]
pub(crate) struct Paging {
    size: Option<usize>,
    after: Option<String>,
}

impl Paging {
    /// 5 to 1000 on a page (M); ids and pages exclude each other where the
    /// model says so.
    pub(crate) fn parse(query: &Query, ids: Option<&[String]>) -> Ec2Result<Paging> {
        let size = query.number("MaxResults")?;
        if let Some(size) = size {
            if !(5..=1000).contains(&size) {
                return Err(Ec2Error::invalid(format!(
                    "Value ( {size} ) for parameter maxResults is invalid. \
                     Expecting a value between 5 and 1000."
                )));
            }
            if ids.is_some_and(|ids| !ids.is_empty()) {
                return Err(Ec2Error::combination(
                    "The parameter instancesSet cannot be used with the parameter maxResults",
                ));
            }
        }
        let after = query.get("NextToken").filter(|token| !token.is_empty()).map(open_token);
        Ok(Paging { size, after: after.transpose()? })
    }

    /// AWS may give fewer than it is asked for.
    pub(crate) fn at_most(mut self, rows: Option<usize>) -> Paging {
        self.size = match (self.size, rows) {
            (Some(size), Some(rows)) => Some(size.min(rows)),
            (size, _) => size,
        };
        self
    }

    /// The page of these rows, which are in the order of their keys, and the
    /// token's element if there is more.
    pub(crate) fn page<T>(
        &self,
        rows: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<Node>) {
        let after = self.after.as_ref();
        let mut rows = rows.filter(|row| after.is_none_or(|after| key(row) > *after));
        let page: Vec<T> = rows.by_ref().take(self.size.unwrap_or(usize::MAX)).collect();
        let token = match (rows.next(), page.last()) {
            (Some(_), Some(last)) => Some(text("nextToken", token(&key(last)))),
            _ => None,
        };
        (page, token)
    }
}

/// Opaque to clients, as AWS's are: nobody is to read an id out of it.
fn token(key: &str) -> String {
    let hex = key.bytes().flat_map(|byte| [byte >> 4, byte & 15]);
    hex.map(|digit| char::from(b'a' + digit)).collect()
}

fn open_token(token: &str) -> Ec2Result<String> {
    let wrong = || Ec2Error::new("InvalidNextToken", "The token is not valid.");
    let digits = token.bytes().map(|b| b.checked_sub(b'a').filter(|digit| *digit < 16));
    let digits = digits.collect::<Option<Vec<u8>>>().ok_or_else(wrong)?;
    if digits.len() % 2 == 1 {
        return Err(wrong());
    }
    let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    String::from_utf8(bytes).map_err(|_| wrong())
}
