//! The README's walk of a schedule through changes of the clocks and an outage: its steps,
//! on the real binary with its own ticks.

use backups_aws::clock::Clock;
use jiff::civil::{self, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde_json::{Value, json};
use tests::http::Call;
use tests::{Cloud, Process, Result, fail, root};

/// The year of the README's walk, for as long as it is one to come.
const YEAR: i16 = 2030;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// When the EU's clocks change in a month: 01:00 UTC on its last Sunday.
/// Source: directive 2000/84/EC, articles 2 and 3.
fn change(year: i16, month: i8) -> Result<Timestamp> {
    let last = civil::date(year, month, 1).last_of_month();
    let sunday = if last.weekday() == Weekday::Sunday {
        last
    } else {
        last.nth_weekday(-1, Weekday::Sunday)?
    };
    Ok(sunday.at(1, 0, 0, 0).to_zoned(TimeZone::UTC)?.timestamp())
}

/// The schedule, as the README's `show` reads it: the next slot; the latest one with what
/// became of it.
async fn show(cloud: &Cloud) -> Result<(String, String, String)> {
    let path = format!("{}/schedule", cloud.backups());
    let reply = cloud.send(Call::new("GET", path).key(&cloud.demo.keys.manage)).await?;
    let (set, text) = (reply.json(), |value: &Value| value.as_str().unwrap_or("-").to_owned());
    let last = &set["last_outcome"];
    Ok((text(&set["next_run_at"]), text(&last["slot"]), text(&last["result"])))
}

/// Sets half past two in Berlin, or deletes it.
async fn order(cloud: &Cloud, method: &str) -> Result<()> {
    let path = format!("{}/schedule", cloud.backups());
    let call = Call::new(method, path).key(&cloud.demo.keys.manage);
    let body = json!({"cron": "30 2 * * *", "timezone": "Europe/Berlin"});
    let call = if method == "PUT" { call.json(body.to_string()) } else { call };
    let reply = cloud.send(call).await?;
    if reply.status == 204 { Ok(()) } else { fail(format!("{method}: {reply:?}")) }
}

/// The README's `push`.
async fn push(cloud: &Cloud, seconds: u64) -> Result<()> {
    cloud.advance(seconds).await?;
    cloud.tick().await?;
    cloud.settle(120).await
}

/// How many backups there are, all of them completed.
async fn completed(cloud: &Cloud) -> Result<usize> {
    let all = cloud.list_of(cloud.demo.deployment_id).await?;
    let done = all.iter().filter(|one| one["status"] == "completed").count();
    if done == all.len() { Ok(done) } else { fail(format!("{all:?}")) }
}

#[tokio::test]
async fn a_schedule_goes_through_both_changes_of_the_clocks_and_an_outage_on_local() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let real = Clock::system().timestamp();
    let year = YEAR.max(real.to_zoned(TimeZone::UTC).year() + 1);
    let (spring, autumn) = (change(year, 3)?, change(year, 10)?);
    let slot = |change: Timestamp, days: i64, minutes: i64| -> Result<String> {
        Ok((change + SignedDuration::from_hours(24 * days) + minutes.minutes()).to_string())
    };
    let start = (spring - 3.hours()).to_string();
    let flags = ["--speed", "100", "--start", &start];
    let process = Process::start(&data, &flags).await?;
    let cloud = &process.cloud;

    // The hour from 01:00 UTC on is not there: its slot is the first instant after it.
    order(cloud, "PUT").await?;
    let skipped_hour = slot(spring, 0, 0)?;
    assert_eq!(show(cloud).await?, (skipped_hour.clone(), "-".into(), "-".into()));
    push(cloud, 3 * HOUR).await?;
    let next = slot(spring, 0, 23 * 60 + 30)?;
    assert_eq!(show(cloud).await?, (next.clone(), skipped_hour.clone(), "completed".into()));
    assert_eq!(completed(cloud).await?, 1);

    // In autumn it is there twice, and its slot is the first of them.
    order(cloud, "DELETE").await?;
    let days = u64::try_from(autumn.duration_since(spring).as_hours() / 24)?;
    push(cloud, days * DAY - 3 * HOUR).await?;
    order(cloud, "PUT").await?;
    let first = slot(autumn, 0, -30)?;
    assert_eq!(show(cloud).await?.0, first);
    push(cloud, 3 * HOUR).await?;
    let next_in_autumn = slot(autumn, 1, 30)?;
    let once = (next_in_autumn.clone(), first.clone(), "completed".into());
    assert_eq!(show(cloud).await?, once);
    push(cloud, HOUR).await?;
    assert_eq!(show(cloud).await?, once, "the second time makes none");
    assert_eq!(completed(cloud).await?, 2);
    assert_eq!(cloud.announced("Scheduled Backup Skipped").await?, Vec::<Value>::new());

    // An outage of three nights, the process dead for a part of it: the latest slot runs.
    process.kill().await?;
    let process = Process::start(&data, &flags).await?;
    let cloud = &process.cloud;
    push(cloud, 3 * DAY).await?;
    let (third, fourth) = (slot(autumn, 3, 30)?, slot(autumn, 4, 30)?);
    assert_eq!(show(cloud).await?, (fourth.clone(), third.clone(), "completed".into()));
    assert_eq!(completed(cloud).await?, 3);
    // At least once each, on a bus that may double.
    let told = cloud.announced("Scheduled Backup Skipped").await?;
    let mut told: Vec<_> = told
        .iter()
        .filter_map(|one| Some((one["schedule_slot"].as_str()?, one["failure"]["code"].as_str()?)))
        .collect();
    told.sort_unstable();
    told.dedup();
    let second = slot(autumn, 2, 30)?;
    let missed = [(next_in_autumn.as_str(), "unavailable"), (second.as_str(), "unavailable")];
    assert_eq!(told, missed);
    process.kill().await?;

    // The README tells of these very times.
    if year == YEAR {
        let readme = std::fs::read_to_string(root().join("README.md"))?;
        let days = format!("{days} * 86400");
        for said in
            [&start, &skipped_hour, &next, &first, &next_in_autumn, &second, &third, &fourth, &days]
        {
            assert!(readme.contains(said.as_str()), "the README does not say {said}");
        }
    }
    Ok(())
}
