//! Calls in rounds (MCP 2026-07-28): the answer asks the person something, and the host calls again with what they said
//! and with a state of ours. That state comes through the host's hands, so it is signed, bound to tool and arguments,
//! good for one round and for a while.

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

/// The key under which a host answers.
const ANSWER: &str = "person";

/// What the person was asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked {
    /// To sign in; the name of the pending sign-in.
    SignIn(String),
    /// Whether a key may be ended.
    Confirmation,
}

#[derive(Deserialize, Serialize)]
struct State {
    asked: Asked,
    round: Uuid,
}

#[derive(Debug)]
pub(super) struct Rounds {
    codec: RequestStateCodec,
    /// Of a state.
    lifetime: Duration,
    /// The rounds whose state has come back.
    spent: Mutex<HashMap<Uuid, Instant>>,
}

impl Rounds {
    pub fn new(lifetime: Duration) -> Self {
        // By the process: what it asked is forgotten with it.
        let key = secret::random();
        Self {
            codec: RequestStateCodec::new_unchecked(key.expose_secret().as_bytes()),
            lifetime,
            spent: Mutex::default(),
        }
    }

    /// Asks the person.
    pub fn ask(
        &self,
        asked: Asked,
        elicitation: ElicitRequestParams,
        request: &CallToolRequestParams,
    ) -> Result<InputRequiredResult, ErrorData> {
        let elicitation = InputRequest::Elicitation(ElicitRequest::new(elicitation));
        let requests = InputRequests::from([(ANSWER.to_owned(), elicitation)]);
        Ok(InputRequiredResult::new(Some(requests), Some(self.seal(asked, request)?)))
    }

    /// Lets the host call again without asking the person again.
    pub fn go_on(
        &self,
        asked: Asked,
        request: &CallToolRequestParams,
    ) -> Result<InputRequiredResult, ErrorData> {
        Ok(InputRequiredResult::new(None, Some(self.seal(asked, request)?)))
    }

    /// What was asked in the round before; `None` in the first one.
    pub fn asked(&self, request: &CallToolRequestParams) -> Result<Option<Asked>, ErrorData> {
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

    fn seal(&self, asked: Asked, request: &CallToolRequestParams) -> Result<String, ErrorData> {
        let (state, call) = (State { asked, round: Uuid::new_v4() }, bound_to(request));
        self.codec
            .seal_json_with(&state, &SealOptions::new().associated_data(&call).ttl(self.lifetime))
            .map_err(|_| ErrorData::internal_error("the request state cannot be sealed", None))
    }
}

/// What the person said in this round.
pub(super) fn answer(request: &CallToolRequestParams) -> Option<ElicitResult> {
    let answer = request.input_responses.as_ref()?.get(ANSWER)?;
    serde_json::from_value(answer.clone()).ok()
}

/// A state is good for the same tool with the same arguments.
fn bound_to(request: &CallToolRequestParams) -> Vec<u8> {
    json!([request.name, request.arguments]).to_string().into_bytes()
}

pub(super) fn stale() -> ErrorData {
    ErrorData::invalid_params("the request state is not, or no longer, valid; call again without it", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that carries the state of `rounds` for the call before it.
    fn retry(rounds: &Rounds) -> CallToolRequestParams {
        let mut request = CallToolRequestParams::new("list_models");
        request.request_state = Some(rounds.seal(Asked::Confirmation, &request).unwrap());
        request
    }

    #[test]
    fn a_state_is_good_for_one_round_of_one_process_while_it_lasts() {
        let rounds = Rounds::new(Duration::from_mins(1));
        let first = retry(&rounds);
        assert!(matches!(rounds.asked(&first), Ok(Some(Asked::Confirmation))));
        assert!(rounds.asked(&first).is_err(), "replayed");
        assert!(Rounds::new(Duration::from_mins(1)).asked(&retry(&rounds)).is_err(), "foreign");
        let over = Rounds::new(Duration::ZERO);
        let expired = retry(&over);
        // It counts milliseconds, and nothing is remembered as spent for longer than it lasts.
        while over.asked(&expired).is_ok() {}
        assert!(rounds.asked(&CallToolRequestParams::new("list_models")).unwrap().is_none());
    }
}
