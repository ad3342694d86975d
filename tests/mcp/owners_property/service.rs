//! Two replicas of a server for several owners, and the owners: what they do, what they know of themselves and what came back to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use bondmcp_server::{
    account::{Accounts, Owner, RequiredCredential, Usd},
    listener::Workers,
    mcp::{BondMcp, Limits, Selection},
    sandbox::{Plan, RunningSandbox},
    secret::SecretString,
    sign_in::Options,
    transport::http::{self, Authentication, Protection},
};
use chrono::{DateTime, NaiveDate, Utc};
use parking_lot::Mutex;
use reqwest::{RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    OWNERS,
    effects::Effects,
    upstream::{self, Upstream},
};
use crate::common::{Place, accounts_in, browser::Browser, like_the_seed, random_password, sandbox, secrets};

/// Price of `health_analyze` in cents.
const PRICE: u32 = 5;

/// What a call of it counts as, in cents, if its answer was lost.
const MOST: u32 = 8;

/// What each owner may spend in a day, in dollars: more than they can in one run.
const DAILY_LIMIT: f64 = 10.0;

/// Number of replicas.
const REPLICAS: usize = 2;

/// Most keys of one owner: below the sandbox's limit.
const MAX_KEYS: usize = 3;

/// What a person answers to a question (MCP, "Elicitation").
const ACCEPT: &str = "accept";
const DECLINE: &str = "decline";

/// JSON-RPC: invalid parameters.
const INVALID: i64 = -32602;

pub struct Service {
    pub setting: Setting,
    pub people: Vec<Person>,
}

/// What the owners share.
pub struct Setting {
    replicas: Vec<Replica>,
    sandbox: RunningSandbox,
    place: Place,
    stopping: CancellationToken,
    http: reqwest::Client,
    /// The day after that on which the service began.
    next_day: NaiveDate,
    effects: Effects,
    /// States that somebody else has sent, or that were sent altered.
    attacked: Mutex<BTreeSet<String>>,
}

/// A server with memory of its own. The vault is that of all replicas.
struct Replica {
    address: SocketAddr,
    accounts: Accounts,
}

/// What was spent at a replica.
#[derive(Clone, Copy, Default)]
struct Spent {
    /// Least and most, in cents; they differ after calls that were left.
    cents: (u32, u32),
    calls: u32,
}

/// A question to the person, as the host got it.
#[derive(Clone)]
struct Round {
    tool: &'static str,
    arguments: Value,
    state: String,
    is_used: bool,
    /// Whether it is about a key that is there, asked by the one who is signed in.
    is_about_own_key: bool,
}

/// What another owner somehow got to know.
pub struct Shown {
    password: SecretString,
    key: Option<(String, String)>,
    rounds: Vec<Round>,
    link: Option<String>,
}

/// An owner.
pub struct Person {
    name: String,
    email: String,
    password: SecretString,
    /// Requests a minute, as BondMCP tells this owner alone.
    limit: u64,
    /// Which replica answers.
    replica: usize,
    signed_in: bool,
    /// Names of the keys by id.
    keys: BTreeMap<String, String>,
    /// Names of keys whose creation was left, so that there may be one.
    left_keys: BTreeSet<String>,
    spent: [Spent; REPLICAS],
    rounds: Vec<Round>,
    links: Vec<String>,
    /// Ids of keys that were revoked.
    gone: BTreeSet<String>,
    /// Ids of others' keys that this owner named, whereupon the audit log has them.
    named: BTreeSet<String>,
    /// Everything that came back, without what another owner had shown and this one sent.
    seen: String,
    made: usize,
}

