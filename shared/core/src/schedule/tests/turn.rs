//! What becomes of a slot.

use super::super::*;
use crate::create::tests::deployment;
use crate::id::RestoreId;
use crate::operation::Failure;

/// 2026-12-01T00:00:00Z, an hour and a minute.
const MIDNIGHT: Time = Time::from_unix(1_796_083_200);

fn at(hour: i64, minute: i64) -> Time {
    MIDNIGHT + Seconds::hours(hour) + Seconds::minutes(minute)
}

fn setting(cron: &str) -> Setting {
    Setting {
        plan: Plan {
            cron: Cron::parse(cron).expect("a cron expression"),
            zone: Zone::parse("UTC").expect("a zone"),
        },
        expires_in_days: Some(7),
        node_id: None,
        enabled: true,
    }
}

/// Hourly, set half an hour before midnight.
fn hourly() -> Schedule {
    Schedule::set(None, &deployment(), setting("0 * * * *"), at(-1, 30))
}

fn turn_on(schedule: &Schedule, deployment: &Deployment, now: Time) -> Turn {
    let sight = Sight { deployment: Some(deployment), way: Way::None };
    schedule.turn(&sight, &Limits::default(), Nonce::from("t"), now)
}

fn started(turn: Turn) -> (Schedule, Backup) {
    let Turn::Start { schedule, backup, .. } = turn else { panic!("{turn:?}") };
    (*schedule, *backup)
}

fn recorded(turn: Turn) -> Schedule {
    let Turn::Record(schedule) = turn else { panic!("{turn:?}") };
    *schedule
}

/// The slots that are announced as skipped, with their codes.
fn skipped(schedule: &Schedule) -> Vec<(Time, &str)> {
    schedule.outbox.iter().map(|one| (one.slot, one.why.code.as_str())).collect()
}

fn busy() -> Deployment {
    Deployment { active_backup: Some(BackupId(3)), ..deployment() }
}

#[test]
fn a_slot_makes_one_backup_and_is_never_decided_again() {
    let schedule = hourly();
    assert_eq!(schedule.due(at(-1, 30)), Some(at(0, 0)));
    assert_eq!(turn_on(&schedule, &deployment(), at(-1, 59)), Turn::Rest);
    assert!(!schedule.wants_turn(at(-1, 59)) && schedule.wants_turn(at(0, 0)));
    let (after, backup) = started(turn_on(&schedule, &deployment(), at(0, 0)));
    assert_eq!(backup.name, "scheduled 2026-12-01T00:00:00Z");
    assert_eq!((backup.schedule_slot, backup.backup_type), (Some(at(0, 0)), BackupType::Scheduled));
    assert_eq!(backup.expires_at, Some(at(0, 0) + Seconds::days(7)));
    let last = after.last.clone().expect("an outcome");
    assert_eq!((last.result, last.backup_id), (Outcome::Started, Some(backup.id)));
    assert_eq!(after.last_run_at, Some(at(0, 0)));
    for minute in [0, 1, 59] {
        assert_eq!(turn_on(&after, &deployment(), at(0, minute)), Turn::Rest);
    }
    assert_eq!(after.due(at(0, 1)), Some(at(1, 0)));
    // Deleted and set anew a minute later: the slot is past.
    let gone = after.unset(at(0, 1));
    assert_eq!((gone.due(at(0, 1)), gone.next_run(at(0, 1))), (None, None));
    let again = Schedule::set(Some(gone), &deployment(), setting("*/30 * * * *"), at(0, 0));
    assert_eq!(turn_on(&again, &deployment(), at(0, 2)), Turn::Rest);
    assert_eq!(again.due(at(0, 2)), Some(at(0, 30)));
}

