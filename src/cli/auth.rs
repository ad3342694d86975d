//! `bondmcp-server auth …`: what happened when a person connected an app.

use anyhow::anyhow;

use super::{
    App, Error,
    operator::{Operator, PublicUrl},
};
use crate::{hosted::Trace, oauth::Grant};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server auth trace ABCD2345";

const TRACE_EXAMPLES: &str = "Examples:
  bondmcp-server auth trace ABCD2345
  bondmcp-server auth trace ABCD2345 --json";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the steps of an authorization, by the reference that its pages and the logs show
    ///
    /// Steps are kept for a day.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct TraceArgs {
    /// The reference, such as ABCD2345
    #[arg(value_name = "REF")]
    reference: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    public_url: PublicUrl,
}

impl Command {
    pub async fn run(self, app: App) -> Result<(), Error> {
        match self {
            Self::Trace(args) => args.run(&app).await,
        }
    }
}

impl TraceArgs {
    async fn run(self, app: &App) -> Result<(), Error> {
        let find = async |operator: &Operator| self.find(operator).await;
        let (trace, grant) = Operator::run(app, &self.public_url, find).await?;
        let printer = &app.printer;
        if self.json {
            let Trace { steps, dropped } = trace;
            printer.print_json(&serde_json::json!({ "steps": steps, "dropped": dropped, "grant": grant }));
            return Ok(());
        }
        if trace.dropped > 0 {
            printer.print_out(format_args!("The first {} steps are not kept.", trace.dropped));
        }
        let head = ["TIME (UTC)".to_owned(), "STEP".to_owned()];
        let steps = trace
            .steps
            .iter()
            .map(|step| [step.time.format("%Y-%m-%d %H:%M:%S").to_string(), step.step.to_string()]);
        printer.print_table(std::iter::once(head).chain(steps));
        if let Some(grant) = grant {
            printer.print_out(format_args!("Grant {}: {}", grant.id, super::grants::state(&grant)));
        }
        Ok(())
    }

    /// Finds the steps, and the grant that they led to.
    async fn find(&self, operator: &Operator) -> Result<(Trace, Option<Grant>), Error> {
        let reference = self.reference.trim().to_uppercase();
        let trace = operator.hosted.traces().find(&reference).await?.ok_or_else(|| {
            Error::Failed(anyhow!("No steps are known for reference {reference}. They are kept for a day."))
        })?;
        let grants = operator.server().all_grants().await?;
        Ok((trace, grants.into_iter().find(|grant| grant.reference == reference)))
    }
}
