//! Multi round-trip requests (MCP 2026-07-28): a call is answered with `input_required`, and the host repeats it with
//! the person's answer and our `requestState`. The state passes through the host, so it is encrypted, bound to the tool
//! and its arguments, and valid for one round and a limited time.

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

use crate::secret::{self, ExposeSecret as _};

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

    /// Answers a call with a question to the person.
    pub fn ask(
        &self,
        asked: PendingInput,
        elicitation: ElicitRequestParams,
        request: &CallToolRequestParams,
    ) -> Result<InputRequiredResult, ErrorData> {
        let elicitation = InputRequest::Elicitation(ElicitRequest::new(elicitation));
        let requests = InputRequests::from([(ANSWER.to_owned(), elicitation)]);
        Ok(InputRequiredResult::new(Some(requests), Some(self.seal(asked, request)?)))
    }

    /// Makes the host call again without asking the person again.
    pub fn continue_without_input(
        &self,
        asked: PendingInput,
        request: &CallToolRequestParams,
    ) -> Result<InputRequiredResult, ErrorData> {
        Ok(InputRequiredResult::new(None, Some(self.seal(asked, request)?)))
    }

    /// Returns the input that the previous round asked for; `None` in the first one.
    pub fn asked(&self, request: &CallToolRequestParams) -> Result<Option<PendingInput>, ErrorData> {
        let Some(state) = &request.request_state else { return Ok(None) };
        let State { asked, round } =
            self.codec.open_json_with(state, &bound_to(request)).map_err(|_| stale())?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.retain(|_, at| at.elapsed() < self.lifetime);
        match spent.insert(round, Instant::now()) {
            None => Ok(Some(asked)),
            Some(_) => Err(stale()),
        }
    }

    fn seal(&self, asked: PendingInput, request: &CallToolRequestParams) -> Result<String, ErrorData> {
        let (state, call) = (State { asked, round: Uuid::new_v4() }, bound_to(request));
        self.codec
            .seal_json_with(&state, &SealOptions::new().associated_data(&call).ttl(self.lifetime))
            .map_err(|_| ErrorData::internal_error("the request state cannot be sealed", None))
    }
}

/// Returns the person's answer in this round.
pub(super) fn answer(request: &CallToolRequestParams) -> Option<ElicitResult> {
    let answer = request.input_responses.as_ref()?.get(ANSWER)?;
    serde_json::from_value(answer.clone()).ok()
}

/// Binds a state to the tool and its arguments.
fn bound_to(request: &CallToolRequestParams) -> Vec<u8> {
    json!([request.name, request.arguments]).to_string().into_bytes()
}

pub(super) fn stale() -> ErrorData {
    ErrorData::invalid_params("the request state is not, or no longer, valid; call again without it", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a call with a state of `states` for the previous call.
    fn retry(states: &RequestStates) -> CallToolRequestParams {
        let mut request = CallToolRequestParams::new("list_models");
        request.request_state = Some(states.seal(PendingInput::Confirmation, &request).unwrap());
        request
    }

    #[test]
    fn a_state_is_good_for_one_round_of_one_process_while_it_lasts() {
        let states = RequestStates::new(Duration::from_mins(1));
        let first = retry(&states);
        assert!(matches!(states.asked(&first), Ok(Some(PendingInput::Confirmation))));
        assert!(states.asked(&first).is_err(), "replayed");
        assert!(RequestStates::new(Duration::from_mins(1)).asked(&retry(&states)).is_err(), "foreign");
        let over = RequestStates::new(Duration::ZERO);
        let expired = retry(&over);
        // A state has a resolution of milliseconds, and a used one is remembered only for its lifetime.
        while over.asked(&expired).is_ok() {}
        assert!(states.asked(&CallToolRequestParams::new("list_models")).unwrap().is_none());
    }
}
