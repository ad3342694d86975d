//! What `stdio` and `http` have in common: the flags, and the server that they put behind their transports.

use tokio_util::sync::CancellationToken;

use super::{App, Failed, sandboxed, stop};
use crate::{
    account::Account,
    mcp::{BondMcp, Limits},
    sandbox::RunningSandbox,
    sign_in::SignIn,
};

#[derive(Debug, clap::Args)]
pub(super) struct ServingArgs {
    /// The port of the sign-in page, on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    sign_in_port: u16,
    #[command(flatten)]
    sandbox: sandboxed::SandboxFlag,
}

/// A server at work, with what it needs.
pub(super) struct Serving {
    pub account: Account,
    pub server: BondMcp,
    /// Ends it: cancelled by a signal.
    pub stopping: CancellationToken,
    _sandbox: Option<RunningSandbox>,
}

impl ServingArgs {
    /// With a sign-in page where the person can reach one.
    pub async fn start(self, app: App, with_page: bool) -> Result<Serving, Failed> {
        let (app, sandbox) = self.sandbox.apply(app).await?;
        let account = app.account()?;
        let stopping = CancellationToken::new();
        stop::on_signal(stopping.clone());
        super::reconcile_in_background(&account);
        let sign_in = with_page.then(|| SignIn::new(account.clone(), self.sign_in_port));
        let server =
            BondMcp::new(account.clone(), sign_in, app.redactor, Limits::default(), stopping.clone());
        Ok(Serving { account, server, stopping, _sandbox: sandbox })
    }
}