impl Service {
    pub async fn start(vault: Option<&str>, effects: &Effects) -> Self {
        let next_day = Utc::now().date_naive().succ_opt().unwrap();
        let sandbox = sandbox(like_the_seed()).await;
        let people: Vec<_> = (0..OWNERS).map(Person::new).collect();
        for person in &people {
            sandbox.add_account(&person.email, &person.password, Plan::Unlimited, true);
        }
        let mut place = Place::new(&sandbox);
        let accounts = people.iter().map(|person| (person.email.clone(), person.account()));
        place.base_url = Upstream::start(&sandbox, accounts.collect()).await;
        let (stopping, mut replicas) = (CancellationToken::new(), vec![]);
        for _ in 0..REPLICAS {
            replicas.push(Replica::start(&place, vault, &people, &stopping).await);
        }
        let http = reqwest::Client::new();
        let effects = effects.clone();
        let attacked = Mutex::default();
        let setting = Setting { replicas, sandbox, place, stopping, http, next_day, effects, attacked };
        Self { setting, people }
    }

    /// Ends the service and compares what each owner got with what the others have.
    pub async fn finish(mut self) {
        for person in &mut self.people {
            person.read_everything(&self.setting).await;
        }
        let Self { setting, people } = self;
        for other in &people {
            let secrets = other.secrets(&setting.replicas).await;
            for person in people.iter().filter(|person| person.name != other.name) {
                for replica in &setting.replicas {
                    let theirs = replica.accounts.open(&person.owner());
                    for guess in secrets.iter().map(secrets::text) {
                        assert_eq!(theirs.redactor().redact(guess), guess, "{} learns a secret", person.name);
                    }
                }
            }
        }
        for person in &people {
            person.assert_keys(&setting.sandbox.live_keys(&person.email).into_iter().collect());
        }
        setting.stopping.cancel();
        for replica in &setting.replicas {
            replica.accounts.close().await;
        }
        let entries = setting.replicas[0].accounts.audit_reader().read().unwrap();
        for (person, other) in pairs(&people) {
            for canary in other.canaries() {
                let found = person.seen.find(&canary).map(|at| around(&person.seen, at));
                assert_eq!(found, None, "{canary} of {} at {}", other.name, person.name);
            }
            for entry in entries.iter().filter(|entry| entry.owner == person.owner().audit_name()) {
                assert_eq!(entry.host.as_deref(), Some(person.host().as_str()), "{entry:?}");
                let key = entry.key_id.as_ref();
                assert!(
                    !key.is_some_and(|key| other.has_or_had(key)) || person.named.contains(key.unwrap()),
                    "{entry:?}"
                );
            }
        }
        for person in &people {
            let theirs = entries.iter().filter(|entry| entry.owner == person.owner().audit_name());
            let cost = theirs.filter_map(|entry| entry.cost).sum();
            person.assert_spent(person.everywhere(), cost, "in the audit log");
        }
        let known = people.iter().map(|person| person.owner().audit_name()).collect::<BTreeSet<_>>();
        assert!(entries.iter().all(|entry| known.contains(&entry.owner)), "{entries:?}");
        let mut planted = setting.sandbox.secrets_issued();
        planted.extend(people.iter().map(|person| person.password.clone()));
        planted.push(setting.place.sealing_key.clone());
        for person in &people {
            secrets::assert_absent(&planted, person.seen.as_bytes(), &person.name);
        }
    }
}

fn pairs(people: &[Person]) -> impl Iterator<Item = (&Person, &Person)> {
    let all = people.iter().flat_map(|person| people.iter().map(move |other| (person, other)));
    all.filter(|(person, other)| person.name != other.name)
}

fn around(text: &str, at: usize) -> &str {
    let start = (0..=at.saturating_sub(200)).rev().find(|at| text.is_char_boundary(*at)).unwrap();
    &text[start..at]
}

impl Replica {
    async fn start(
        place: &Place,
        vault: Option<&str>,
        people: &[Person],
        stopping: &CancellationToken,
    ) -> Self {
        let (accounts, _) = accounts_in(place, vault);
        let (page, selection) = (Some(Options::default()), Selection::default());
        let limits = Limits { daily_spend: Some(Usd::from_f64(DAILY_LIMIT)), ..Limits::default() };
        let server = BondMcp::new(accounts.clone(), page, &selection, limits, stopping.clone()).unwrap();
        let tokens = people.iter().map(|person| (person.token().into(), person.owner())).collect();
        let protection = Protection::new(Authentication::Tokens(tokens));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::serve(
            listener,
            http::router(&server, protection, stopping),
            Workers::current(),
            stopping.clone(),
        ));
        Self { address, accounts }
    }
}

