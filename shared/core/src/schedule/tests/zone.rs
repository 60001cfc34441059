//! Which names are zones.

use crate::schedule::Zone;

#[test]
fn names_and_links_of_the_database_are_zones() {
    for name in ["UTC", "Etc/UTC", "Europe/Berlin", "Asia/Calcutta", "Asia/Kolkata", "EST5EDT"] {
        let zone = Zone::parse(name).expect(name);
        assert_eq!(zone.as_str(), name);
        let text = serde_json::to_string(&zone).expect("text");
        assert_eq!(serde_json::from_str::<Zone>(&text).ok(), Some(zone));
    }
}

#[test]
fn every_name_of_the_database_is_a_zone_as_it_is_spelt() {
    let database = jiff::tz::TimeZoneDatabase::bundled();
    for name in database.available().filter(|name| name.as_str() != "Factory") {
        assert_eq!(Zone::parse(name.as_str()).map(|zone| zone.to_string()), Ok(name.to_string()));
    }
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest() {
    for (sent, meant) in [
        ("europe/berlin", "Europe/Berlin"),
        ("utc", "UTC"),
        ("Europe/Berln", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("America/New York", "America/New_York"),
        (" America/New_York", "America/New_York"),
        ("Asia/Calcuta", "Asia/Calcutta"),
        ("Europe/Kyjiv", "Europe/Kyiv"),
        ("rome", "Europe/Rome"),
        ("etc/gmt+1", "Etc/GMT+1"),
    ] {
        let fault = Zone::parse(sent).expect_err(sent);
        assert!(fault.ends_with(&format!("did you mean `{meant}`?")), "{sent}: {fault}");
    }
}

#[test]
fn a_name_near_to_none_is_refused_without_a_guess() {
    let long = "a".repeat(10_000);
    let offsets = ["+02:00", "GMT+1", "GMT-5", "UTC+1", "Etc/GMT+01", "Z"];
    let abbreviations = ["PST", "CST", "BST", "EDT", "AEST"];
    let others = ["", " ", "Mars/Olympus_Mons", "Etc/Unknown", "Factory", long.as_str()];
    for sent in offsets.into_iter().chain(abbreviations).chain(others) {
        let fault = Zone::parse(sent).expect_err(sent);
        assert!(fault.ends_with("such as `UTC` or `Europe/Berlin`."), "{sent}: {fault}");
    }
}

/// What `Stretch` relies on, of each version of the database anew.
#[test]
fn no_clock_is_changed_while_it_shows_again_what_it_showed_before_the_last_change() {
    let instant = |text: &str| text.parse::<jiff::Timestamp>().expect(text);
    let (from, until) = (instant("1800-01-01T00:00Z"), instant("2100-01-01T00:00Z"));
    let database = jiff::tz::TimeZoneDatabase::bundled();
    for name in database.available() {
        let zone = database.get(name.as_str()).expect("a zone");
        let mut shown = i64::MIN;
        for change in zone.following(from).take_while(|change| change.timestamp() < until) {
            let last = change.timestamp() - jiff::SignedDuration::from_secs(1);
            let end = last.as_second() + i64::from(zone.to_offset(last).seconds());
            assert!(end > shown, "{} at {}", name.as_str(), change.timestamp());
            shown = end;
        }
    }
}
