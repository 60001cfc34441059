//! Pages of the lists: each has what it must have, and its link leads to the rest.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::super::reply::Reply;
use super::{Asked, Oracle, Verdict, violated};
use crate::rows::items;

/// The most items of a page, if nobody asks for fewer.
const MOST: u64 = 1000;

/// A request that takes longer may end its page before it is full. (No row here is so large
/// that a page ends for its size.)
const LONG: SignedDuration = SignedDuration::from_secs(4);

/// Which part of a list somebody asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) limit: Option<u64>,
    pub(crate) before: Option<u64>,
}

impl Page {
    /// As much as there may be.
    pub(crate) const FIRST: Self = Self { limit: None, before: None };

    /// The one that a link leads to, if it does.
    pub(crate) fn of_link(link: &str) -> Option<Self> {
        let (_, query) = link.split_once("?limit=")?;
        let (limit, query) = query.split_once("&before=")?;
        let (before, _) = query.split_once('>')?;
        Some(Self { limit: Some(limit.parse().ok()?), before: Some(before.parse().ok()?) })
    }
}

/// As a query of the path; nothing if all is asked for.
impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.limit, self.before) {
            (None, None) => Ok(()),
            (Some(limit), None) => write!(f, "?limit={limit}"),
            (None, Some(before)) => write!(f, "?before={before}"),
            (Some(limit), Some(before)) => write!(f, "?limit={limit}&before={before}"),
        }
    }
}

impl Oracle {
    /// A page has the newest of what was there all the time, as many as were asked for; a link
    /// goes on behind the last of them, and there is one where something is left.
    ///
    /// `there`: what was there at some moment of the request, and whether all the time.
    pub(super) fn page_is_true(
        now: Timestamp,
        asked: &Asked,
        (of, page): (&str, Page),
        reply: &Reply,
        there: &[(u64, bool)],
    ) -> Verdict {
        let shown = reply.json();
        let ids: Vec<u64> = items(&shown).map(|item| item["id"].as_u64().unwrap_or(0)).collect();
        let (limit, before) = (page.limit.unwrap_or(MOST), page.before.unwrap_or(u64::MAX));
        if ids.windows(2).any(|two| two[0] <= two[1]) {
            return violated("list-order", format!("{asked:?}: {ids:?}"));
        }
        let count = ids.len() as u64;
        if count > limit || ids.first().is_some_and(|first| *first >= before) {
            return violated("list-page", format!("{asked:?}: {ids:?}"));
        }
        let link = reply.header("link");
        let mut end = 0;
        if !link.is_empty() {
            let last = ids.last().copied().unwrap_or(0);
            let path = format!("/deployments/{}/{of}", asked.deployment);
            let right = format!("<{path}?limit={limit}&before={last}>; rel=\"next\"");
            let leads = there.iter().any(|(id, _)| *id < last);
            let full = count == limit || now.duration_since(asked.at) >= LONG;
            if link != right || !leads || !full {
                return violated("list-link", format!("{asked:?}: {link} behind {ids:?}"));
            }
            end = last;
        }
        let left = there
            .iter()
            .find(|(id, always)| *always && (end..before).contains(id) && !ids.contains(id));
        match left {
            Some((id, _)) => violated(
                "list-incomplete",
                format!("{asked:?}: {id} is not in {ids:?}, and the link is {link:?}, at {now}"),
            ),
            None => Ok(()),
        }
    }
}