#[test]
fn a_slot_that_meets_an_operation_waits_until_the_next_one() {
    let mut schedule = hourly();
    let mut now = at(0, 0);
    let mut asked = 0;
    while now < at(1, 0) {
        schedule = recorded(turn_on(&schedule, &busy(), now));
        let waiting = schedule.waiting.clone().expect("it waits");
        assert_eq!((waiting.slot, waiting.why.code.as_str()), (at(0, 0), "backup_in_progress"));
        assert!(skipped(&schedule).is_empty());
        let due = schedule.due(now).expect("due");
        assert!(due > now && due - now <= LONGEST_PAUSE, "{now}: {due}");
        assert_eq!(turn_on(&schedule, &busy(), due + Seconds(-1)), Turn::Rest);
        now = due;
        asked += 1;
    }
    assert_eq!((now, asked), (at(1, 0), 18), "it gives way to the next slot to the second");
    let (after, backup) = started(turn_on(&schedule, &deployment(), now));
    assert_eq!(backup.schedule_slot, Some(at(1, 0)));
    assert_eq!(skipped(&after), [(at(0, 0), "backup_in_progress")]);
    // As soon as it is free, the one that waits runs.
    let waits = recorded(turn_on(&hourly(), &busy(), at(0, 0)));
    let (after, backup) = started(turn_on(&waits, &deployment(), at(0, 1)));
    assert_eq!((backup.schedule_slot, after.waiting), (Some(at(0, 0)), None));
}

#[test]
fn a_restore_and_a_deployment_that_is_not_ready_are_waited_for_and_nothing_else_is() {
    let mut restoring = deployment();
    restoring.active_restore = Some(RestoreId(1));
    let mut upgrading = deployment();
    upgrading.registry.status = "upgrading".into();
    for (other, code) in [(restoring, "restore_in_progress"), (upgrading, "deployment_not_ready")] {
        let waits = recorded(turn_on(&hourly(), &other, at(0, 0)));
        assert_eq!(waits.waiting.expect(code).why.code, code);
    }
    // A deployment that is switched off is not waited for until the next month.
    let mut off = deployment();
    off.registry.status = "stopped".into();
    let set = setting("0 0 1 * *");
    let monthly = Schedule::set(None, &deployment(), set, at(-1, 30));
    let waits = recorded(turn_on(&monthly, &off, at(0, 59)));
    assert!(waits.waiting.is_some());
    let told = recorded(turn_on(&waits, &off, at(1, 4)));
    assert_eq!(skipped(&told), [(at(0, 0), "deployment_not_ready")]);
    let mut basic = deployment();
    basic.registry.plan = "basic".into();
    let mut local = deployment();
    local.registry.storage_type = "local_ssd".into();
    let mut full = deployment();
    full.backup_count = 5;
    for (other, code) in [
        (basic, "plan_not_supported"),
        (local, "storage_not_supported"),
        (full, "backup_limit_reached"),
    ] {
        let after = recorded(turn_on(&hourly(), &other, at(0, 0)));
        assert_eq!(skipped(&after), [(at(0, 0), code)]);
        let last = after.last.clone().expect("an outcome");
        assert_eq!((last.result, last.slot), (Outcome::Skipped, at(0, 0)));
        assert_eq!(last.why.expect("why").code, code);
        assert_eq!(after.last_run_at, None, "it did not run");
        assert_eq!(after.waiting, None);
        // Announced: due until the bus has it, and then at the next slot.
        assert!(after.due(at(0, 0)) < Some(at(1, 0)));
        let mut told = after.clone();
        told.forget(&[after.outbox[0].announcement_id.clone()]);
        assert_eq!(told.due(at(0, 0)), Some(at(1, 0)));
    }
}

#[test]
fn after_an_outage_only_the_latest_slot_runs_and_the_others_are_told_of() {
    let now = at(100, 20);
    let (after, backup) = started(turn_on(&hourly(), &deployment(), now));
    assert_eq!(backup.schedule_slot, Some(at(100, 0)));
    let told: Vec<_> = (100 - 24..100).map(|hour| (at(hour, 0), "unavailable")).collect();
    assert_eq!(skipped(&after), told, "the last day's, one by one");
    let reasons: Vec<&str> = after.outbox.iter().map(|one| one.why.reason.as_str()).collect();
    assert!(reasons[0].contains("from 2026-12-01T00:00:00Z on"), "{reasons:?}");
    assert!(reasons[1..].iter().all(|reason| !reason.contains("all slots")), "{reasons:?}");
    let (after_two, _) = started(turn_on(&hourly(), &deployment(), at(2, 1)));
    assert_eq!(skipped(&after_two).len(), 2);
    assert!(!after_two.outbox[0].why.reason.contains("all slots"));
    assert_eq!(turn_on(&after, &deployment(), now), Turn::Rest);
    assert_eq!(after.due(now), Some(now), "what is to be announced is due at the next tick");
}

