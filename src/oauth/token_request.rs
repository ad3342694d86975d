//! The token endpoint (RFC 6749, sections 4.1.3 and 6; resource: RFC 8707).

use super::{
    AuthorizationServer, Client, EndReason, Grant, GrantId, OAuthError, Scopes,
    family::{Family, Limits, Refresh},
    form::Form,
    refresh_token::RefreshToken,
};
use crate::{
    metrics,
    secret::{ExposeSecret, SecretString},
    vault::{self, Next, RecordKind},
};

const FAMILY: RecordKind = RecordKind::new("refresh");

const UNKNOWN: &str = "The refresh token is unknown, or what it allowed has ended. Connect again.";
const REPLAYED: &str = "The refresh token was used before, so what it allowed has ended. Connect again.";
const EXPIRED: &str = "The refresh token has expired. Connect again.";
const REFUSED: &str = "BondMCP no longer accepts the account. Connect again.";

/// A successful answer of the token endpoint (RFC 6749, section 5.1). It leaves the process only in that answer.
#[derive(Debug)]
pub struct TokenResponse {
    pub access_token: SecretString,
    pub refresh_token: SecretString,
    /// Seconds.
    pub expires_in: u64,
    pub scope: Scopes,
    /// Names the authorization in logs.
    pub reference: String,
    /// Whether they are the first tokens of their grant.
    pub are_first: bool,
}

/// Whether BondMCP still accepts what a grant calls it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Accepted,
    /// Permanently: the grant ends.
    Refused,
    /// It cannot be found out now.
    Unknown,
}

impl AuthorizationServer {
    /// Answers a request to `/token`. `authorization` is the header of the same name, `form` the body. `accepted` tells
    /// before a refresh whether BondMCP still accepts what the grant calls it with.
    pub async fn token<Accepted: Future<Output = Acceptance>>(
        &self,
        authorization: Option<&str>,
        form: &[u8],
        accepted: impl Fn(Grant) -> Accepted,
    ) -> Result<TokenResponse, OAuthError> {
        let answer = self.token_response(authorization, form, accepted).await;
        metrics::token_request(answer.as_ref().map_or_else(|error| error.code, |_| "ok"));
        answer
    }

    async fn token_response<Accepted: Future<Output = Acceptance>>(
        &self,
        authorization: Option<&str>,
        form: &[u8],
        accepted: impl Fn(Grant) -> Accepted,
    ) -> Result<TokenResponse, OAuthError> {
        let form = Form::parse(form)?;
        // Authenticating a client may store a record. A refresh is counted only once its client is known.
        if let Some(token) = self.refresh_token(&form) {
            self.inner.refresh_limit.check(&token.grant, self.inner.clock.now())?;
        }
        // Anybody can name a document. It is fetched only for whoever has a code or a token of that client.
        if let Some(claimed) = self.clients().named_document(authorization, &form)?
            && !self.has_issued_to(&claimed, &form).await?
        {
            return Err(OAuthError::invalid_grant(
                "The code or the refresh token is unknown or has expired, or is another client's.",
            ));
        }
        let client = self.clients().authenticate(authorization, &form).await?;
        form.check_resource(self.endpoints())?;
        match form.get("grant_type").map(ExposeSecret::expose_secret) {
            Some("authorization_code") => self.redeem(&client, &form).await,
            Some("refresh_token") => self.refresh(&client, &form, accepted).await,
            Some(_) => Err(OAuthError::bad_request(
                "unsupported_grant_type",
                "grant_type must be authorization_code or refresh_token.",
            )),
            None => Err(OAuthError::invalid_request("grant_type is missing.")),
        }
    }

    /// Whether the refresh token or the code of a request was issued to the client, which is not authenticated yet.
    async fn has_issued_to(&self, claimed: &str, form: &Form) -> Result<bool, OAuthError> {
        if let Some(token) = self.refresh_token(form) {
            return Ok(self.grant(&token.grant).await?.is_some_and(|grant| grant.is_live_for(claimed)));
        }
        match form.get("code") {
            Some(code) => self.is_code_of(claimed, code).await,
            None => Ok(false),
        }
    }

    /// Returns the refresh token of a request, if it is one of this server.
    fn refresh_token(&self, form: &Form) -> Option<RefreshToken> {
        RefreshToken::parse(&self.inner.server_keys, form.get("refresh_token")?)
    }

    /// The code is used up last: until then, a client that meets trouble can send it again.
    async fn redeem(&self, client: &Client, form: &Form) -> Result<TokenResponse, OAuthError> {
        let redeemable = self.redeemable(client, form).await?;
        let grant = redeemable.grant.clone();
        let first = RefreshToken::first(&grant.id);
        let family = Family::new(&first, self.inner.clock.now());
        let lifetime = family.lifetime(self.limits(), self.inner.clock.now());
        let put = |_: Option<Family>| (Next::Write(family.clone(), Some(lifetime)), ());
        self.records().change(FAMILY, grant.id.as_str(), put).await?;
        let response = self.response(&grant, grant.scopes, &first).await?;
        self.use_up(redeemable).await?;
        Ok(response)
    }