impl Spent {
    fn add(&mut self, least: u32, most: u32) {
        self.cents = (self.cents.0 + least, self.cents.1 + most);
        self.calls += 1;
    }
}

impl Setting {
    pub fn expire_tokens(&self) {
        self.sandbox.expire_tokens();
    }

    /// A request of 2026-07-28 by a host that can show forms and links. All owners' requests have the same id.
    fn request(&self, person: &Person, method: &str, mut params: Value) -> RequestBuilder {
        let meta = &mut params["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {"form": {}, "url": {}}});
        meta["io.modelcontextprotocol/clientInfo"] = json!({"name": person.host(), "version": "1"});
        let what = params.get("name").or(params.get("uri")).and_then(Value::as_str).map(ToOwned::to_owned);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self
            .http
            .post(format!("http://{}/mcp", self.replicas[person.replica].address))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
            .bearer_auth(person.token())
            .body(body.to_string());
        match what {
            Some(what) => request.header("mcp-name", what),
            None => request,
        }
    }
}

impl Person {
    fn new(number: usize) -> Self {
        let name = format!("{}-{}", ["ada", "grace", "eve"][number], uuid::Uuid::new_v4().simple());
        Self {
            email: format!("mail-of-{name}@example.com"),
            name,
            password: random_password(),
            limit: 1_000_000 + u64::try_from(number).unwrap(),
            replica: number % REPLICAS,
            signed_in: false,
            keys: BTreeMap::new(),
            left_keys: BTreeSet::new(),
            spent: Default::default(),
            rounds: vec![],
            links: vec![],
            gone: BTreeSet::new(),
            named: BTreeSet::new(),
            seen: String::new(),
            made: 0,
        }
    }

    fn owner(&self) -> Owner {
        Owner::Subject(self.name.clone())
    }

    fn account(&self) -> upstream::Account {
        upstream::Account { password: self.password.clone(), limit: self.limit }
    }

    fn token(&self) -> String {
        format!("the-token-of-{}", self.name)
    }

    fn host(&self) -> String {
        format!("host-of-{}", self.name)
    }

    pub fn shown(&self) -> Shown {
        let key = self.keys.iter().next().map(|(id, name)| (id.clone(), name.clone()));
        let (password, rounds) = (self.password.clone(), self.rounds.clone());
        Shown { password, key, rounds, link: self.links.last().cloned() }
    }

    /// Everything that only this owner may get.
    fn canaries(&self) -> Vec<String> {
        let (model, plan) = (upstream::model(&self.email), upstream::plan(&self.email));
        let own = [self.name.clone(), self.email.clone(), model, plan];
        let keys = self.keys.iter().flat_map(|(id, name)| [id.clone(), name.clone()]);
        let states = self.rounds.iter().map(|round| round.state.clone());
        own.into_iter().chain(keys).chain(self.gone.clone()).chain(states).chain(self.links.clone()).collect()
    }

    /// The secrets that the redactor looks for in what this owner gets.
    async fn secrets(&self, replicas: &[Replica]) -> Vec<SecretString> {
        let account = replicas[self.replica].accounts.open(&self.owner());
        let mut secrets = vec![self.password.clone()];
        for id in self.keys.keys() {
            let key = account.key_secret(id).await.unwrap();
            // With its prefix it looks like a key, and is redacted for everybody.
            secrets.push(secrets::text(&key).strip_prefix("bcp_").unwrap().into());
        }
        if self.signed_in {
            let token = account.bearer(RequiredCredential::Session).await.unwrap().secret;
            // Its header is that of all tokens.
            secrets.push(secrets::text(&token).rsplit('.').next().unwrap().into());
        }
        // The password of somebody who has signed out is not stored.
        for secret in secrets.iter().skip(usize::from(!self.signed_in)) {
            let text = secrets::text(secret);
            assert_ne!(account.redactor().redact(text), text, "{}", self.name);
        }
        secrets
    }

