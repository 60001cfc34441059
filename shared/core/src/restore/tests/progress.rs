//! How far a restore says that it is.

use std::cell::RefCell;

use super::drive::drive_until;
use super::world::{How, Strike, World, world};
use super::*;

/// What it says on its way, without what it says twice in a row: of all, and of each node.
fn told(restore: Restore, world: &mut World) -> (Restore, Vec<(u8, Vec<u8>)>) {
    let all = RefCell::new(Vec::new());
    let done = drive_until(restore, world, |row| {
        let nodes = row.nodes.iter().map(|node| node.progress).collect();
        all.borrow_mut().push((row.progress, nodes));
        false
    });
    let mut all = all.into_inner();
    all.dedup();
    (done, all)
}

#[test]
fn it_grows_with_what_is_seen_and_is_whole_only_at_the_end() {
    let (restore, mut world) = world(&[3, 5, 7], &[3, 7]);
    let (done, all) = told(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    assert!(all.is_sorted_by(|a, b| a.0 <= b.0), "{all:?}");
    for node in 0..3 {
        assert!(all.is_sorted_by(|a, b| a.1[node] <= b.1[node]), "{all:?}");
    }
    let percents: Vec<u8> = all.iter().map(|(percent, _)| *percent).collect();
    // Made, available, stopped, with its volumes, running.
    for percent in [0, 25, 50, 60, 80, 100] {
        assert!(percents.contains(&percent), "{percent}: {all:?}");
    }
    assert_eq!(all.last(), Some(&(100, vec![100, 100, 100])));
    let before = all.iter().find(|(percent, _)| *percent == 25);
    assert_eq!(before, Some(&(25, vec![25, 0, 25])), "node 5 has no volumes to wait for");
}

#[test]
fn it_falls_on_the_way_back_and_ends_at_nothing() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.strikes =
        vec![Strike { on: "AttachVolume", nth: 4, how: How::Refused("AttachmentLimitExceeded") }];
    let (done, all) = told(restore, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    let most = all.iter().map(|(percent, _)| *percent).max();
    let at = all.iter().position(|(percent, _)| Some(*percent) == most).expect("the most");
    assert_eq!(most, Some(75), "three volumes of four are on: {all:?}");
    assert!(all[at..].is_sorted_by(|a, b| a.0 >= b.0), "{all:?}");
    assert!(all.contains(&(50, vec![50, 50])), "both run on what they had: {all:?}");
    assert_eq!(all.last(), Some(&(0, vec![0, 0])));
}