    async fn refresh<Accepted: Future<Output = Acceptance>>(
        &self,
        client: &Client,
        form: &Form,
        accepted: impl Fn(Grant) -> Accepted,
    ) -> Result<TokenResponse, OAuthError> {
        if form.get("refresh_token").is_none() {
            return Err(OAuthError::invalid_request("refresh_token is missing."));
        }
        let token = self.refresh_token(form).ok_or(OAuthError::invalid_grant(UNKNOWN))?;
        let grant = self.live_grant(&token.grant).await?.ok_or(OAuthError::invalid_grant(UNKNOWN))?;
        if grant.client_id != client.id {
            return Err(OAuthError::invalid_grant("The refresh token was issued to another client."));
        }
        let scopes = narrowed(&grant, form)?;
        self.inner.refresh_limit.take(&grant.id, self.inner.clock.now())?;
        // First without a change, so that nothing has happened where BondMCP cannot be asked.
        self.present(&grant, &token, false).await?;
        match accepted(grant.clone()).await {
            Acceptance::Accepted => {}
            Acceptance::Refused => return Err(self.ended(&grant.id, EndReason::Refused, REFUSED).await?),
            Acceptance::Unknown => return Err(OAuthError::temporarily_unavailable()),
        }
        let token = self.present(&grant, &token, true).await?;
        self.response(&grant, scopes, &token).await
    }

    /// Presents a token to its family, on which all replicas agree; returns the one that takes its place.
    async fn present(
        &self,
        grant: &Grant,
        token: &RefreshToken,
        is_final: bool,
    ) -> Result<RefreshToken, OAuthError> {
        let (limits, now) = (self.limits(), self.inner.clock.now());
        let present = |family: Option<Family>| {
            // The vault has forgotten it, since it has expired.
            let Some(mut family) = family else { return (Next::Keep, Refresh::Expired) };
            let refresh = family.refresh(&self.inner.server_keys, token, limits, now);
            let lifetime = family.lifetime(limits, now);
            match refresh {
                Refresh::Answered { has_changed: true, .. } if is_final => {
                    (Next::Write(family, Some(lifetime)), refresh)
                }
                _ => (Next::Keep, refresh),
            }
        };
        match self.records().change(FAMILY, grant.id.as_str(), present).await? {
            Refresh::Answered { token, .. } => Ok(token),
            Refresh::Replayed => {
                tracing::warn!(grant = %grant.id, "an old refresh token was used again");
                Err(self.ended(&grant.id, EndReason::Replay, REPLAYED).await?)
            }
            Refresh::Expired => Err(self.ended(&grant.id, EndReason::Expired, EXPIRED).await?),
            Refresh::Unknown => Err(OAuthError::invalid_grant(UNKNOWN)),
        }
    }

    async fn response(
        &self,
        grant: &Grant,
        scope: Scopes,
        refresh_token: &RefreshToken,
    ) -> Result<TokenResponse, OAuthError> {
        Ok(TokenResponse {
            access_token: self.access_token(grant, scope).await?,
            refresh_token: refresh_token.to_text(&self.inner.server_keys),
            expires_in: self.inner.settings.access_token_lifetime.as_secs(),
            scope,
            reference: grant.reference.clone(),
            are_first: refresh_token.is_first(),
        })
    }

    /// Ends a grant; returns the error that says so.
    pub(super) async fn ended(
        &self,
        grant: &GrantId,
        reason: EndReason,
        description: &'static str,
    ) -> Result<OAuthError, vault::Error> {
        let ended = self.end_grant(grant, reason).await?;
        Ok(OAuthError { ended: ended.map(|grant| grant.id), ..OAuthError::invalid_grant(description) })
    }

    /// Whether a client has a refresh token for the grant that is still good.
    pub(super) async fn can_refresh(&self, grant: &GrantId) -> Result<bool, vault::Error> {
        let family = self.records().read::<Family>(FAMILY, grant.as_str()).await?;
        Ok(family.is_some_and(|found| !found.value.has_expired(self.limits(), self.inner.clock.now())))
    }

    pub(super) async fn forget_family(&self, grant: &GrantId) -> Result<(), vault::Error> {
        let delete = |_: Option<Family>| (Next::Delete, ());
        self.records().change(FAMILY, grant.as_str(), delete).await
    }

    fn limits(&self) -> Limits {
        let settings = &self.inner.settings;
        Limits { idle: settings.refresh_idle, absolute: settings.refresh_absolute }
    }
}

/// Returns the scopes of a refresh: those of the grant, or fewer (RFC 6749, section 6).
fn narrowed(grant: &Grant, form: &Form) -> Result<Scopes, OAuthError> {
    let wanted = form.get("scope").map(|scope| Scopes::parse(scope.expose_secret())).unwrap_or_default();
    if wanted.is_empty() {
        Ok(grant.scopes)
    } else if wanted.are_within(grant.scopes) {
        Ok(wanted)
    } else {
        Err(OAuthError::bad_request("invalid_scope", "The scope goes beyond what the person agreed to."))
    }
}