    fn has_or_had(&self, key: &str) -> bool {
        self.keys.contains_key(key) || self.gone.contains(key)
    }

    /// There are the keys that this owner has made and not ended, and perhaps those whose creation was left.
    fn assert_keys(&self, found: &BTreeMap<String, String>) {
        let (known, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.clone().into_iter().partition(|(id, _)| self.keys.contains_key(id));
        assert_eq!(known, self.keys, "{}", self.name);
        assert!(others.values().all(|name| self.left_keys.contains(name)), "{}: {others:?}", self.name);
    }

    /// What was spent at all replicas, in cents.
    fn everywhere(&self) -> (u32, u32) {
        let sum = |of: fn(&Spent) -> u32| self.spent.iter().map(of).sum();
        (sum(|spent| spent.cents.0), sum(|spent| spent.cents.1))
    }

    fn assert_spent(&self, cents: (u32, u32), usd: f64, place: &str) {
        let (least, most) = (f64::from(cents.0) / 100.0, f64::from(cents.1) / 100.0);
        let fits = (least - 0.001..=most + 0.001).contains(&usd);
        assert!(fits, "{} spent {least} to {most}, and not {usd} as {place}", self.name);
    }

    /// The plan and the limit are this owner's own. An answer without them came too late.
    fn assert_plan(&self, status: &Value) {
        let (plan, limit) = (&status["plan"]["plan"], &status["rate_limit"]["limit"]);
        assert!(plan.is_null() || *plan == upstream::plan(&self.email), "{}: {status}", self.name);
        assert!(limit.is_null() || *limit == self.limit, "{}: {status}", self.name);
    }

    /// What is left of the daily limit follows from what this owner has spent, unless a new day (UTC) has begun. The
    /// other replica may not have told the price of a call yet.
    fn assert_spent_today(&self, setting: &Setting, today: &Value) {
        let resets_at: DateTime<Utc> = serde_json::from_value(today["resets_at"].clone()).unwrap();
        let days = [setting.next_day, setting.next_day.succ_opt().unwrap()];
        assert!(days.contains(&resets_at.date_naive()), "{}: {today}", self.name);
        if resets_at.date_naive() == setting.next_day {
            let (least, mut most) = self.everywhere();
            for (_, there) in self.spent.iter().enumerate().filter(|(at, _)| *at != self.replica) {
                most += there.calls * MOST - there.cents.1;
            }
            self.assert_spent((least, most), DAILY_LIMIT - today["left_usd"].as_f64().unwrap(), "today");
        }
    }

    /// Makes a request; returns the answer. `sent` is what was another's already; it may be quoted.
    async fn ask(&mut self, setting: &Setting, method: &str, params: Value, sent: &[&str]) -> Value {
        let response = setting.request(self, method, params).send().await.unwrap();
        let headers = format!("{:?}", response.headers());
        let text = response.text().await.unwrap();
        let answer = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let without = sent.iter().fold(headers + &text, |text, sent| text.replace(sent, ""));
        self.seen += &without;
        answer
    }

    async fn call(&mut self, setting: &Setting, tool: &str, arguments: Value) -> Value {
        self.ask(setting, "tools/call", json!({"name": tool, "arguments": arguments}), &[]).await
    }

    /// Makes a call that works; returns the structured result.
    async fn ok(&mut self, setting: &Setting, tool: &str, arguments: Value) -> Value {
        let mut answer = self.call(setting, tool, arguments).await;
        assert_eq!(answer["result"]["isError"], false, "{}: {answer}", self.name);
        answer["result"]["structuredContent"].take()
    }

    /// Makes a call that is answered by a question; returns the question.
    async fn asked(&mut self, setting: &Setting, tool: &'static str, arguments: Value) -> Value {
        let answer = self.call(setting, tool, arguments.clone()).await;
        assert_eq!(answer["result"]["resultType"], "input_required", "{}: {answer}", self.name);
        let state = answer["result"]["requestState"].as_str().unwrap().to_owned();
        let is_about_own_key = tool == "manage_api_keys";
        self.rounds.push(Round { tool, arguments, state, is_used: false, is_about_own_key });
        answer["result"]["inputRequests"]["person"]["params"].clone()
    }

    /// Goes on with a call, as if the person had answered so.
    async fn go_on(&mut self, setting: &Setting, round: &Round, answer: &str, sent: &[&str]) -> Value {
        let person = json!({"person": {"action": answer, "content": {"confirm": true}}});
        let params = json!({"name": round.tool, "arguments": round.arguments, "requestState": round.state,
            "inputResponses": person});
        self.ask(setting, "tools/call", params, sent).await
    }

    /// Goes on with the call that was asked about last.
    async fn answer_last(&mut self, setting: &Setting, answer: &str) -> Value {
        let round = self.rounds.last_mut().unwrap();
        round.is_used = true;
        let round = round.clone();
        self.go_on(setting, &round, answer, &[]).await
    }

    fn assert_models(&self, result: &Value) {
        let models = result["models"].as_array().unwrap();
        let own = upstream::model(&self.email);
        let ids: Vec<_> = models.iter().filter_map(|model| model["id"].as_str()).collect();
        assert_eq!((ids.len(), ids.last()), (4, Some(&own.as_str())), "{}: {result}", self.name);
        // BondMCP quoted their own secrets.
        assert!(models[3]["name"].as_str().unwrap().contains("[redacted]"), "{result}");
    }

    pub async fn leave_sign_in_pending(&mut self, setting: &Setting) {
        if self.signed_in {
            return self.list_models(setting).await;
        }
        let question = self.asked(setting, "list_models", json!({})).await;
        let link = question["url"].as_str().unwrap().to_owned();
        assert!(link.starts_with("http://127.0.0.1:"), "{question}");
        self.links.push(link);
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
        let question = self.asked(setting, "list_models", json!({})).await;
        let link = question["url"].as_str().unwrap().to_owned();
        let browser = Browser::open(&link).await;
        let fields = [
            ("email", self.email.as_str()),
            ("password", secrets::text(&self.password)),
            ("remember", "yes"),
        ];
        let page = browser.post("sign-in", &fields).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK, "{}", self.name);
        self.seen += &page.text().await.unwrap();
        self.links.push(link);
        self.signed_in = true;
        let answer = self.answer_last(setting, ACCEPT).await;
        self.assert_models(&answer["result"]["structuredContent"]);
    }

