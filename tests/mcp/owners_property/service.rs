//! Two replicas of a server for several owners, and what is compared when all have taken their steps.

use std::{collections::BTreeSet, net::SocketAddr};

use bondmcp_server::{
    account::{Account, Accounts, Usd},
    listener::Workers,
    mcp::{BondMcp, Limits, Selection},
    sandbox::{Plan, RunningSandbox},
    sign_in::Options,
    transport::http::{self, Authentication, Protection},
};
use chrono::{NaiveDate, Utc};
use futures_util::future::join_all;
use parking_lot::Mutex;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    OWNERS,
    effects::Effects,
    person::{DAILY_LIMIT, Person},
    upstream::{Issued, Upstream},
};
use crate::common::{Place, accounts_in, like_the_seed, sandbox, secrets};

/// Number of replicas.
pub const REPLICAS: usize = 2;

pub struct Service {
    pub setting: Setting,
    pub people: Vec<Person>,
}

/// What the owners share.
pub struct Setting {
    replicas: Vec<Replica>,
    sandbox: RunningSandbox,
    pub upstream: Upstream,
    place: Place,
    stopping: CancellationToken,
    pub http: reqwest::Client,
    /// The day after that on which the service began.
    pub next_day: NaiveDate,
    pub effects: Effects,
    /// Request states that another owner sent, or that were sent altered or with another call.
    pub tried: Mutex<BTreeSet<String>>,
}

/// A server with memory of its own. The vault is that of all replicas.
struct Replica {
    address: SocketAddr,
    accounts: Accounts,
}

impl Service {
    pub async fn start(vault: Option<&str>, effects: Effects) -> Self {
        let next_day = Utc::now().date_naive().succ_opt().unwrap();
        let sandbox = sandbox(like_the_seed()).await;
        let people: Vec<_> = (0..OWNERS).map(Person::new).collect();
        for person in &people {
            sandbox.add_account(&person.email, &person.password, Plan::Unlimited, true);
        }
        let mut place = Place::new(&sandbox);
        let accounts = people.iter().map(|person| (person.email.clone(), person.account()));
        let upstream = Upstream::start(&sandbox, accounts.collect()).await;
        place.base_url = upstream.base_url();
        let (stopping, mut replicas) = (CancellationToken::new(), vec![]);
        for _ in 0..REPLICAS {
            replicas.push(Replica::start(&place, vault, &people, &stopping).await);
        }
        let (http, tried) = (reqwest::Client::new(), Mutex::default());
        let setting =
            Setting { replicas, sandbox, upstream, place, stopping, http, next_day, effects, tried };
        Self { setting, people }
    }

    /// Signs everybody in elsewhere, so that their pages stay open, and makes a key for each.
    pub async fn sign_everybody_in(&mut self) {
        let setting = &self.setting;
        join_all(self.people.iter_mut().map(|person| async {
            person.leave_sign_in_pending(setting).await;
            let account = setting.replicas[person.replica].accounts.open(&person.owner());
            account.sign_in(&person.email, person.password.clone(), true).await.unwrap();
            person.signed_in = true;
            person.create_key(setting).await;
        }))
        .await;
    }

    /// Refuses the tokens that all owners have.
    pub fn expire_tokens(&self) {
        self.setting.sandbox.expire_tokens();
        if self.people.iter().filter(|person| person.signed_in).count() > 1 {
            self.setting.effects.count("lost the tokens of several owners");
        }
    }

    /// Ends the service and compares what each owner got with what the others have.
    pub async fn finish(mut self) {
        for person in &mut self.people {
            person.read_everything(&self.setting).await;
        }
        let Self { setting, people } = self;
        for (person, other) in pairs(&people) {
            setting.assert_redaction_of(person, other);
        }
        for person in &people {
            setting.assert_own_redaction(person);
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

impl Setting {
    /// Redacts nothing of `other` in what `person` gets.
    fn assert_redaction_of(&self, person: &Person, other: &Person) {
        let Issued { tokens, keys } = self.upstream.issued(&other.email);
        let password = [secrets::text(&other.password).to_owned()];
        for replica in &self.replicas {
            let account = replica.accounts.open(&person.owner());
            for guess in password.iter().chain(&tokens).chain(&keys) {
                assert!(!redacts(&account, guess), "{} learns a secret of {}", person.name, other.name);
            }
        }
        if !tokens.is_empty() {
            self.effects.count("compared an owner's redaction with a token of another");
        }
        if !keys.is_empty() {
            self.effects.count("compared an owner's redaction with a key of another");
        }
    }

    /// Redacts what is the person's own.
    fn assert_own_redaction(&self, person: &Person) {
        if !person.signed_in {
            return;
        }
        let account = self.replicas[person.replica].accounts.open(&person.owner());
        let Issued { tokens, keys } = self.upstream.issued(&person.email);
        assert!(redacts(&account, secrets::text(&person.password)), "{}", person.name);
        assert!(tokens.iter().any(|token| redacts(&account, token)), "{}", person.name);
        assert!(person.keys.is_empty() || keys.iter().any(|key| redacts(&account, key)), "{}", person.name);
    }

    /// A request of 2026-07-28 by a host that can show forms and links. All owners' requests have the same id.
    pub fn request(&self, person: &Person, method: &str, mut params: Value) -> RequestBuilder {
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

fn redacts(account: &Account, text: &str) -> bool {
    account.redactor().redact(text) != text
}
