//! Multi round-trip requests (MCP 2026-07-28): a call is answered with `input_required`, and the host repeats it with
//! the person's answer and our `requestState`. The state passes through the host, so it is authenticated, bound to the
//! owner, the tool and its arguments, and valid for one round and a limited time. It contains no secret.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rmcp::{
    ErrorData,
    model::{
        CallToolRequestParams, ElicitRequest, ElicitRequestParams, ElicitResult, InputRequest, InputRequests,
        InputRequiredResult, RequestStateCodec, SealOptions,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::{call::Answer, tool_error::ToolError};
use crate::{
    account::{self, Account},
    secret::{self, ExposeSecret as _},
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
}

/// The reason why a request state cannot be made or used.
#[derive(Debug)]
pub(super) enum StateError {
    /// It is another call's, was used before or has expired.
    Stale,
    /// The vault cannot be used.
    Account(account::Error),
}

impl StateError {
    /// Returns the answer of the call.
    pub fn answer(self) -> Result<Answer, ErrorData> {
        match self {
            Self::Stale => Err(stale()),
            Self::Account(error) => Ok(ToolError::from(error).into()),
        }
    }
}

#[derive(Debug)]
pub(super) struct RequestStates {
    codec: RequestStateCodec,
    /// Lifetime of a request state.
    lifetime: Duration,
    /// Rounds whose state was used.
    spent: Mutex<HashMap<Uuid, Instant>>,
}

impl RequestStates {
    pub fn new(lifetime: Duration) -> Self {
        // Each process has its own key: its questions end with the process.
        let key = secret::random();
        Self {
            codec: RequestStateCodec::new_unchecked(key.expose_secret().as_bytes()),
            lifetime,
            spent: Mutex::default(),
        }
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
        match self.seal(account, asked, request).await {
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
        let Some(state) = &request.request_state else { return Ok(None) };
        let State { asked, round } =
            self.codec.open_json_with(state, &bound_to(account, request)).map_err(|_| StateError::Stale)?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.retain(|_, at| at.elapsed() < self.lifetime);
        match spent.insert(round, Instant::now()) {
            None => Ok(Some(asked)),
            Some(_) => Err(StateError::Stale),
        }
    }

    async fn seal(
        &self,
        account: &Account,
        asked: PendingInput,
        request: &CallToolRequestParams,
    ) -> Result<String, StateError> {
        let (state, call) = (State { asked, round: Uuid::new_v4() }, bound_to(account, request));
        self.codec
            .seal_json_with(&state, &SealOptions::new().associated_data(&call).ttl(self.lifetime))
            .map_err(|_| StateError::Stale)
    }
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
