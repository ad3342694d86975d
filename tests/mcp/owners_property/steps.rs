//! What owners do with what is their own.

use std::{collections::BTreeMap, time::Duration};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{
    person::{Link, MOST, PRICE, Person, Progress},
    service::{REPLICAS, Setting},
    upstream,
};
use crate::common::{browser::Browser, secrets};

/// What a person answers to a question (MCP, "Elicitation").
pub const ACCEPT: &str = "accept";
const DECLINE: &str = "decline";

impl Person {
    /// Signs in, unless that is so.
    pub async fn be_signed_in(&mut self, setting: &Setting) {
        if !self.signed_in {
            self.sign_in(setting).await;
        }
    }

    /// Returns the id of a key, which is made if there is none.
    pub async fn have_key(&mut self, setting: &Setting) -> String {
        self.be_signed_in(setting).await;
        match self.keys.first_key_value() {
            Some((id, _)) => id.clone(),
            None => self.create_key(setting).await,
        }
    }

    /// Makes a call that leads to a page, whose link this person has then.
    async fn be_shown_page(&mut self, setting: &Setting) {
        let question = self.asked(setting, "list_models", json!({})).await;
        let url = question["url"].as_str().unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{question}");
        if self.links.last().is_none_or(|link| link.url != url) {
            self.links.push(Link { url, replica: self.replica });
        }
    }

    pub async fn leave_sign_in_pending(&mut self, setting: &Setting) {
        if self.signed_in {
            self.sign_out(setting).await;
        }
        self.be_shown_page(setting).await;
        setting.effects.count("left a sign-in pending");
    }