#[test]
fn a_change_drops_what_waits_and_says_so_and_the_same_again_changes_nothing() {
    let waits = recorded(turn_on(&hourly(), &busy(), at(0, 0)));
    let set = |to: Setting| Schedule::set(Some(waits.clone()), &deployment(), to, at(0, 5));
    assert_eq!(set(setting("0 * * * *")), waits);
    let mut off = setting("0 * * * *");
    off.enabled = false;
    for changed in [set(setting("30 * * * *")), set(off.clone()), waits.clone().unset(at(0, 5))] {
        assert_eq!(changed.waiting, None);
        assert_eq!(skipped(&changed), [(at(0, 0), "superseded")]);
        assert_eq!(turn_on(&changed, &deployment(), at(0, 6)), Turn::Rest);
    }
    // One that is due, and that no tick has come to yet: the same.
    let daily =
        Schedule::set(Some(hourly()), &deployment(), setting("0 4 * * *"), at(0, 0) + Seconds(20));
    assert_eq!(skipped(&daily), [(at(0, 0), "superseded")]);
    assert_eq!(skipped(&hourly().unset(at(0, 1))), [(at(0, 0), "superseded")]);
    assert_eq!(skipped(&hourly().unset(at(-1, 59))), [], "none was due");
    // Switched on again three hours later: no catch-up.
    let on = Schedule::set(Some(set(off)), &deployment(), setting("0 * * * *"), at(3, 5));
    assert_eq!(turn_on(&on, &deployment(), at(3, 5)), Turn::Rest);
    assert_eq!(on.next_run(at(3, 5)), Some(at(4, 0)));
}

#[test]
fn a_deleted_deployments_schedule_goes() {
    let mut gone = deployment();
    gone.registry.deleted = true;
    let after = recorded(turn_on(&hourly(), &gone, at(0, 0)));
    assert_eq!((after.setting.clone(), after.due(at(0, 0))), (None, None));
    assert_eq!(after.outbox, [], "nobody is left to miss it");
    let sight = Sight { deployment: None, way: Way::None };
    let nowhere = hourly().turn(&sight, &Limits::default(), Nonce::from("t"), at(0, 0));
    assert_eq!(recorded(nowhere), after, "nothing is left of the deployment");
    let later = Schedule::set(Some(hourly()), &gone, setting("0 4 * * *"), at(0, 5));
    assert_eq!(later.outbox, []);
}

#[test]
fn what_was_set_before_a_deployment_was_deleted_is_not_there_when_it_is_back() {
    let waits = recorded(turn_on(&hourly(), &busy(), at(0, 0)));
    let version = waits.registry_version;
    let mut back = deployment();
    back.registry.registry_version = version + 2;
    assert_eq!(waits.clone().on(&back), waits, "it was not deleted");
    back.deleted_version = version + 1;
    let after = recorded(turn_on(&waits, &back, at(0, 1)));
    assert_eq!((&after.setting, &after.waiting, after.due(at(0, 1))), (&None, &None, None));
    assert_eq!(after.outbox, []);
    // The same again is another one, from now on; a late word of the deletion leaves it alone.
    let again = Schedule::set(Some(waits), &back, setting("0 * * * *"), at(0, 5));
    assert_eq!((again.set_at, &again.waiting, &again.outbox[..]), (at(0, 5), &None, &[][..]));
    assert_eq!(again.clone().on(&back), again);
    back.registry.registry_version += 2;
    let told = Schedule::set(Some(again.clone()), &back, setting("0 * * * *"), at(0, 6));
    assert_eq!(told.set_at, again.set_at);
    back.deleted_version += 2;
    assert_eq!(told.clone().on(&back), told);
    assert_eq!(again.on(&back).setting, None);
    // Somebody who has read the deployment of before all that does not take it back there.
    for wanted in ["0 * * * *", "30 * * * *"] {
        let late = Schedule::set(Some(told.clone()), &deployment(), setting(wanted), at(0, 7));
        assert_eq!(late.clone().on(&back), late, "{wanted}");
    }
}