    pub async fn sign_out(&mut self, setting: &Setting) {
        self.ok(setting, "logout", json!({})).await;
        self.signed_in = false;
        self.rounds.iter_mut().for_each(|round| round.is_about_own_key = false);
    }

    pub async fn list_models(&mut self, setting: &Setting) {
        if self.signed_in {
            let listed = self.ok(setting, "list_models", json!({"refresh": true})).await;
            self.assert_models(&listed);
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

    /// Returns a name for another key, if this owner can make one.
    fn new_key_name(&mut self) -> Option<String> {
        let can_make = self.signed_in && self.keys.len() + self.left_keys.len() < MAX_KEYS;
        can_make.then(|| {
            self.made += 1;
            format!("key-{}-of-{}", self.made, self.name)
        })
    }

    pub async fn create_key(&mut self, setting: &Setting) {
        let Some(name) = self.new_key_name() else { return self.read_everything(setting).await };
        let made = self.ok(setting, "manage_api_keys", json!({"action": "create", "name": name})).await;
        let id = made["keys"][0]["id"].as_str().unwrap().to_owned();
        self.keys.insert(id, name);
    }

    /// Signs in and makes a key where there is none yet.
    async fn prepare_key(&mut self, setting: &Setting) {
        if !self.signed_in {
            self.sign_in(setting).await;
        }
        if self.keys.is_empty() {
            self.create_key(setting).await;
        }
    }

    /// Makes calls with a key, or with the session again, and sees that they are still those of this owner.
    pub async fn use_key(&mut self, setting: &Setting, is_key: bool) {
        self.prepare_key(setting).await;
        let Some((id, _)) = self.keys.last_key_value() else { return self.list_models(setting).await };
        let id = id.clone();
        let with = if is_key { json!({"action": "use", "key_id": id}) } else { json!({"action": "use"}) };
        self.ok(setting, "manage_api_keys", with).await;
        if is_key {
            setting.effects.note("a key was used");
        }
        self.ok(setting, "manage_api_keys", json!({"action": "usage", "key_id": id})).await;
        self.list_models(setting).await;
        self.analyze(setting).await;
    }

    pub async fn revoke_key(&mut self, setting: &Setting, agrees: Option<bool>) {
        self.end_key(setting, "revoke", agrees).await;
    }

    pub async fn rotate_key(&mut self, setting: &Setting, agrees: Option<bool>) {
        self.end_key(setting, "rotate", agrees).await;
    }

    /// Asks to end a key; without an answer the question stays open.
    async fn end_key(&mut self, setting: &Setting, action: &str, agrees: Option<bool>) {
        if !self.ask_to_end_key(setting, action).await {
            return;
        }
        match agrees {
            Some(true) => self.agree(setting, self.rounds.len() - 1).await,
            Some(false) => {
                let answer = self.answer_last(setting, DECLINE).await;
                assert_eq!(answer["result"]["isError"], true, "{}: {answer}", self.name);
                setting.effects.note("a question was declined");
            }
            None => {}
        }
    }

    /// Returns whether there is a key, and so a question.
    async fn ask_to_end_key(&mut self, setting: &Setting, action: &str) -> bool {
        self.prepare_key(setting).await;
        let Some((id, _)) = self.keys.first_key_value() else {
            self.list_models(setting).await;
            return false;
        };
        self.asked(setting, "manage_api_keys", json!({"action": action, "key_id": id})).await;
        true
    }

    pub async fn answer_later(&mut self, setting: &Setting) {
        let is_open = |round: &Round| round.is_about_own_key && !round.is_used;
        // One that others have tried to answer, if there is one.
        let was_attacked = |round: &Round| setting.attacked.lock().contains(&round.state);
        let attacked = self.rounds.iter().position(|round| is_open(round) && was_attacked(round));
        match attacked.or_else(|| self.rounds.iter().position(is_open)) {
            Some(at) => self.agree(setting, at).await,
            None => self.list_models(setting).await,
        }
    }

    /// Says yes to a question about a key.
    async fn agree(&mut self, setting: &Setting, at: usize) {
        self.rounds[at].is_used = true;
        let round = self.rounds[at].clone();
        let answer = self.go_on(setting, &round, ACCEPT, &[]).await;
        assert_eq!(answer["result"]["isError"], false, "{}: {answer}", self.name);
        if setting.attacked.lock().contains(&round.state) {
            setting.effects.note("a question was answered after others had tried to");
        }
        let name = self.end(&round);
        if round.arguments["action"] == "revoke" {
            setting.effects.note("a key was revoked");
            return;
        }
        let key = &answer["result"]["structuredContent"]["keys"][0];
        assert_eq!(key["name"], name, "{}: {answer}", self.name);
        self.keys.insert(key["id"].as_str().unwrap().to_owned(), name);
        setting.effects.note("a key was rotated");
    }

    /// The key that a question is about is no longer there; returns its name.
    fn end(&mut self, round: &Round) -> String {
        let id = round.arguments["key_id"].as_str().unwrap();
        let name = self.keys.remove(id).unwrap();
        self.gone.insert(id.to_owned());
        for other in self.rounds.iter_mut().filter(|other| other.arguments["key_id"] == id) {
            other.is_about_own_key = false;
        }
        name
    }

    pub async fn name_foreign_key(&mut self, setting: &Setting, shown: &Shown) {
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
        if self.signed_in {
            setting.effects.note("another's key was named");
        }
        for given in [id, name] {
            let complete = json!({"ref": {"type": "ref/resource", "uri": "bondmcp://keys/{key_id}"},
                "argument": {"name": "key_id", "value": &given[..3]}});
            self.ask(setting, "completion/complete", complete, &[]).await;
        }
    }

    pub async fn analyze(&mut self, setting: &Setting) {
        if !self.signed_in {
            return self.leave_sign_in_pending(setting).await;
        }
        let asked = json!({"prompt": format!("I am {}", self.name), "analysis_type": "general"});
        let told = self.ok(setting, "health_analyze", asked).await;
        self.assert_made_by_own_model(&told);
        self.spent[self.replica].add(PRICE, PRICE);
    }

    fn assert_made_by_own_model(&self, told: &Value) {
        assert!(told.to_string().contains(&upstream::model(&self.email)), "{}: {told}", self.name);
    }

    pub async fn guess_password(&mut self, setting: &Setting, shown: &Shown) {
        if !self.signed_in {
            return self.leave_sign_in_pending(setting).await;
        }
        let guess = secrets::text(&shown.password);
        let asked = json!({"prompt": format!("Is it <{guess}>?"), "analysis_type": "general"});
        let params = json!({"name": "health_analyze", "arguments": asked});
        let response = setting.request(self, "tools/call", params).send().await.unwrap();
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let told = &answer["result"]["structuredContent"];
        // Whether it is somebody's secret cannot be told from the answer.
        assert!(
            leaves(told).iter().any(|text| text.contains(&format!("<{guess}>"))),
            "{}: {answer}",
            self.name
        );
        self.assert_made_by_own_model(told);
        setting.effects.note("a password was guessed");
        self.spent[self.replica].add(PRICE, PRICE);
    }

    pub async fn forge_state(&mut self, setting: &Setting, how: u16) {
        let invented = || {
            let state = "a.state.that.nobody.made".to_owned();
            Round {
                tool: "list_models",
                arguments: json!({}),
                state,
                is_used: false,
                is_about_own_key: false,
            }
        };
        let mut forged = self.rounds.last().cloned().unwrap_or_else(invented);
        setting.attacked.lock().insert(forged.state.clone());
        let at = usize::from(how) % (forged.state.len() - 4);
        let other = if forged.state.as_bytes()[at] == b'A' { "B" } else { "A" };
        forged.state.replace_range(at..=at, other);
        let used = self.rounds.iter().filter(|round| round.is_used).cloned();
        for round in used.chain([forged]).collect::<Vec<_>>() {
            let answer = self.go_on(setting, &round, ACCEPT, &[]).await;
            assert_eq!(answer["error"]["code"], INVALID, "{}: {answer}", self.name);
            let effect =
                if round.is_used { "a used state was sent again" } else { "a forged state was sent" };
            setting.effects.note(effect);
        }
        let open: Vec<_> = self.rounds.iter().filter(|round| !round.is_used).cloned().collect();
        if let [.., one, other] = &open[..]
            && (one.tool, &one.arguments) != (other.tool, &other.arguments)
        {
            let swapped = Round { state: one.state.clone(), ..other.clone() };
            let answer = self.go_on(setting, &swapped, ACCEPT, &[]).await;
            assert_eq!(answer["error"]["code"], INVALID, "{}: {answer}", self.name);
            setting.effects.note("the state of another call was sent");
        }
    }

    pub async fn steal_state(&mut self, setting: &Setting, shown: &Shown) {
        let open = || shown.rounds.iter().filter(|round| !round.is_used);
        // What a confirmation would do is worse than what a sign-in would.
        let Some(round) =
            open().rfind(|round| round.tool == "manage_api_keys").or_else(|| open().next_back())
        else {
            return self.list_models(setting).await;
        };
        let key = round.arguments["key_id"].as_str();
        let sent: Vec<_> = key.into_iter().chain([round.state.as_str()]).collect();
        if let Some(key) = key {
            self.named.insert(key.to_owned());
        }
        let answer = self.go_on(setting, round, ACCEPT, &sent).await;
        assert_eq!(answer["error"]["code"], INVALID, "{}: {answer}", self.name);
        setting.attacked.lock().insert(round.state.clone());
        if key.is_some() && self.signed_in {
            setting.effects.note("another's confirmation was sent");
        }
    }

    pub async fn swap_link(&mut self, setting: &Setting, shown: &Shown) {
        let (Some(own), Some(theirs)) = (self.links.last(), &shown.link) else {
            return self.leave_sign_in_pending(setting).await;
        };
        let (mut page, theirs): (Url, Url) = (own.parse().unwrap(), theirs.parse().unwrap());
        page.set_path(theirs.path());
        let mut form = page.clone();
        form.path_segments_mut().unwrap().push("sign-in");
        let fields = [("email", self.email.as_str()), ("password", secrets::text(&self.password))];
        let form = setting.http.post(form).header("content-type", "application/x-www-form-urlencoded");
        let form =
            form.body(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish());
        for request in [setting.http.get(page), form] {
            // The page may have ended.
            if let Ok(page) = request.send().await {
                assert!(page.status().is_client_error(), "{}: {page:?}", self.name);
                self.seen += &page.text().await.unwrap();
                setting.effects.note("another's link was asked for");
            }
        }
    }

    pub async fn cancel_listing(&mut self, setting: &Setting, after: u8) {
        if self.signed_in {
            self.cancel(setting, "list_models", json!({"refresh": true}), after).await;
            setting.effects.note("a listing was left");
        } else {
            self.leave_sign_in_pending(setting).await;
        }
    }

    pub async fn cancel_billed(&mut self, setting: &Setting, after: u8) {
        if !self.signed_in {
            return self.leave_sign_in_pending(setting).await;
        }
        let asked = json!({"prompt": "Why?", "analysis_type": "general"});
        let answered = self.cancel(setting, "health_analyze", asked, after).await;
        setting.effects.note("a billed call was left");
        let (least, most) = if answered { (PRICE, PRICE) } else { (0, MOST) };
        self.spent[self.replica].add(least, most);
    }

    pub async fn cancel_creation(&mut self, setting: &Setting, after: u8) {
        let Some(name) = self.new_key_name() else { return self.list_models(setting).await };
        self.left_keys.insert(name.clone());
        self.cancel(setting, "manage_api_keys", json!({"action": "create", "name": name}), after).await;
        setting.effects.note("a creation was left");
    }

    /// The key may be revoked, or not.
    pub async fn cancel_revocation(&mut self, setting: &Setting, after: u8) {
        if !self.ask_to_end_key(setting, "revoke").await {
            return;
        }
        // The next call would fail with a key that is being revoked meanwhile.
        self.ok(setting, "manage_api_keys", json!({"action": "use"})).await;
        let round = self.rounds.last_mut().unwrap();
        round.is_used = true;
        let round = round.clone();
        let name = self.end(&round);
        self.left_keys.insert(name);
        let going_on = self.go_on(setting, &round, ACCEPT, &[]);
        let _ = tokio::time::timeout(leaving(after), going_on).await;
        setting.effects.note("a confirmed revocation was left");
    }

    pub async fn change_replica(&mut self, setting: &Setting) {
        self.replica = (self.replica + 1) % REPLICAS;
        self.read_everything(setting).await;
    }

    /// Makes a call and leaves after a moment; returns whether it was answered before.
    async fn cancel(&mut self, setting: &Setting, tool: &str, arguments: Value, after: u8) -> bool {
        let params = json!({"name": tool, "arguments": arguments});
        let call = self.ask(setting, "tools/call", params, &[]);
        tokio::time::timeout(leaving(after), call).await.is_ok()
    }
}

/// When somebody leaves.
fn leaving(after: u8) -> Duration {
    Duration::from_micros(u64::from(after) * 100)
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
