//! `bondmcp-server audit`.

use std::{collections::BTreeSet, io, time::Duration};

use anyhow::anyhow;
use chrono::{NaiveDate, NaiveTime, TimeDelta};

use super::{App, Error, printer::Printer};
use crate::{
    account::{AuditEntry, KEYS_COMMAND, parsed_time},
    clock::Timestamp,
    error::Kind,
    hosted, mcp,
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server audit --since 7d
  bondmcp-server audit --tool medication_check,health_analyze --since 2026-01-31
  bondmcp-server audit --outcome failed --json
  bondmcp-server audit --tool keys
  bondmcp-server audit --follow";

/// Shows the calls of tools, and the uses and changes of API keys in a terminal, with their outcome and cost. Arguments
/// and results are not recorded.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Number of entries to show, newest last
    #[arg(long, value_name = "N", default_value_t = 50)]
    lines: usize,
    /// Only these tools; `keys` stands for the keys commands of this program, `authorize` for sign-ins and consents on a
    /// hosted server, `grant` for the end of grants, `unknown` for tools that there are not
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    tool: Vec<String>,
    /// Only these outcomes: ok, cancelled, refused, a kind of error such as rate_limited; or failed for all but ok
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    outcome: Vec<String>,
    /// Only entries since then: a duration such as 30m, 2h or 7d, or a date or time such as 2026-01-31 (RFC 3339, UTC)
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Since>,
    /// Show new entries as they are written, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

/// The outcomes besides the kinds of errors.
const OTHER_OUTCOMES: [&str; 7] =
    ["ok", "failed", "cancelled", "stopped", "refused", "input_required", "replay"];

/// How often the log is looked at for new entries.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        let unreadable = |error: io::Error| Error::Failed(anyhow!("The audit log cannot be read: {error}."));
        let mut reader = app.accounts().audit_reader();
        let since = self.since.map(|since| since.before(app.clock.now()));
        let mut read = || reader.read().map_err(unreadable);
        let mut entries = read()?;
        self.check_tools(&entries)?;
        self.check_outcomes(&entries)?;
        entries.retain(|entry| self.shows(entry, since));
        let count = entries.len();
        let totals = Totals::of(&entries);
        entries.drain(..count.saturating_sub(self.lines));
        if self.follow {
            let mut out = Follower { printer: &app.printer, json: self.json };
            let outcome = async {
                out.begin()?;
                loop {
                    entries.iter().try_for_each(|entry| out.print(entry))?;
                    tokio::time::sleep(FOLLOW_INTERVAL).await;
                    entries = read()?;
                    entries.retain(|entry| self.shows(entry, since));
                }
            };
            return outcome.await;
        }
        if self.json {
            // A closed output is not an error.
            let _ = entries.iter().try_for_each(|entry| app.printer.print_json_line(entry));
        } else if entries.is_empty() {
            app.printer.print_out(if self.filters() {
                "No such entries."
            } else {
                "No tool has been called yet."
            });
        } else {
            let head = HEAD.map(ToOwned::to_owned);
            app.printer.print_table(
                std::iter::once(head).chain(entries.iter().map(|entry| row(&app.printer, entry))),
            );
            app.printer.print_out(totals.described(entries.len()));
        }
        Ok(())
    }

    /// Refuses a tool that there is not: neither in this version nor in the log, which an older one may have written.
    fn check_tools(&self, entries: &[AuditEntry]) -> Result<(), Error> {
        let known = mcp::audited_tools().chain(hosted::AUDITED_AS).chain([KEYS_COMMAND]);
        let mut known: BTreeSet<&str> = known.collect();
        known.extend(entries.iter().map(|entry| entry.tool.as_str()));
        refuse_unknown("tool", &self.tool, &known)
    }

    /// The same for an outcome.
    fn check_outcomes(&self, entries: &[AuditEntry]) -> Result<(), Error> {
        let mut known: BTreeSet<&str> = Kind::ALL.into_iter().map(Kind::name).chain(OTHER_OUTCOMES).collect();
        known.extend(entries.iter().map(|entry| entry.outcome.as_str()));
        refuse_unknown("outcome", &self.outcome, &known)
    }

    fn filters(&self) -> bool {
        !self.tool.is_empty() || !self.outcome.is_empty() || self.since.is_some()
    }

    fn shows(&self, entry: &AuditEntry, since: Option<Timestamp>) -> bool {
        let is_outcome =
            |wanted: &String| *wanted == entry.outcome || wanted == "failed" && entry.outcome != "ok";
        (self.tool.is_empty() || self.tool.contains(&entry.tool))
            && (self.outcome.is_empty() || self.outcome.iter().any(is_outcome))
            && since.is_none_or(|since| entry.time >= since)
    }
}

/// Refuses a name that is not among those that are known; `what` is what it names.
fn refuse_unknown(what: &str, given: &[String], known: &BTreeSet<&str>) -> Result<(), Error> {
    let Some(unknown) = given.iter().find(|name| !known.contains(name.as_str())) else { return Ok(()) };
    let known: Vec<_> = known.iter().copied().collect();
    Err(Error::Usage(format!("there is no {what} named {unknown}; there are {}", known.join(", "))))
}