#[test]
fn the_backups_end_is_the_slots_outcome_unless_a_later_slot_has_one() {
    let (after, mut backup) = started(turn_on(&hourly(), &deployment(), at(0, 0)));
    assert_eq!(after.ended(&backup), None, "it runs");
    backup.status = Status::Completed;
    assert_eq!(after.ended(&backup).map(|last| last.result), Some(Outcome::Completed));
    backup.status = Status::Failed;
    let code = FailureCode::SnapshotFailed;
    backup.failure = Some(Failure { code, reason: "It failed.".into() });
    let failed = after.ended(&backup).expect("an outcome");
    assert_eq!((failed.result, failed.slot), (Outcome::Failed, at(0, 0)));
    assert_eq!(failed.why.expect("why").code, "snapshot_failed");
    let mut full = deployment();
    full.backup_count = 9;
    let later = recorded(turn_on(&after, &full, at(1, 0)));
    assert_eq!(later.ended(&backup), None);
}

#[test]
fn only_a_completed_unpinned_backup_of_the_schedule_gives_way_the_oldest_first() {
    let (_, made) = started(turn_on(&hourly(), &deployment(), at(0, 0)));
    let one = |id, change: fn(&mut Backup)| {
        let mut one = made.clone();
        (one.id, one.status) = (BackupId(id), Status::Completed);
        change(&mut one);
        one
    };
    let all = [
        one(9, |_| {}),
        one(1, |one| one.schedule_slot = None),
        one(2, |one| one.status = Status::Failed),
        one(3, |one| one.pinned_by = Some(RestoreId(1))),
        one(4, |one| one.status = Status::InProgress),
        one(5, |one| one.status = Status::Deleting),
        one(7, |_| {}),
        one(6, |one| (one.schedule_slot, one.upgrade_id) = (None, Some("u".into()))),
    ];
    assert_eq!(gives_way(&all).map(|one| one.id), Some(BackupId(7)));
    assert_eq!(gives_way(&all[1..6]), None);
}

#[test]
fn a_bus_that_takes_nothing_does_not_make_the_row_grow_for_ever() {
    let mut full = deployment();
    full.backup_count = 5;
    let mut schedule = hourly();
    for hour in 0..200 {
        schedule = recorded(turn_on(&schedule, &full, at(hour, 0)));
    }
    assert_eq!(schedule.outbox.len(), OUTBOX);
    let newest = schedule.outbox.last().expect("one").clone();
    assert_eq!(newest.slot, at(199, 0));
    // Of those that had no room it tells, from the first on, and once the bus is back no other.
    let (first, last) = (at(0, 0), at(149, 0));
    assert!(newest.why.reason.contains(&format!("from {first} to {last}")), "{newest:?}");
    schedule.forget(&[schedule.outbox[0].announcement_id.clone()]);
    assert_eq!(schedule.untold_from, Some(at(0, 0)), "the newest is not told yet");
    schedule.forget(&[newest.announcement_id]);
    let mut next = schedule;
    for hour in 200..203 {
        next = recorded(turn_on(&next, &full, at(hour, 0)));
    }
    let (newest, only) = (next.outbox.last().expect("one"), at(151, 0));
    assert!(newest.why.reason.contains(&format!("from {only} to {only}")), "{newest:?}");
}

#[test]
fn a_slot_that_finds_no_room_while_deletions_are_paused_waits_until_the_next_one() {
    let mut full = deployment();
    full.backup_count = 5;
    let turn_of = |schedule: &Schedule, way, now| {
        let sight = Sight { deployment: Some(&full), way };
        schedule.turn(&sight, &Limits::default(), Nonce::from("t"), now)
    };
    let Turn::Record(waits) = turn_of(&hourly(), Way::Held, at(0, 0)) else { panic!("no wait") };
    let waiting = waits.waiting.clone().expect("it waits");
    assert_eq!((waiting.slot, waiting.why.code.as_str()), (at(0, 0), "backup_limit_reached"));
    assert!(waits.outbox.is_empty());
    let (ran, backup) = started(turn_of(&waits, Way::Free, at(0, 30)));
    assert_eq!((backup.schedule_slot, ran.waiting), (Some(at(0, 0)), None));
    // Paused for longer: the next slot comes, and the first is told of.
    let Turn::Record(next) = turn_of(&waits, Way::Held, at(1, 0)) else { panic!("no wait") };
    assert_eq!(next.waiting.map(|one| one.slot), Some(at(1, 0)));
    assert_eq!(next.outbox.len(), 1);
    // With nothing that could give way it is skipped at once.
    let Turn::Record(skips) = turn_of(&hourly(), Way::None, at(0, 0)) else { panic!("no skip") };
    assert_eq!((skips.waiting, skips.outbox.len()), (None, 1));
}
