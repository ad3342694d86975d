//! An owner: what they know of themselves, what came back to them, and how they ask.

use std::collections::{BTreeMap, BTreeSet};

use bondmcp_server::{account::Owner, secret::SecretString};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    service::{REPLICAS, Setting},
    upstream,
};
use crate::common::random_password;

/// Price of `health_analyze` in cents.
pub const PRICE: u32 = 5;

/// What a call of it counts as, in cents, if its answer was lost.
pub const MOST: u32 = 8;

/// What each owner may spend in a day, in dollars: more than they can in one run.
pub const DAILY_LIMIT: f64 = 10.0;

/// What was spent at a replica.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    /// Least and most, in cents; they differ after calls that were left.
    pub cents: (u32, u32),
    pub calls: u32,
}

/// A question to the person, as the host got it.
#[derive(Clone)]
pub struct Round {
    pub tool: &'static str,
    pub arguments: Value,
    pub state: String,
    pub progress: Progress,
}

/// How far a question is.
#[derive(Clone, Copy, PartialEq)]
pub enum Progress {
    Open,
    Answered,
    /// The answer was sent, and nobody knows whether it arrived.
    Left,
}

/// A link to a sign-in page.
#[derive(Clone)]
pub struct Link {
    pub url: String,
    /// The replica that serves the page.
    pub replica: usize,
}

/// What another owner somehow got to know.
pub struct Shown {
    pub password: SecretString,
    /// Id and name of a key.
    pub key: Option<(String, String)>,
    /// What was issued last.
    pub last_token: Option<String>,
    pub last_key: Option<String>,
    pub rounds: Vec<Round>,
    pub link: Option<Link>,
}

/// An owner.
pub struct Person {
    pub name: String,
    pub email: String,
    pub password: SecretString,
    /// Requests a minute, as BondMCP tells this owner alone.
    limit: u64,
    /// Which replica answers.
    pub replica: usize,
    pub signed_in: bool,
    /// Names of the keys by id.
    pub keys: BTreeMap<String, String>,
    /// Names of keys whose creation or end was left, so that there may be one.
    pub left_keys: BTreeSet<String>,
    pub spent: [Spent; REPLICAS],
    pub rounds: Vec<Round>,
    pub links: Vec<Link>,
    /// Ids of keys that were revoked, or may have been.
    pub gone: BTreeSet<String>,
    /// Ids of others' keys that this owner named, whereupon the audit log has them.
    pub named: BTreeSet<String>,
    /// Everything that came back, without what another owner had shown and this one sent.
    pub seen: String,
    pub made: usize,
}

impl Spent {
    pub fn add(&mut self, least: u32, most: u32) {
        self.cents = (self.cents.0 + least, self.cents.1 + most);
        self.calls += 1;
    }
}