/// The beginning of the time that is of interest.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    Ago(TimeDelta),
    Time(Timestamp),
}

impl Since {
    fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(age) => now.checked_sub_signed(age).unwrap_or(Timestamp::MIN_UTC),
            Self::Time(time) => time,
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN).and_utc();
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(midnight);
    age(text)
        .map(Since::Ago)
        .or_else(|| date().or_else(|| parsed_time(text)).map(Since::Time))
        .ok_or_else(|| "give a duration such as 30m, 2h or 7d, or a date such as 2026-01-31".to_owned())
}

fn age(text: &str) -> Option<TimeDelta> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = number.parse().ok()?;
    match unit {
        "s" => TimeDelta::try_seconds(number.into()),
        "m" => TimeDelta::try_minutes(number.into()),
        "h" => TimeDelta::try_hours(number.into()),
        "d" => TimeDelta::try_days(number.into()),
        "w" => TimeDelta::try_weeks(number.into()),
        _ => None,
    }
}

/// The sums of entries.
struct Totals {
    entries: usize,
    cost: f64,
    possibly_billed: usize,
}

impl Totals {
    fn of(entries: &[AuditEntry]) -> Self {
        Self {
            entries: entries.len(),
            // Not `sum`, which is -0 for no costs.
            cost: entries.iter().filter_map(|entry| entry.cost).fold(0.0, |sum, cost| sum + cost),
            possibly_billed: entries
                .iter()
                .filter(|entry| entry.possibly_billed && entry.cost.is_none())
                .count(),
        }
    }

    fn described(&self, shown: usize) -> String {
        let entries = if self.entries == 1 { "entry" } else { "entries" };
        let shown = if shown < self.entries { format!(", the newest {shown} shown") } else { String::new() };
        let open = match self.possibly_billed {
            0 => String::new(),
            count => format!(", and {count} possibly billed without an answer"),
        };
        format!("{} {entries}{shown}; cost ${:.2}{open}", self.entries, self.cost)
    }
}

/// Prints entries one by one.
struct Follower<'a> {
    printer: &'a Printer,
    json: bool,
}

impl Follower<'_> {
    /// Widths of the columns, as the later entries are not known; those of the usual tools and hosts fit.
    const WIDTHS: [usize; 8] = [19, 10, 14, 26, 14, 6, 6, 0];

    fn begin(&mut self) -> Result<(), Error> {
        if self.json {
            Ok(())
        } else {
            ended(self.printer.print_row(&HEAD.map(ToOwned::to_owned), Self::WIDTHS))
        }
    }

    fn print(&mut self, entry: &AuditEntry) -> Result<(), Error> {
        ended(if self.json {
            self.printer.print_json_line(entry)
        } else {
            self.printer.print_row(&row(self.printer, entry), Self::WIDTHS)
        })
    }
}

/// Ends the command when nobody reads its output any more.
fn ended(written: io::Result<()>) -> Result<(), Error> {
    written.map_err(|_| Error::Child(0))
}

const HEAD: [&str; 8] = ["TIME (UTC)", "OWNER", "HOST", "TOOL", "OUTCOME", "MS", "COST", "KEY"];

fn row(printer: &Printer, entry: &AuditEntry) -> [String; 8] {
    let tool = match &entry.action {
        Some(action) => format!("{} {action}", entry.tool),
        None => entry.tool.clone(),
    };
    let host = match &entry.host {
        None if entry.tool == KEYS_COMMAND => "(terminal)".to_owned(),
        host => printer.short(host.as_deref().unwrap_or_default()),
    };
    let cost = match entry.cost {
        Some(cost) => format!("${cost:.2}"),
        None if entry.possibly_billed => "?".to_owned(),
        None => String::new(),
    };
    [
        entry.time.format("%Y-%m-%d %H:%M:%S").to_string(),
        entry.owner.clone(),
        host,
        tool,
        entry.outcome.clone(),
        entry.duration_ms.to_string(),
        cost,
        entry.key_id.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_a_date_or_a_time() {
        let time = |text: &str| Since::Time(parsed_time(text).unwrap());
        assert_eq!(since("90m"), Ok(Since::Ago(TimeDelta::minutes(90))));
        assert_eq!(since("2h"), Ok(Since::Ago(TimeDelta::hours(2))));
        assert_eq!(since("7d"), Ok(Since::Ago(TimeDelta::days(7))));
        assert_eq!(since("2026-01-31"), Ok(time("2026-01-31T00:00:00Z")));
        assert_eq!(since("2026-01-31T10:00:00+02:00"), Ok(time("2026-01-31T08:00:00Z")));
        for text in ["", "d", "7", "-7d", "7y", "7 d", "yesterday", "2026-13-01", "ä"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_longer_than_time_is_all_of_it() {
        let Ok(since) = since("4294967295w") else { panic!("a duration") };
        assert_eq!(since.before(Timestamp::UNIX_EPOCH), Timestamp::MIN_UTC);
    }
}
