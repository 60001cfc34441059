//! The lists, page by page: by `limit` and `before`, from link to link, and however large what
//! stands in them is.

use serde_json::{Value, json};
use tests::http::{Call, Reply};
use tests::{Here, Result, Setup};

use crate::refused;

/// What Lambda takes of a function's response, all of it as JSON ("Lambda quotas"): 6 MB.
const LAMBDA: usize = 6_291_556;

/// As many volumes as a backup may have.
const VOLUMES: usize = 500;

/// The rows of one backup and of its restore, as the service wrote them.
struct Rows {
    backup: Value,
    restore: Value,
}

impl Rows {
    async fn written(here: &Here) -> Result<Self> {
        let deployment = here.demo.deployment_id;
        here.create("n").await?;
        here.rest().await?;
        let restore = Call::new("POST", format!("{}/1/restore", here.backups()));
        let reply = here.send(restore.key(&here.demo.keys.manage)).await?;
        assert_eq!(reply.status, 204, "{}", reply.text);
        here.rest().await?;
        let backup = here.item(deployment, &sk("BACKUP", 1)).await?;
        let restore = here.item(deployment, &sk("RESTORE", 1)).await?;
        assert_eq!(backup["status"]["S"], "completed");
        assert_eq!(restore["status"]["S"], "completed");
        Ok(Self { backup, restore })
    }

    /// The same with as many volumes as there may be.
    fn grown(mut self) -> Self {
        let snapshot = |n: usize| json!({"S": format!("snap-{n:017x}")});
        let volume = |n: usize| json!({"S": format!("vol-{n:017x}")});
        let device = |n: usize| json!({"S": format!("/dev/sd{n:03}")});
        grow(&mut self.backup, &["set"], |one, n| {
            one["snapshot_id"] = snapshot(n);
            one["volume_id"] = volume(n);
        });
        grow(&mut self.restore, &["old", "new"], |one, n| {
            one["device"] = device(n);
            one["volume_id"] = volume(n);
            if !one["snapshot_id"].is_null() {
                one["snapshot_id"] = snapshot(n);
            }
        });
        self
    }

    /// Puts the row again, under other ids.
    async fn put(&self, here: &Here, backups: u64, restores: u64) -> Result<()> {
        for (kind, row, last) in
            [("BACKUP", &self.backup, backups), ("RESTORE", &self.restore, restores)]
        {
            for id in 1..=last {
                let mut row = row.clone();
                row["sk"] = json!({"S": sk(kind, id)});
                row["id"] = json!({"N": id.to_string()});
                here.put_item(&row).await?;
            }
        }
        Ok(())
    }
}

fn sk(kind: &str, id: u64) -> String {
    format!("{kind}#{id:020}")
}

/// Repeats the first of the volumes of each node until there are as many as there may be.
fn grow(row: &mut Value, lists: &[&str], change: impl Fn(&mut Value, usize)) {
    let nodes = &mut row["nodes"]["L"];
    let count = nodes.as_array().map_or(0, Vec::len);
    for (at, node) in nodes.as_array_mut().into_iter().flatten().enumerate() {
        for list in lists {
            let list = &mut node["M"][list]["L"];
            let first = list[0].clone();
            let all = (at..VOLUMES).step_by(count).map(|n| {
                let mut one = first.clone();
                change(&mut one["M"], n);
                one
            });
            *list = all.collect();
        }
    }
}

fn ids(reply: &Reply) -> Vec<u64> {
    let list = reply.json();
    list.as_array().into_iter().flatten().filter_map(|one| one["id"].as_u64()).collect()
}

