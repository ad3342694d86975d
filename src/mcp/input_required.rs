//! Multi round-trip requests (MCP 2026-07-28): a call is answered with `input_required`, and the host repeats it with
//! the person's answer and our `requestState`. The state passes through the host, so it is authenticated, bound to the
//! owner, the tool and its arguments, and valid for one round and a limited time. It contains no secret.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rmcp::{
    ErrorData,
    model::{
        CallToolRequestParams, ElicitRequest, ElicitRequestParams, ElicitResult, InputRequest, InputRequests,
        InputRequiredResult, RequestStateCodec, RequestStateError, SealOptions,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{answer::Answer, tool_error::ToolError};
use crate::{
    account::{self, Account},
    clock::Timestamp,
};

/// Key of the question and of the host's answer to it.
const ANSWER: &str = "person";

/// The input that a call waits for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PendingInput {
    /// The person signs in: the name of the pending sign-in, and how often the call was answered with a question.
    SignIn { name: String, round: u8 },
    /// The person confirms that a key stops working.
    Confirmation,
}

#[derive(Deserialize, Serialize)]
struct State {
    asked: PendingInput,
    round: Uuid,
    /// By the clock of the process that sealed it.
    sealed_at: Timestamp,
}

/// The reason why a request state cannot be made or used.
#[derive(Debug)]
pub(super) enum StateError {
    /// It is another owner's or another call's, was used before or has expired.
    Stale,
    /// The vault cannot be used.
    Account(account::Error),
    /// It cannot be sealed.
    Unsealed,
}

impl From<account::Error> for StateError {
    fn from(error: account::Error) -> Self {
        Self::Account(error)
    }
}

impl StateError {
    /// Returns the answer of the call.
    pub fn answer(self) -> Result<Answer, ErrorData> {
        match self {
            Self::Stale => Err(stale()),
            Self::Account(error) => Ok(ToolError::from(error).into()),
            Self::Unsealed => Err(ErrorData::internal_error("the request state cannot be sealed", None)),
        }
    }
}

#[derive(Debug)]
pub(super) struct RequestStates {
    /// Lifetime of a request state.
    lifetime: Duration,
}

impl RequestStates {
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime }
    }

    /// Answers a call of the account's owner with a question to the person.
    pub async fn ask(
        &self,
        account: &Account,
        asked: PendingInput,
        elicitation: ElicitRequestParams,
        request: &CallToolRequestParams,
    ) -> Result<Answer, ErrorData> {
        let elicitation = InputRequest::Elicitation(ElicitRequest::new(elicitation));
        let questions = InputRequests::from([(ANSWER.to_owned(), elicitation)]);
        self.answer_with(account, asked, Some(questions), request).await
    }

    /// Makes the host call again without asking the person again.
    pub async fn continue_without_input(
        &self,
        account: &Account,
        asked: PendingInput,
        request: &CallToolRequestParams,
    ) -> Result<Answer, ErrorData> {
        self.answer_with(account, asked, None, request).await
    }

    async fn answer_with(
        &self,
        account: &Account,
        asked: PendingInput,
        questions: Option<InputRequests>,
        request: &CallToolRequestParams,
    ) -> Result<Answer, ErrorData> {
        match Box::pin(self.seal(account, asked, request)).await {
            Ok(state) => Ok(InputRequiredResult::new(questions, Some(state)).into()),
            Err(error) => error.answer(),
        }
    }

    /// Returns the input that the previous round of the owner's call asked for; `None` in the first one.
    pub async fn asked(
        &self,
        account: &Account,
        request: &CallToolRequestParams,
    ) -> Result<Option<PendingInput>, StateError> {
        match &request.request_state {
            // Boxed: this future is large and rarely needed.
            Some(state) => Box::pin(self.used(account, state, request)).await.map(Some),
            None => Ok(None),
        }
    }

    async fn used(
        &self,
        account: &Account,
        state: &str,
        request: &CallToolRequestParams,
    ) -> Result<PendingInput, StateError> {
        let State { asked, round, sealed_at } = open(account, state, &bound_to(account, request)).await?;
        // The state is used up last, so that what somebody else has sent uses up nothing.
        if account.is_request_state_current(sealed_at, self.lifetime)
            && account.use_request_state(round, self.lifetime).await?
        {
            Ok(asked)
        } else {
            Err(StateError::Stale)
        }
    }

    async fn seal(
        &self,
        account: &Account,
        asked: PendingInput,
        request: &CallToolRequestParams,
    ) -> Result<String, StateError> {
        let state = State { asked, round: Uuid::new_v4(), sealed_at: account.now() };
        let call = bound_to(account, request);
        let options = SealOptions::new().associated_data(&call);
        codec(account).await?.seal_json_with(&state, &options).map_err(|_| StateError::Unsealed)
    }
}

async fn open(account: &Account, sealed: &str, call: &[u8]) -> Result<State, StateError> {
    let opened = match codec(account).await?.open_json_with(sealed, call) {
        // Another process may have changed the keys and sealed it under the new one.
        Err(RequestStateError::UnknownKeyId) => {
            account.reload_keys().await?;
            codec(account).await?.open_json_with(sealed, call)
        }
        opened => opened,
    };
    opened.map_err(|_| StateError::Stale)
}

/// Returns the codec under the keys of the vault, the same in every process that uses it.
async fn codec(account: &Account) -> Result<RequestStateCodec, StateError> {
    let (current, others) = account.request_state_keys().await?;
    // The codec needs a name for each key, and gets one that tells nothing about it.
    let name = |key: &[u8; 32]| URL_SAFE_NO_PAD.encode(&Sha256::digest(key)[..8]);
    // A key that the operator has given twice is one key.
    let keys: BTreeMap<_, _> = others.iter().chain([&current]).map(|key| (name(key), key.to_vec())).collect();
    RequestStateCodec::new_with_keyring(name(&current), keys).map_err(|_| StateError::Unsealed)
}

/// Returns the person's answer in this round.
pub(super) fn answer(request: &CallToolRequestParams) -> Option<ElicitResult> {
    let answer = request.input_responses.as_ref()?.get(ANSWER)?;
    serde_json::from_value(answer.clone()).ok()
}

/// Binds a state to the owner, the upstream, the tool and its arguments.
fn bound_to(account: &Account, request: &CallToolRequestParams) -> Vec<u8> {
    let (owner, upstream) = (account.owner_name(), account.upstream().as_str());
    json!([owner, upstream, request.name, request.arguments]).to_string().into_bytes()
}

pub(super) fn stale() -> ErrorData {
    ErrorData::invalid_params("the request state is not, or no longer, valid; call again without it", None)
}
