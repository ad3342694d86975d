//! `bondmcp-server audit`.

use anyhow::anyhow;

use super::{App, Failed, say};
use crate::account::AuditEntry;

/// Tells which tools were called, by which host, how that ended and what it cost. Arguments and results are not kept.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// How many of the newest calls
    #[arg(long, value_name = "N", default_value_t = 50)]
    lines: usize,
}

impl Args {
    pub fn run(&self, app: &App) -> Result<(), Failed> {
        let entries = app
            .account()
            .audited(self.lines)
            .map_err(|error| Failed::Other(anyhow!("The audit file cannot be read: {error}.")))?;
        if self.json {
            for entry in &entries {
                say(serde_json::to_string(entry).map_err(|error| Failed::Other(error.into()))?);
            }
        } else if entries.is_empty() {
            say("No tool has been called yet.");
        } else {
            table(&entries);
        }
        Ok(())
    }
}

const HEAD: [&str; 8] = ["TIME (UTC)", "PROFILE", "HOST", "TOOL", "OUTCOME", "MS", "COST", "KEY"];

fn table(entries: &[AuditEntry]) {
    let rows: Vec<[String; 8]> =
        std::iter::once(HEAD.map(ToOwned::to_owned)).chain(entries.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn row(entry: &AuditEntry) -> [String; 8] {
    let tool = match &entry.action {
        Some(action) => format!("{} {action}", entry.tool),
        None => entry.tool.clone(),
    };
    let cost = match entry.cost {
        Some(cost) => format!("${cost:.2}"),
        None if entry.possibly_billed => "?".to_owned(),
        None => String::new(),
    };
    [
        entry.time.format("%Y-%m-%d %H:%M:%S").to_string(),
        entry.owner.clone(),
        entry.host.clone().unwrap_or_default(),
        tool,
        entry.outcome.clone(),
        entry.duration_ms.to_string(),
        cost,
        entry.key_id.clone().unwrap_or_default(),
    ]
}