    pub async fn sign_in(&mut self, setting: &Setting) {
        if self.signed_in {
            let told = self.ok(setting, "login", json!({})).await;
            assert_eq!(
                (&told["status"], &told["account"]),
                (&json!("signed_in"), &json!(self.email)),
                "{told}"
            );
            return;
        }
        self.be_shown_page(setting).await;
        let round = self.rounds.len() - 1;
        let browser = Browser::open(&self.links.last().unwrap().url).await;
        let page = browser.post("sign-in", &self.form()).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK, "{}", self.name);
        self.seen += &page.text().await.unwrap();
        self.signed_in = true;
        let answer = self.answer(setting, round, ACCEPT).await;
        self.assert_models(&answer["result"]["structuredContent"]);
        setting.effects.count("signed in on a page");
    }

    /// What the person types on a sign-in page.
    pub fn form(&self) -> [(&'static str, &str); 3] {
        [("email", &self.email), ("password", secrets::text(&self.password)), ("remember", "yes")]
    }

    pub async fn sign_out(&mut self, setting: &Setting) {
        self.ok(setting, "logout", json!({})).await;
        if self.signed_in {
            setting.effects.count("signed out");
        }
        self.signed_in = false;
    }

    pub async fn list_models(&mut self, setting: &Setting) {
        if self.signed_in {
            let listed = self.ok(setting, "list_models", json!({"refresh": true})).await;
            self.assert_models(&listed);
            setting.effects.count("listed the models");
        } else {
            self.asked(setting, "list_models", json!({})).await;
        }
    }

    /// Reads what can be read without billing, and compares it.
    pub async fn read_everything(&mut self, setting: &Setting) {
        let status = self.ok(setting, "auth_status", json!({})).await;
        assert_eq!(status["signed_in"], self.signed_in, "{}: {status}", self.name);
        if self.signed_in {
            assert_eq!(status["email"], self.email);
        }
        self.assert_plan(&status);
        let here = self.spent[self.replica].cents;
        self.assert_spent(here, status["spent"]["total_usd"].as_f64().unwrap(), "in the status");
        let mut contents = BTreeMap::new();
        for uri in ["bondmcp://account", "bondmcp://usage", "bondmcp://models"] {
            let answer = self.ask(setting, "resources/read", json!({"uri": uri}), &[]).await;
            let content = answer["result"]["contents"][0]["text"].as_str();
            contents.insert(uri, content.map(|text| serde_json::from_str::<Value>(text).unwrap()));
        }
        let usage = contents["bondmcp://usage"].as_ref().unwrap();
        self.assert_spent(here, usage["spent"]["total_usd"].as_f64().unwrap(), "as the usage");
        self.assert_spent_today(setting, &usage["spent"]["today"]);
        match &contents["bondmcp://models"] {
            Some(models) => {
                assert!(self.signed_in, "{models}");
                self.assert_models(models);
            }
            None => assert!(!self.signed_in, "{}", self.name),
        }
        if self.signed_in {
            let list = self.ok(setting, "manage_api_keys", json!({"action": "list"})).await;
            let listed = list["keys"].as_array().unwrap().iter();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let listed = listed.map(|key| (text(&key["id"]), text(&key["name"])));
            self.assert_keys(&listed.collect());
        }
    }

    /// Makes a key; returns its id.
    pub async fn create_key(&mut self, setting: &Setting) -> String {
        self.be_signed_in(setting).await;
        let name = self.new_key_name();
        let made = self.ok(setting, "manage_api_keys", json!({"action": "create", "name": name})).await;
        let id = made["keys"][0]["id"].as_str().unwrap().to_owned();
        self.keys.insert(id.clone(), name);
        setting.effects.count("made a key");
        id
    }

    fn new_key_name(&mut self) -> String {
        self.made += 1;
        format!("key-{}-of-{}", self.made, self.name)
    }

    /// Makes calls with a key, or with the session again, and sees that they are still those of this owner.
    pub async fn use_key(&mut self, setting: &Setting, is_key: bool) {
        self.have_key(setting).await;
        let id = self.keys.last_key_value().unwrap().0.clone();
        let with = if is_key { json!({"action": "use", "key_id": id}) } else { json!({"action": "use"}) };
        self.ok(setting, "manage_api_keys", with).await;
        self.ok(setting, "manage_api_keys", json!({"action": "usage", "key_id": id})).await;
        self.list_models(setting).await;
        self.analyze(setting).await;
        setting.effects.count(if is_key { "used a key" } else { "used the session again" });
    }

    /// Asks to `revoke` or `rotate` a key; without an answer the question stays open.
    pub async fn end_key(&mut self, setting: &Setting, action: &str, agrees: Option<bool>) {
        let id = self.have_key(setting).await;
        let round = self.ask_to_end(setting, action, &id).await;
        if let Some(agrees) = agrees {
            self.decide(setting, round, agrees).await;
        }
        setting.effects.count(match (action, agrees) {
            ("revoke", Some(true)) => "revoked a key",
            ("revoke", Some(false)) => "declined to revoke a key",
            ("revoke", None) => "left open whether to revoke a key",
            (_, Some(true)) => "rotated a key",
            (_, Some(false)) => "declined to rotate a key",
            (_, None) => "left open whether to rotate a key",
        });
    }

    /// Returns the round in which this person is asked whether to end a key.
    async fn ask_to_end(&mut self, setting: &Setting, action: &str, id: &str) -> usize {
        self.asked(setting, "manage_api_keys", json!({"action": action, "key_id": id})).await;
        self.rounds.len() - 1
    }

    /// Answers whether to end a key, which may have ended since. Returns whether it ends now.
    pub async fn decide(&mut self, setting: &Setting, round: usize, agrees: bool) -> bool {
        let arguments = self.rounds[round].arguments.clone();
        let id = arguments["key_id"].as_str().unwrap();
        let answer = self.answer(setting, round, if agrees { ACCEPT } else { DECLINE }).await;
        let ending = self.keys.get(id).cloned().filter(|_| agrees);
        assert_eq!(answer["result"]["isError"], ending.is_none(), "{}: {answer}", self.name);
        let Some(name) = ending else { return false };
        self.keys.remove(id);
        self.gone.insert(id.to_owned());
        if arguments["action"] == "rotate" {
            let key = &answer["result"]["structuredContent"]["keys"][0];
            assert_eq!(key["name"], name, "{}: {answer}", self.name);
            self.keys.insert(key["id"].as_str().unwrap().to_owned(), name);
        }
        true
    }

    pub async fn analyze(&mut self, setting: &Setting) {
        self.be_signed_in(setting).await;
        let asked = json!({"prompt": format!("I am {}", self.name), "analysis_type": "general"});
        let told = self.ok(setting, "health_analyze", asked).await;
        self.assert_made_by_own_model(&told);
        self.spent[self.replica].add(PRICE, PRICE);
        setting.effects.count("analyzed");
    }

    pub fn assert_made_by_own_model(&self, told: &Value) {
        assert!(told.to_string().contains(&upstream::model(&self.email)), "{}: {told}", self.name);
    }

    pub async fn cancel_listing(&mut self, setting: &Setting, after: u8) {
        self.be_signed_in(setting).await;
        if self.leave(setting, "list_models", json!({"refresh": true}), after).await {
            setting.effects.count("left a listing");
        }
    }

    pub async fn cancel_billed(&mut self, setting: &Setting, after: u8) {
        self.be_signed_in(setting).await;
        let asked = json!({"prompt": "Why?", "analysis_type": "general"});
        if self.leave(setting, "health_analyze", asked, after).await {
            self.spent[self.replica].add(0, MOST);
            setting.effects.count("left a billed call");
        } else {
            self.spent[self.replica].add(PRICE, PRICE);
        }
    }

    pub async fn cancel_creation(&mut self, setting: &Setting, after: u8) {
        self.be_signed_in(setting).await;
        let name = self.new_key_name();
        self.left_keys.insert(name.clone());
        if self.leave(setting, "manage_api_keys", json!({"action": "create", "name": name}), after).await {
            setting.effects.count("left the making of a key");
        }
    }

    /// Leaves while the answer to a question is dealt with: to end a key, or to sign in.
    pub async fn cancel_round(&mut self, setting: &Setting, after: u8) {
        if self.signed_in {
            self.cancel_confirmation(setting, after).await;
        } else {
            self.cancel_sign_in(setting, after).await;
        }
    }

    /// The key is one that no call is made with: it may end at any time.
    async fn cancel_confirmation(&mut self, setting: &Setting, after: u8) {
        let id = self.create_key(setting).await;
        let action = if after.is_multiple_of(2) { "revoke" } else { "rotate" };
        let at = self.ask_to_end(setting, action, &id).await;
        self.left_keys.extend(self.keys.remove(&id));
        self.gone.insert(id);
        self.rounds[at].progress = Progress::Left;
        let (round, left) = (self.rounds[at].clone(), self.leaves_at(setting, after / 2));
        tokio::select! {
            biased;
            () = left => setting.effects.count("left a confirmation"),
            _ = self.go_on(setting, &round, ACCEPT, &[]) => {}
        }
    }

    /// The page stays good.
    async fn cancel_sign_in(&mut self, setting: &Setting, after: u8) {
        self.be_shown_page(setting).await;
        let round = self.rounds.last_mut().unwrap();
        round.progress = Progress::Left;
        let round = round.clone();
        let waiting = self.go_on(setting, &round, ACCEPT, &[]);
        if tokio::time::timeout(Duration::from_micros(u64::from(after) * 100), waiting).await.is_err() {
            setting.effects.count("left a sign-in");
        }
        self.sign_in(setting).await;
    }

    /// Makes a call and leaves before the answer; returns whether there was none before.
    async fn leave(&mut self, setting: &Setting, tool: &str, arguments: Value, after: u8) -> bool {
        let (params, left) = (json!({"name": tool, "arguments": arguments}), self.leaves_at(setting, after));
        tokio::select! {
            biased;
            () = left => true,
            _ = self.ask(setting, "tools/call", params, &[]) => false,
        }
    }

    /// Ends when the first or the second request of a call has arrived at BondMCP.
    fn leaves_at(&self, setting: &Setting, after: u8) -> impl Future<Output = ()> + use<> {
        setting.upstream.arrived(&self.email, 1 + u64::from(after % 2))
    }

    pub async fn change_replica(&mut self, setting: &Setting) {
        self.replica = (self.replica + 1) % REPLICAS;
        self.read_everything(setting).await;
        setting.effects.count("changed the replica");
    }

    /// Answers a question that is open although its state was tried in another way.
    pub async fn answer_tried(&mut self, setting: &Setting) {
        self.be_signed_in(setting).await;
        if self.tried(setting).is_none() {
            self.forge_state(setting, 0).await;
        }
        let round = self.tried(setting).unwrap();
        if self.rounds[round].tool == "list_models" {
            let answer = self.answer(setting, round, ACCEPT).await;
            self.assert_models(&answer["result"]["structuredContent"]);
            setting.effects.count("answered a sign-in whose state was tried");
        } else if self.decide(setting, round, true).await {
            setting.effects.count("answered a confirmation whose state was tried");
        }
    }

    /// Returns the oldest open round whose state was tried.
    fn tried(&self, setting: &Setting) -> Option<usize> {
        let tried = setting.tried.lock();
        let mut rounds = self.rounds.iter();
        rounds.position(|round| round.progress == Progress::Open && tried.contains(&round.state))
    }
}
