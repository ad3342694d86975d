//! The page of an owner, who needs to sign in again: one for all calls of the owner on all replicas. A call waits for
//! its end wherever the person finishes it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{KIND, PublicPage, PublicPages, page::masked};
use crate::{
    account::{self, Account, RequiredCredential},
    secret::{ExposeSecret as _, SecretString},
    sign_in::{End, KEPT_AFTER_THE_END, LIFETIME, Pending, RETRY_INTERVAL, Request, State, public::Purpose},
    vault::{self, RecordKind, Versioned},
};

/// Which page an owner has.
const OWNERS_PAGE: RecordKind = RecordKind::new("owner-sign-in");

#[derive(Deserialize)]
struct OwnersPage {
    name: String,
    id: SecretString,
}

/// [`OwnersPage`] with its secret exposed; used only for encryption.
#[derive(Serialize)]
struct OwnersPageView<'a> {
    name: &'a str,
    id: &'a str,
}

impl PublicPages {
    /// Returns the page of the account's owner: the one that is open, or a new one.
    pub(in crate::sign_in) async fn page_of(
        &self,
        account: &Account,
        request: &Request,
    ) -> Result<PublicPage, account::Error> {
        let (records, owner) = (&self.inner.records, account.owner_name());
        loop {
            let known = records.read::<OwnersPage>(OWNERS_PAGE, owner).await?;
            if let Some(known) = &known
                && let Some(mut page) = self.find(&known.value.id).await?
                && page.is_open()
            {
                if let Some(host) = &request.requested_by {
                    page.change(|page| page.add_host(host)).await?;
                }
                return Ok(page);
            }
            let page = self.open_for_owner(account, request).await?;
            let view = OwnersPageView { name: &page.page.name, id: page.id.expose_secret() };
            let (version, lifetime) = (known.map(|known| known.version), LIFETIME + KEPT_AFTER_THE_END);
            match records.write(OWNERS_PAGE, owner, version, &view, Some(lifetime)).await {
                Ok(_) => return Ok(page),
                // Another call has opened one.
                Err(vault::Error::Conflict) => page.withdraw().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn open_for_owner(
        &self,
        account: &Account,
        request: &Request,
    ) -> Result<PublicPage, account::Error> {
        let purpose = Purpose::Owner {
            subject: account.subject().unwrap_or_default().to_owned(),
            account: account.status().await?.email.as_deref().map(masked),
            requested_by: request.requested_by.iter().cloned().collect(),
        };
        Ok(self.open(purpose, request.email.clone().unwrap_or_default()).await?)
    }

    /// Returns the page of the sign-in `name` of the account's owner. It may have ended.
    pub(in crate::sign_in) async fn named(
        &self,
        account: &Account,
        name: &str,
    ) -> Result<Option<PublicPage>, account::Error> {
        let known = self.inner.records.read::<OwnersPage>(OWNERS_PAGE, account.owner_name()).await?;
        let Some(known) = known.filter(|Versioned { value, .. }| value.name == name) else {
            return Ok(None);
        };
        let page = self.find(&known.value.id).await?;
        if page.as_ref().is_some_and(|page| matches!(page.state(), State::SignedIn { .. })) {
            account.reload().await?;
        }
        Ok(page)
    }
}

impl PublicPage {
    /// Returns the sign-in for the calls of this process that wait for it.
    pub(in crate::sign_in) fn pending(&self, need: RequiredCredential) -> Pending {
        let url = self.pages.place().url(self.id.expose_secret());
        let (name, code) = (self.page.name.clone(), self.page.code.clone());
        let pending = Pending::elsewhere(name, (url.into(), true), code, self.expires_in(), need);
        if !self.page.state.is_open() {
            pending.set_state(self.page.state.clone());
        }
        pending
    }

    /// Identifier in the protocol.
    pub(in crate::sign_in) fn name(&self) -> &str {
        &self.page.name
    }

    /// Copies the state of the page to `pending` until it has ended, wherever that happens.
    pub(in crate::sign_in) async fn follow(mut self, account: Account, pending: Arc<Pending>) {
        while pending.is_open() {
            if let Err(error) = self.copy_state(&account, &pending).await {
                tracing::warn!(%error, "a sign-in page cannot be followed");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        pending.end(End::TimedOut);
    }

    /// Copies the state, and waits for the next one.
    async fn copy_state(&mut self, account: &Account, pending: &Pending) -> Result<(), account::Error> {
        if let State::SignedIn { .. } = self.page.state {
            account.reload().await?;
        }
        pending.set_state(self.page.state.clone());
        if pending.is_open() {
            let (records, id) = (&self.pages.inner.records, self.id.expose_secret());
            records.change_wait(KIND, id, self.version, pending.expires_in()).await?;
            match self.pages.find(&self.id).await? {
                Some(newer) => *self = newer,
                None => pending.end(End::TimedOut),
            }
        }
        Ok(())
    }
}
