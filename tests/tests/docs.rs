//! That the documentation's words about the code are true, as far as a program can tell.

use std::collections::BTreeSet;
use std::path::Path;

use tests::{Result, fail, root};

/// The names of all functions in the sources below a folder.
fn functions(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            functions(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path)?;
            let after = text.split("fn ").skip(1);
            found.extend(after.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
    Ok(())
}

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// What is wrong with the tests that the rows of a table name in their last cell, and how
/// many rows there are. `may_lack`: a row without any is said to have none for a reason.
fn named_tests(text: &str, may_lack: impl Fn(&str) -> bool) -> Result<(usize, Vec<String>)> {
    let mut there = BTreeSet::new();
    for folder in ["shared", "tests/tests"] {
        functions(&root().join(folder), &mut there)?;
    }
    let mut rows = 0;
    let mut faults = Vec::new();
    for cells in text.lines().filter_map(cells) {
        let Some((last, before)) = cells.split_last() else { continue };
        // Headings, and lines in a table that only part it.
        if *last == "Test" || before.iter().skip(1).all(|cell| cell.is_empty()) {
            continue;
        }
        rows += 1;
        let names = last.split('`').skip(1).step_by(2).filter(|name| name.contains('_'));
        let names: Vec<&str> = names.collect();
        if names.is_empty() && !may_lack(last) {
            faults.push(format!("no test: {}", cells[0]));
        }
        let gone = names.iter().filter(|name| !there.contains(**name));
        faults.extend(gone.map(|name| format!("no such test: {name}")));
    }
    Ok((rows, faults))
}

#[test]
fn each_row_of_what_can_fail_in_a_restore_names_tests_that_are_there() -> Result<()> {
    let text = std::fs::read_to_string(root().join("docs/restore.md"))?;
    let (_, text) = text.split_once("\n## What can fail\n").unwrap_or_default();
    let (text, _) = text.split_once("\n## Deadlines\n").unwrap_or_default();
    let elsewhere = |last: &str| last.contains("imulation: `") || last.contains("the same");
    let (rows, mut faults) = named_tests(text, elsewhere)?;
    if rows < 90 {
        faults.push(format!("only {rows} rows were read"));
    }
    if faults.is_empty() { Ok(()) } else { fail(faults.join("\n")) }
}

#[test]
fn each_rule_of_reconciliation_names_tests_that_are_there() -> Result<()> {
    let text = std::fs::read_to_string(root().join("docs/reconciliation.md"))?;
    let mut faults = Vec::new();
    let mut rows = 0;
    for heading in ["From EC2 to the table", "From the table to EC2"] {
        let (_, part) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_default();
        let part = part.split("\n## ").next().unwrap_or_default();
        let (count, found) = named_tests(part, |_| false)?;
        rows += count;
        faults.extend(found);
    }
    if rows < 25 {
        faults.push(format!("only {rows} rows were read"));
    }
    if faults.is_empty() { Ok(()) } else { fail(faults.join("\n")) }
}

#[test]
fn each_thing_that_the_brake_holds_names_tests_that_are_there() -> Result<()> {
    let text = std::fs::read_to_string(root().join("docs/brake.md"))?;
    let (_, text) = text.split_once("\n## What stands still\n").unwrap_or_default();
    let (text, _) = text.split_once("\n## What counts\n").unwrap_or_default();
    let (rows, mut faults) = named_tests(text, |_| false)?;
    if rows < 10 {
        faults.push(format!("only {rows} rows were read"));
    }
    if faults.is_empty() { Ok(()) } else { fail(faults.join("\n")) }
}

/// Whoever is woken finds a page, and each metric rings a bell or is said not to.
#[test]
fn each_alarm_has_a_page_and_each_metric_an_alarm_or_a_word() -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(root().join(path));
    let (template, index) = (read("template.yaml")?, read("docs/runbook/README.md")?);
    let mut faults = Vec::new();
    let mut must = |holds: bool, what: String| faults.extend((!holds).then_some(what));
    let (mut alarms, mut pages) = (Vec::new(), BTreeSet::new());
    for (at, _) in template.match_indices("    Type: AWS::CloudWatch::Alarm\n") {
        let name = template[..at].lines().last().unwrap_or_default().trim().trim_end_matches(':');
        let own = template[at..].split("\n\n").next().unwrap_or_default();
        let page = own.split_once("docs/runbook/").and_then(|(_, rest)| rest.split_once(".md"));
        let page = page.map_or_else(String::new, |(page, _)| format!("{page}.md"));
        let text = read(&format!("docs/runbook/{page}")).unwrap_or_default();
        must(text.contains(&format!("**Alarm** `{name}`")), format!("{name}: no page of its own"));
        let row = index.lines().find(|line| line.starts_with(&format!("| `{name}`")));
        must(row.is_some_and(|row| row.contains(&format!("({page})"))), format!("{name}: no row"));
        pages.insert(page);
        alarms.push(own);
    }
    must(alarms.len() >= 14, format!("only {} alarms were read", alarms.len()));
    for entry in std::fs::read_dir(root().join("docs/runbook"))? {
        let page = entry?.file_name().to_string_lossy().into_owned();
        must(page == "README.md" || pages.contains(&page), format!("{page}: no such alarm"));
    }
    let silent = index.split_once("No alarm of its own have ").unwrap_or_default().1;
    let silent = silent.lines().next().unwrap_or_default();
    let telemetry = read("shared/aws/src/telemetry.rs")?;
    let metrics = telemetry.lines().filter_map(|line| line.trim().strip_prefix("Self::"));
    let metrics: Vec<&str> = metrics.filter_map(|line| line.split(' ').next()).collect();
    must(metrics.len() >= 12, format!("only {} metrics were read", metrics.len()));
    for metric in metrics {
        let rings = alarms.iter().any(|own| own.contains(&format!("MetricName: {metric}\n")));
        let said = silent.contains(&format!("`{metric}`"));
        must(rings != said, format!("{metric}: an alarm, or a word why it has none"));
    }
    if faults.is_empty() { Ok(()) } else { fail(faults.join("\n")) }
}
