//! One page of a list: as many items as were asked for, unless they would not fit into a reply
//! or take too long to be read. Where it ends before the list does, a link leads on.

use std::fmt::Display;
use std::time::Duration;

use axum::response::Response;
use backups_aws::table::Listing;
use backups_core::id::DeploymentId;
use http::HeaderValue;
use http::header::LINK;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::{Began, DEADLINE};
use crate::input::Page;
use crate::problem::Problem;
use crate::shown;

/// The longest body of a page, as Lambda counts it: a string in the JSON of the function's
/// response, in which each quote takes two bytes.
///
/// Lambda hands back 6 MB, 6,291,556 bytes to be exact, and an error in place of more (AWS
/// Lambda developer guide, "Lambda quotas", "Invocation payload"; the error's own words). The
/// status and the headers beside the body have some hundred bytes of them; API Gateway would
/// take 10 MB.
///
/// A single item is far below: its row has 400 KB at most (DynamoDB developer guide, "Quotas",
/// "Item size"), and of what is stored of a volume or a node less than twice as much is shown.
/// With 500 volumes a backup has 27 KB, and a restore 80 KB.
const LONGEST: usize = 5 << 20;

/// After so many queries, of a megabyte each at most, a page has what it has: rows may be larger
/// than what is shown of them. It is 2,560 read units of the 3,000 that a partition gives in a
/// second (DynamoDB developer guide, "Best practices for designing and using partition keys
/// effectively").
const QUERIES: u32 = 10;

/// And when the request has taken so long, half of the time that it has.
const PATIENCE: Duration = Duration::from_secs(DEADLINE.as_secs() / 2);

/// What a list is of.
pub(crate) trait Listed: DeserializeOwned {
    /// Where the list is, below its deployment.
    const PATH: &'static str;

    /// What tells one from the others.
    type Id: Display;

    /// Which it is.
    fn id(&self) -> Self::Id;

    /// As the list shows it.
    fn item(&self) -> impl Serialize;
}

/// How many to read for a page: one more than it has, to know whether there are more.
pub(crate) const fn to_read<Id>(wanted: &Page<Id>) -> usize {
    wanted.limit.saturating_add(1)
}

