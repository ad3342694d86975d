//! `bondmcp-server audit`.

use super::{App, Error, printer::Printer};
use crate::account::AuditEntry;
use anyhow::anyhow;

/// Shows the calls of tools with their host, outcome and cost. Arguments and results are not recorded.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Number of calls to show, newest last
    #[arg(long, value_name = "N", default_value_t = 50)]
    lines: usize,
}

impl Args {
    pub fn run(self, app: &App) -> Result<(), Error> {
        let entries = app
            .account()
            .audit_entries(self.lines)
            .map_err(|error| Error::Failed(anyhow!("The audit log cannot be read: {error}.")))?;
        if self.json {
            for entry in &entries {
                app.printer.print_json_line(entry);
            }
        } else if entries.is_empty() {
            app.printer.print_out("No tool has been called yet.");
        } else {
            let head = HEAD.map(ToOwned::to_owned);
            app.printer.print_table(
                std::iter::once(head).chain(entries.iter().map(|entry| row(&app.printer, entry))),
            );
        }
        Ok(())
    }
}

const HEAD: [&str; 8] = ["TIME (UTC)", "PROFILE", "HOST", "TOOL", "OUTCOME", "MS", "COST", "KEY"];

fn row(printer: &Printer, entry: &AuditEntry) -> [String; 8] {
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
        printer.short(entry.host.as_deref().unwrap_or_default()),
        tool,
        entry.outcome.clone(),
        entry.duration_ms.to_string(),
        cost,
        entry.key_id.clone().unwrap_or_default(),
    ]
}