impl Person {
    pub fn new(number: usize) -> Self {
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

    pub fn owner(&self) -> Owner {
        Owner::Subject(self.name.clone())
    }

    pub fn account(&self) -> upstream::Account {
        upstream::Account::new(self.password.clone(), self.limit)
    }

    pub fn token(&self) -> String {
        format!("the-token-of-{}", self.name)
    }

    pub fn host(&self) -> String {
        format!("host-of-{}", self.name)
    }

    pub fn shown(&self, setting: &Setting) -> Shown {
        let key = self.keys.iter().next().map(|(id, name)| (id.clone(), name.clone()));
        let (password, rounds) = (self.password.clone(), self.rounds.clone());
        let upstream::Issued { mut tokens, mut keys } = setting.upstream.issued(&self.email);
        let (last_token, last_key) = (tokens.pop(), keys.pop());
        Shown { password, key, last_token, last_key, rounds, link: self.links.last().cloned() }
    }

    /// Everything that only this owner may get.
    pub fn canaries(&self) -> Vec<String> {
        let (model, plan) = (upstream::model(&self.email), upstream::plan(&self.email));
        let own = [self.name.clone(), self.email.clone(), model, plan];
        let keys = self.keys.iter().flat_map(|(id, name)| [id.clone(), name.clone()]);
        let states = self.rounds.iter().map(|round| round.state.clone());
        let links = self.links.iter().map(|link| link.url.clone());
        own.into_iter().chain(keys).chain(self.gone.clone()).chain(states).chain(links).collect()
    }

    pub fn has_or_had(&self, key: &str) -> bool {
        self.keys.contains_key(key) || self.gone.contains(key)
    }

    /// There are the keys that this owner has made and not ended, and perhaps those whose creation or end was left.
    pub fn assert_keys(&self, found: &BTreeMap<String, String>) {
        let (known, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.clone().into_iter().partition(|(id, _)| self.keys.contains_key(id));
        assert_eq!(known, self.keys, "{}", self.name);
        assert!(others.values().all(|name| self.left_keys.contains(name)), "{}: {others:?}", self.name);
    }

    /// What was spent at all replicas, in cents.
    pub fn everywhere(&self) -> (u32, u32) {
        let sum = |of: fn(&Spent) -> u32| self.spent.iter().map(of).sum();
        (sum(|spent| spent.cents.0), sum(|spent| spent.cents.1))
    }

    pub fn assert_spent(&self, cents: (u32, u32), usd: f64, place: &str) {
        let (least, most) = (f64::from(cents.0) / 100.0, f64::from(cents.1) / 100.0);
        let fits = (least - 0.001..=most + 0.001).contains(&usd);
        assert!(fits, "{} spent {least} to {most}, and not {usd} as {place}", self.name);
    }

    /// The plan and the limit are this owner's own. An answer without them came too late.
    pub fn assert_plan(&self, status: &Value) {
        let (plan, limit) = (&status["plan"]["plan"], &status["rate_limit"]["limit"]);
        assert!(plan.is_null() || *plan == upstream::plan(&self.email), "{}: {status}", self.name);
        assert!(limit.is_null() || *limit == self.limit, "{}: {status}", self.name);
    }

    /// What is left of the daily limit follows from what this owner has spent, unless a new day (UTC) has begun. The
    /// other replica may not have told the price of a call yet.
    pub fn assert_spent_today(&self, setting: &Setting, today: &Value) {
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
    pub async fn ask(&mut self, setting: &Setting, method: &str, params: Value, sent: &[&str]) -> Value {
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
    pub async fn ok(&mut self, setting: &Setting, tool: &str, arguments: Value) -> Value {
        let mut answer = self.call(setting, tool, arguments).await;
        assert_eq!(answer["result"]["isError"], false, "{}: {answer}", self.name);
        answer["result"]["structuredContent"].take()
    }

    /// Makes a call that is answered by a question; returns the question.
    pub async fn asked(&mut self, setting: &Setting, tool: &'static str, arguments: Value) -> Value {
        let answer = self.call(setting, tool, arguments.clone()).await;
        assert_eq!(answer["result"]["resultType"], "input_required", "{}: {answer}", self.name);
        let state = answer["result"]["requestState"].as_str().unwrap().to_owned();
        self.rounds.push(Round { tool, arguments, state, progress: Progress::Open });
        answer["result"]["inputRequests"]["person"]["params"].clone()
    }

    /// Goes on with a call, as if the person had answered so.
    pub async fn go_on(&mut self, setting: &Setting, round: &Round, answer: &str, sent: &[&str]) -> Value {
        let person = json!({"person": {"action": answer, "content": {"confirm": true}}});
        let params = json!({"name": round.tool, "arguments": round.arguments, "requestState": round.state,
            "inputResponses": person});
        self.ask(setting, "tools/call", params, sent).await
    }

    /// Answers the question of a round.
    pub async fn answer(&mut self, setting: &Setting, round: usize, answer: &str) -> Value {
        self.rounds[round].progress = Progress::Answered;
        let round = self.rounds[round].clone();
        self.go_on(setting, &round, answer, &[]).await
    }

    /// Returns the rounds whose questions nobody has answered.
    pub fn open_rounds(&self) -> Vec<Round> {
        self.rounds.iter().filter(|round| round.progress == Progress::Open).cloned().collect()
    }

    pub fn assert_models(&self, result: &Value) {
        let models = result["models"].as_array().unwrap();
        let own = upstream::model(&self.email);
        let ids: Vec<_> = models.iter().filter_map(|model| model["id"].as_str()).collect();
        assert_eq!((ids.len(), ids.last()), (4, Some(&own.as_str())), "{}: {result}", self.name);
        // BondMCP quoted their own secrets.
        assert!(models[3]["name"].as_str().unwrap().contains("[redacted]"), "{result}");
    }
}