/// The page that was asked for, of a list that begins where it does.
pub(crate) async fn reply<T: Listed>(
    id: DeploymentId,
    wanted: &Page<T::Id>,
    mut listing: Listing<'_, T>,
    began: Began,
) -> Result<Response, Problem> {
    let mut body = Body::default();
    let (mut last, mut more) = (None, false);
    // After how many queries there is nothing more to show.
    let mut ends = u32::MAX;
    while let Some(one) = listing.next().await? {
        let item = shown::written(&one.item())?;
        let full =
            body.items == wanted.limit || !body.takes(&item, LONGEST) || listing.queries() > ends;
        // One at least, or the link would lead back to here.
        if full && body.items > 0 {
            more = true;
            break;
        }
        body.push(&item);
        last = Some(one.id());
        if listing.queries() >= QUERIES || began.elapsed() >= PATIENCE {
            ends = ends.min(listing.queries());
            listing.want_no_more();
        }
    }
    let mut response = shown::json_of(body.end());
    if let Some(last) = last.filter(|_| more) {
        // Relative: nothing here depends on what a client calls us.
        let (path, limit) = (T::PATH, wanted.limit);
        let next = format!("</deployments/{id}/{path}?limit={limit}&before={last}>; rel=\"next\"");
        let next = HeaderValue::from_str(&next).map_err(|_| Problem::internal())?;
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}

/// A JSON array to which one item after the other is put.
#[derive(Debug, Default)]
struct Body {
    /// Without its brackets.
    bytes: Vec<u8>,
    /// How long that is in Lambda's eyes.
    counted: usize,
    items: usize,
}

impl Body {
    /// Whether one more leaves it no longer than `longest`.
    fn takes(&self, item: &[u8], longest: usize) -> bool {
        let around = "[],".len();
        self.counted.saturating_add(counted(item)).saturating_add(around) <= longest
    }

    fn push(&mut self, item: &[u8]) {
        if self.items > 0 {
            self.bytes.push(b',');
        }
        self.bytes.extend_from_slice(item);
        self.counted += counted(item) + usize::from(self.items > 0);
        self.items += 1;
    }

    /// The array.
    fn end(mut self) -> Vec<u8> {
        self.bytes.insert(0, b'[');
        self.bytes.push(b']');
        self.bytes
    }
}

/// How many bytes JSON takes in a string of JSON: it has no control characters any more, which
/// would take more than the one backslash of quotes and backslashes.
fn counted(json: &[u8]) -> usize {
    json.len() + json.iter().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}

#[cfg(test)]
mod tests {
    use backups_core::id::BackupId;
    use serde_json::json;

    use super::*;
    use crate::tests::cloud::Cloud;
    use crate::tests::{BACKUPS, deployment, get, key, pending};

    /// As Lambda has it.
    fn in_a_response(body: &[u8]) -> usize {
        let text = std::str::from_utf8(body).expect("UTF-8");
        json!(text).to_string().len() - 2
    }

    #[test]
    fn a_body_is_as_long_as_it_is_in_the_functions_response() {
        let mut body = Body::default();
        assert_eq!(in_a_response(&Body::default().end()), 2);
        for text in ["", "plain", "\"\\/", "\u{0}\u{1f}\n\t\u{7f}", "Zażółć 中 🙂", "\\u0000"]
        {
            let item = serde_json::to_vec(&json!({"name": text, text: [null, 1]})).expect("JSON");
            assert_eq!(counted(&item), in_a_response(&item), "{text:?}");
            // To the byte: what just fits is taken.
            let mut with = Body { bytes: body.bytes.clone(), ..body };
            with.push(&item);
            let long = with.counted + 2;
            let comma = usize::from(body.items == 0);
            assert!(body.takes(&item, long + comma) && !body.takes(&item, long - 1), "{text:?}");
            assert_eq!(long, in_a_response(&with.end()), "{text:?}");
            body.push(&item);
        }
        let list: serde_json::Value = serde_json::from_slice(&body.end()).expect("JSON");
        assert_eq!(list.as_array().map(Vec::len), Some(6));
    }

    /// A cloud with as many backups, of which a query gives as many, as of large ones.
    fn with_backups(count: u64, rows_a_query: usize) -> Cloud {
        let cloud = Cloud::with(Some(&key()), Some(&deployment()));
        cloud.rows_a_query(rows_a_query);
        for id in 1..=count {
            let mut backup = pending();
            backup.id = BackupId(id);
            cloud.put_backup(&backup);
        }
        cloud
    }

    /// How many backups the pages of the list have, and how many queries each took.
    async fn pages(cloud: &Cloud, count: u64) -> Vec<(usize, usize)> {
        let (mut ids, mut pages) = (Vec::new(), Vec::new());
        let mut next = BACKUPS.to_owned();
        loop {
            cloud.calls();
            let reply = get(cloud, &next).await;
            let queries = cloud.calls().iter().filter(|call| *call == "Query").count();
            let list = reply.json();
            let list = list.as_array().expect("a list");
            pages.push((list.len(), queries));
            ids.extend(list.iter().filter_map(|one| one["id"].as_u64()));
            let Some(link) = reply.headers.get("link") else { break };
            let (path, rest) = link.trim_start_matches('<').split_once('>').expect("a link");
            assert_eq!(rest, "; rel=\"next\"");
            next = path.to_owned();
        }
        assert_eq!(ids, (1..=count).rev().collect::<Vec<u64>>(), "each once");
        pages
    }

    #[tokio::test]
    async fn a_page_that_takes_many_queries_ends_and_a_link_leads_on() {
        // The first one has the deployment in its first query; each but the last one looks
        // whether there is one more.
        assert_eq!(pages(&with_backups(50, 2), 50).await, [(19, 11), (20, 11), (11, 6)]);
        // Nothing comes after the last one's tenth.
        assert_eq!(pages(&with_backups(39, 2), 39).await, [(19, 11), (20, 11)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_takes_long_ends_and_a_link_leads_on() {
        let cloud = with_backups(8, 2);
        // The key and its count, and from the second page on the deployment, take of it.
        cloud.takes(Duration::from_secs(1));
        assert_eq!(pages(&cloud, 8).await, [(3, 3), (2, 2), (2, 2), (1, 1)]);
    }

    #[tokio::test]
    async fn what_is_asked_for_is_read_and_no_more() {
        let cloud = with_backups(9, 1_000);
        let reply = get(&cloud, &format!("{BACKUPS}?limit=2")).await;
        assert_eq!(reply.headers["link"], format!("<{BACKUPS}?limit=2&before=8>; rel=\"next\""));
        // The deployment, two, and one more.
        assert_eq!(cloud.last("Query")["Limit"], 4);
        get(&cloud, &format!("{BACKUPS}?limit=2&before=8")).await;
        assert_eq!(cloud.last("Query")["Limit"], 3);
    }
}
