//! `bondmcp-server doctor`.

use serde::Serialize;

use super::{Error, command_line_in_this_environment, operator::PUBLIC_URL, printer::Printer};
use crate::{
    clock::Clock,
    config::{ConfigError, PublicOrigin, Settings},
    doctor::{self, Check, Fix, PublicServer, Status, Subject},
    redact::Redactor,
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server doctor
  bondmcp-server doctor --json > report.json
  bondmcp-server --profile work doctor --sign-in-port 8790
  bondmcp-server doctor --public-url https://bond.example.com";

/// Examines the set-up from the binary to BondMCP's answer and says how to fix what is broken. Shows no secret, so that
/// its output can be pasted into a report. Makes no billed request.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The port to examine for the sign-in page; 0 for a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    sign_in_port: u16,
    /// Examine a hosted server from outside instead, as hosts find it: metadata, challenge, pages, firewall and TLS
    #[arg(long, value_name = "URL", conflicts_with = "sign_in_port")]
    public_url: Option<PublicOrigin>,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

impl Args {
    pub async fn run(
        self,
        settings: Result<Settings, ConfigError>,
        printer: Printer,
        redactor: Redactor,
        clock: Clock,
    ) -> Result<(), Error> {
        let mut checks = Vec::new();
        let mut report = |check| {
            if !self.json {
                print(&printer, &check);
            }
            checks.push(check);
        };
        if let Some(origin) = self.public_url {
            doctor::examine_from_outside(PublicServer { origin, redactor, clock }, &mut report).await?;
        } else {
            // Its fixes are for the shell that runs it, and are shown without the name of the home directory.
            let command_line = settings
                .as_ref()
                .map(|settings| command_line_in_this_environment(settings, &settings.profile));
            let subject = Subject {
                command_line: command_line.unwrap_or_default(),
                settings,
                sign_in_port: self.sign_in_port,
                is_hosted: std::env::var_os(PUBLIC_URL).is_some_and(|url| !url.is_empty()),
                redactor,
                clock,
            };
            doctor::examine(subject, &mut report).await;
        }
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        let (failed, warned) = (count(Status::Fail), count(Status::Warn));
        if self.json {
            printer.print_json(&Report { ok: failed == 0, checks });
        } else {
            printer.print_out(match (failed, warned) {
                (0, 0) => "Everything works.".to_owned(),
                (_, 1) => format!("{failed} failed, 1 warning."),
                _ => format!("{failed} failed, {warned} warnings."),
            });
        }
        if failed == 0 { Ok(()) } else { Err(Error::Reported) }
    }
}

/// Width of the names' column.
const NAME_WIDTH: usize = 23;

fn print(printer: &Printer, check: &Check) {
    let status = match check.status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "FAIL",
        Status::Skip => "skip",
    };
    let time = check.milliseconds.map(|milliseconds| format!(" [{milliseconds} ms]")).unwrap_or_default();
    let Check { name, detail, .. } = check;
    printer.print_out(format_args!("{status:4}  {name:NAME_WIDTH$}  {detail}{time}"));
    let Some(Fix { advice, run }) = &check.fix else { return };
    for line in advice.iter().cloned().chain(run.iter().map(|command| format!("Run: {command}"))) {
        printer.print_out(format_args!("{:1$}{line}", "", NAME_WIDTH + 8));
    }
}