/// All pages from a path on, as a client goes on from link to link.
async fn followed(here: &Here, from: String) -> Result<Vec<Reply>> {
    let mut pages = Vec::new();
    let mut next = from;
    loop {
        let reply = here.send(Call::new("GET", next.as_str()).key(&here.demo.keys.read)).await?;
        assert_eq!(reply.status, 200, "{}: {}", reply.asked, reply.text);
        let link = reply.header("link").to_owned();
        pages.push(reply);
        let Some((path, rest)) = link.trim_start_matches('<').split_once('>') else {
            assert_eq!(link, "");
            return Ok(pages);
        };
        assert_eq!(rest, "; rel=\"next\"");
        path.clone_into(&mut next);
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    Rows::written(&here).await?.put(&here, 5, 5).await?;
    let deployment = here.demo.deployment_id;
    for what in ["backups", "restores"] {
        let list = format!("/deployments/{deployment}/{what}");
        let read = async |query: &str, key: &str| {
            here.send(Call::new("GET", format!("{list}{query}")).key(key)).await
        };
        let key = &here.demo.keys.read;
        let pages = followed(&here, format!("{list}?limit=2")).await?;
        let pages: Vec<_> = pages.iter().map(ids).collect();
        assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]], "{what}");
        let link = read("?before=5&limit=1", key).await?;
        assert_eq!(link.header("link"), format!("<{list}?limit=1&before=4>; rel=\"next\""));
        for (query, expected) in [
            ("", vec![5, 4, 3, 2, 1]),
            ("?limit=1000&other=1", vec![5, 4, 3, 2, 1]),
            ("?limit=5", vec![5, 4, 3, 2, 1]),
            ("?before=3", vec![2, 1]),
            ("?before=3&limit=2", vec![2, 1]),
            ("?before=1", vec![]),
            ("?before=18446744073709551615", vec![5, 4, 3, 2, 1]),
        ] {
            let reply = read(query, key).await?;
            assert_eq!(reply.status, 200, "{what} {query}");
            assert_eq!((ids(&reply), reply.header("link")), (expected, ""), "{what} {query}");
        }
        for (query, faults) in [
            ("?limit=0", vec![("limit", "value")]),
            ("?limit=1001", vec![("limit", "value")]),
            ("?limit=", vec![("limit", "value")]),
            ("?limit=01", vec![("limit", "value")]),
            ("?limit=%2B1&before=01", vec![("limit", "value"), ("before", "value")]),
            ("?before=0", vec![("before", "value")]),
            ("?limit=1&limit=2", vec![("limit", "duplicate")]),
        ] {
            let reply = read(query, key).await?;
            refused(&reply, 400, "invalid_request");
            let faults: Vec<_> = faults.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            assert_eq!(reply.issues(), faults, "{what} {query}");
        }
        // Another's list is not there, page by page neither.
        let foreign = read("?before=3", &here.demo.keys.other_tenant).await?;
        refused(&foreign, 404, "deployment_not_found");
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_list_too_large_for_one_reply_goes_on_behind_a_link() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    Rows::written(&here).await?.grown().put(&here, 250, 80).await?;
    let deployment = here.demo.deployment_id;
    for (what, count) in [("backups", 250), ("restores", 80)] {
        let list = format!("/deployments/{deployment}/{what}");
        let pages = followed(&here, list).await?;
        let sizes: Vec<usize> = pages.iter().map(handed_back).collect();
        let counts: Vec<usize> = pages.iter().map(|reply| ids(reply).len()).collect();
        println!("{what}: pages of {counts:?}, {sizes:?} bytes");
        let shown: Vec<u64> = pages.iter().flat_map(ids).collect();
        assert_eq!(shown, (1..=count).rev().collect::<Vec<u64>>(), "{what}: each once");
        assert!(sizes.iter().all(|size| *size < LAMBDA), "{what}: {sizes:?}");
        assert!(pages.len() > 1, "{what}: {sizes:?}");
    }
    here.stop().await;
    Ok(())
}

/// How long a reply was when Lambda had it: with its body as a string of JSON.
fn handed_back(reply: &Reply) -> usize {
    let response = json!({
        "statusCode": reply.status,
        "headers": reply.headers,
        "multiValueHeaders": {},
        "body": reply.text,
        "isBase64Encoded": false,
        "cookies": [],
    });
    response.to_string().len()
}
