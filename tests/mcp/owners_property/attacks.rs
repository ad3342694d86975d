//! What owners do to get at what is another's.

use reqwest::{StatusCode, Url};
use serde_json::{Value, json};

use super::{
    person::{Link, PRICE, Person, Progress, Round, Shown},
    service::Setting,
    steps::ACCEPT,
};
use crate::common::{browser::Browser, secrets};

/// JSON-RPC: invalid parameters.
const INVALID: i64 = -32602;

impl Person {
    pub async fn name_foreign_key(&mut self, setting: &Setting, shown: &Shown) {
        self.be_signed_in(setting).await;
        let Some((id, name)) = &shown.key else { return self.list_models(setting).await };
        self.named.insert(id.clone());
        let uri = format!("bondmcp://keys/{id}");
        let read = self.ask(setting, "resources/read", json!({"uri": uri}), &[id]).await;
        assert!(read["error"].is_object(), "{}: {read}", self.name);
        for arguments in [
            json!({"action": "use", "key_id": id}),
            json!({"action": "usage", "key_id": id}),
            json!({"action": "revoke", "key_id": id, "confirm": name}),
            json!({"action": "rotate", "key_id": id, "confirm": name}),
        ] {
            let params = json!({"name": "manage_api_keys", "arguments": arguments});
            let answer = self.ask(setting, "tools/call", params, &[id, name]).await;
            assert_ne!(answer["result"]["isError"], false, "{}: {arguments} {answer}", self.name);
        }
        for given in [id, name] {
            let complete = json!({"ref": {"type": "ref/resource", "uri": "bondmcp://keys/{key_id}"},
                "argument": {"name": "key_id", "value": &given[..3]}});
            self.ask(setting, "completion/complete", complete, &[]).await;
        }
        setting.effects.count("named a key of another");
    }

    /// Sends the password of another owner, and what was issued to them.
    pub async fn guess_secrets(&mut self, setting: &Setting, shown: &Shown) {
        self.be_signed_in(setting).await;
        let guesses = [
            (Some(secrets::text(&shown.password)), "guessed the password of another"),
            (shown.last_token.as_deref(), "guessed a token of another"),
            (shown.last_key.as_deref(), "guessed a key of another"),
        ];
        let guesses = guesses.iter().filter_map(|(guess, effect)| Some(((*guess)?, *effect)));
        let quoted = guesses.clone().map(|(guess, _)| format!("<{guess}>")).collect::<Vec<_>>().join(" or ");
        let asked = json!({"prompt": format!("Is it {quoted}?"), "analysis_type": "general"});
        let params = json!({"name": "health_analyze", "arguments": asked});
        let response = setting.request(self, "tools/call", params).send().await.unwrap();
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let told = &answer["result"]["structuredContent"];
        // Whether it is somebody's secret cannot be told from the answer.
        assert!(leaves(told).iter().any(|text| text.contains(&quoted)), "{}: {answer}", self.name);
        self.assert_made_by_own_model(told);
        self.spent[self.replica].add(PRICE, PRICE);
        guesses.for_each(|(_, effect)| setting.effects.count(effect));
    }

    /// Sends states that were altered, used before, and made for another call.
    pub async fn forge_state(&mut self, setting: &Setting, how: u16) {
        if differing(&self.open_rounds()).is_none() {
            self.end_key(setting, "revoke", None).await;
            self.end_key(setting, "rotate", None).await;
        }
        let [one, other] = differing(&self.open_rounds()).unwrap();
        let mut altered = other.clone();
        let at = usize::from(how) % (altered.state.len() - 4);
        let letter = if altered.state.as_bytes()[at] == b'A' { "B" } else { "A" };
        altered.state.replace_range(at..=at, letter);
        self.assert_refused(setting, &altered, &[]).await;
        setting.effects.count("altered a state");
        let used = self.rounds.iter().rfind(|round| round.progress == Progress::Answered);
        if let Some(used) = used.cloned() {
            self.assert_refused(setting, &used, &[]).await;
            setting.effects.count("used a state again");
        }
        for (state, call) in [(&one, &other), (&other, &one)] {
            let swapped = Round { state: state.state.clone(), ..call.clone() };
            self.assert_refused(setting, &swapped, &[]).await;
            setting.tried.lock().insert(state.state.clone());
        }
        setting.effects.count("swapped the states of two own calls");
    }

    /// Goes on with calls of another owner.
    pub async fn steal_state(&mut self, setting: &Setting, shown: &Shown) {
        for (tool, effect) in [
            ("list_models", "sent the state of another's sign-in"),
            ("manage_api_keys", "sent the state of another's confirmation"),
        ] {
            let open = |round: &&Round| round.progress == Progress::Open && round.tool == tool;
            let Some(round) = shown.rounds.iter().rfind(open) else { continue };
            let key = round.arguments["key_id"].as_str();
            self.named.extend(key.map(ToOwned::to_owned));
            let sent: Vec<_> = key.into_iter().chain([round.state.as_str()]).collect();
            self.assert_refused(setting, round, &sent).await;
            setting.tried.lock().insert(round.state.clone());
            setting.effects.count(effect);
        }
    }

    async fn assert_refused(&mut self, setting: &Setting, round: &Round, sent: &[&str]) {
        let answer = self.go_on(setting, round, ACCEPT, sent).await;
        assert_eq!(answer["error"]["code"], INVALID, "{}: {answer}", self.name);
    }

    /// Asks their own sign-in page for that of another owner, and sends its form to both.
    pub async fn swap_link(&mut self, setting: &Setting, shown: &Shown) {
        self.leave_sign_in_pending(setting).await;
        let Some(theirs) = &shown.link else { return };
        // The page may have ended.
        let Ok(page) = setting.http.get(&theirs.url).send().await else { return };
        assert_eq!(page.status(), StatusCode::OK, "{}", self.name);
        let own = self.links.last().unwrap().clone();
        let Browser { http, form_token, .. } = Browser::open(&own.url).await;
        let swapped = Browser { http, form_token, url: swapped(&own, theirs) };
        let mut answers = vec![setting.http.get(&swapped.url).send().await.unwrap()];
        answers.push(swapped.post("sign-in", &self.form()).send().await.unwrap());
        let at_theirs = Browser { url: theirs.url.clone(), ..swapped };
        answers.extend(at_theirs.post("sign-in", &self.form()).send().await);
        for answer in answers {
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{}", self.name);
            self.seen += &answer.text().await.unwrap();
        }
        setting.effects.count(if own.replica == theirs.replica {
            "swapped a link for one of the same replica"
        } else {
            "swapped a link for one of the other replica"
        });
    }
}

/// Returns the last two rounds, if they are of different calls.
fn differing(rounds: &[Round]) -> Option<[Round; 2]> {
    let [.., one, other] = rounds else { return None };
    ((one.tool, &one.arguments) != (other.tool, &other.arguments)).then(|| [one.clone(), other.clone()])
}

/// Returns the address of `own` with the path of `theirs`.
fn swapped(own: &Link, theirs: &Link) -> String {
    let (mut url, theirs): (Url, Url) = (own.url.parse().unwrap(), theirs.url.parse().unwrap());
    url.set_path(theirs.path());
    url.into()
}

/// Returns all texts in `value`.
fn leaves(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(leaves).collect(),
        Value::Object(fields) => fields.values().flat_map(leaves).collect(),
        _ => vec![],
    }
}
