//! Which BondMCP the grants belong to.

use super::{Hosted, release::REVOCATIONS};
use crate::{
    account::Leftovers,
    vault::{self, Next, RecordKind},
};

/// The address of the BondMCP that has the accounts of the grants.
const UPSTREAM: RecordKind = RecordKind::new("upstream");

impl Hosted {
    /// Binds what is connected at this public URL to the BondMCP that this server calls. Returns the address of another
    /// one if it is bound to that: accounts are found under it alone, so every grant that ends would seem to have no key.
    /// Where nothing is connected, or with `rebinds`, it is bound anew.
    pub async fn bind(&self, rebinds: bool) -> Result<Option<String>, vault::Error> {
        // All grants are read only where it matters.
        let rebinds =
            rebinds || self.bound_elsewhere().await?.is_some() && self.has_nothing_to_release().await?;
        let ours = self.upstream();
        let bind = |bound: Option<String>| match bound {
            Some(bound) if bound == ours => (Next::Keep, None),
            Some(bound) if !rebinds => (Next::Keep, Some(bound)),
            _ => (Next::Write(ours.clone(), None), None),
        };
        self.inner.server.records().change(UPSTREAM, "", bind).await
    }

    /// Returns the address of the BondMCP that what is connected here belongs to, if it is not the one of this server.
    pub async fn bound_elsewhere(&self) -> Result<Option<String>, vault::Error> {
        let bound = self.inner.server.records().read::<String>(UPSTREAM, "").await?;
        Ok(bound.map(|bound| bound.value).filter(|bound| *bound != self.upstream()))
    }

    fn upstream(&self) -> String {
        self.inner.accounts.authenticator().upstream().as_str().to_owned()
    }

    async fn has_nothing_to_release(&self) -> Result<bool, vault::Error> {
        let server = &self.inner.server;
        Ok(server.all_grants().await?.is_empty()
            && server
                .records()
                .all::<Leftovers>(REVOCATIONS)
                .await?
                .iter()
                .all(|(_, found)| found.value.is_empty()))
    }
}
