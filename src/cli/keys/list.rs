//! Keys and their usage as tables.

use crate::{
    account::{Key, KeyList, Unfinished, parsed_time},
    bondmcp::wire::{KeyUsage, Permission},
    cli::printer::Printer,
};

const HEAD: [&str; 9] =
    ["ID", "NAME", "PREVIEW", "PERMISSIONS", "CREATED", "LAST USED", "ACTIVE", "STORED", "IN USE"];

pub(super) fn print_keys(printer: &Printer, list: &KeyList) {
    if list.keys.is_empty() {
        printer.print_out("No API keys.");
    } else {
        let head = HEAD.map(ToOwned::to_owned);
        printer.print_table(std::iter::once(head).chain(list.keys.iter().map(|key| row(printer, key))));
    }
    print_unfinished(printer, &list.unfinished);
}

/// Prints the changes that were interrupted, with what to do about them.
pub(in crate::cli) fn print_unfinished(printer: &Printer, unfinished: &[Unfinished]) {
    for Unfinished { name, next, .. } in unfinished {
        printer.print_out(format_args!("Interrupted: API key `{}`. {next}", printer.short(name)));
    }
}

fn row(printer: &Printer, key: &Key) -> [String; 9] {
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let time = |time: &Option<String>| or_none(time.as_deref().map(|time| date(printer, time)));
    [
        key.id.clone(),
        printer.short(&key.name),
        or_none(key.preview.as_deref().map(|preview| printer.short(preview))),
        or_none(permissions(printer, &key.permissions)),
        time(&key.created_at),
        time(&key.last_used),
        yes(key.is_active),
        yes(key.stored),
        yes(key.in_use),
    ]
}

fn permissions(printer: &Printer, permissions: &[Permission]) -> Option<String> {
    let names = permissions.iter().map(|permission| match permission {
        Permission::Read => "read".to_owned(),
        Permission::Write => "write".to_owned(),
        Permission::Other(name) => printer.short(name),
    });
    let names = names.collect::<Vec<_>>().join(",");
    (!names.is_empty()).then_some(names)
}

/// Returns the date of a time; a time in another format as it is.
fn date(printer: &Printer, time: &str) -> String {
    match parsed_time(time) {
        Some(time) => time.format("%Y-%m-%d").to_string(),
        None => printer.short(time),
    }
}

pub(super) fn print_usage(printer: &Printer, usage: &KeyUsage) {
    let stats = &usage.usage_stats;
    let requests = format!(
        "{} in total, {} today, {} this month",
        stats.total_requests, stats.requests_today, stats.requests_this_month
    );
    let limit = usage
        .rate_limit
        .as_ref()
        .map(|limit| format!("{} per minute, {} left", limit.limit, limit.remaining));
    let endpoints =
        usage.endpoints_used.iter().map(|used| [printer.short(&used.endpoint), used.count.to_string()]);
    let totals = [["requests".to_owned(), requests]].into_iter();
    let limit = limit.map(|limit| ["limit".to_owned(), limit]);
    printer.print_table(totals.chain(limit).chain(endpoints));
}
