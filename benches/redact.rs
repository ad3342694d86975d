//! The cost of the search for secrets: in a short text and in the largest answer, without and with escapes, with few
//! secrets and with as many as are remembered, for one owner and for the process of a thousand owners; and the cost of a
//! change of the secrets.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints and may panic")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bondmcp_server::{
    redact::Redactor,
    secret::{ExposeSecret as _, SecretString},
};

const PROSE: &str = "The patient, aged 54, reports chest pain on exertion; blood pressure 140/90 mmHg, BMI 31.2, \
    ferritin 8 ng/ml (see https://example.org/labs?id=7#ferritin). Überweisung an die Kardiologie empfohlen.\n";

fn main() {
    let (few, many) = (knowing(4), knowing(1028));
    let process = knowing(2);
    let owners: Vec<Redactor> = (1..=1000).map(|number| owner(&process, 1000 * number)).collect();
    let redactors = [&few, &many, &owners[0], &process];
    row("", ["few secrets", "1,024 more", "one owner", "1,000 owners"].map(str::to_owned));
    let plain = PROSE.repeat((4 << 20) / PROSE.len());
    let escaped = serde_json::to_string(&serde_json::to_string(&plain).unwrap()).unwrap();
    let short = &PROSE[..PROSE.floor_char_boundary(200)];
    for (name, text) in [
        ("200 bytes", short),
        ("200 bytes of JSON in JSON", &escaped[..escaped.floor_char_boundary(200)]),
        ("4 MiB", &*plain),
        ("4 MiB of JSON in JSON", &escaped),
        ("4 MiB with a secret at its end", &format!("{plain}{}", token(0).expose_secret())),
    ] {
        let cost = |redactor: &Redactor| took(|| drop(black_box(redactor.redact(black_box(text)))));
        row(name, redactors.map(|redactor| shown(cost(redactor))));
    }
    let renewal = |redactor: &Redactor| {
        let mut number = 10_000;
        took(|| {
            number += 1;
            redactor.hold("record", [&token(number)]);
            black_box(redactor.redact(black_box(short)));
        })
    };
    row("a renewal, and 200 bytes after it", redactors.map(|redactor| shown(renewal(redactor))));
    let visit = took(|| drop(black_box(owner(&process, 9_000_000))));
    println!("an owner comes and goes, beside 1,000 others: {}", shown(visit));
}

fn row(name: &str, cells: [String; 4]) {
    println!("{name:44} {}", cells.map(|cell| format!("{cell:>14}")).join(" "));
}

/// A redactor of one owner with four tokens, from this number.
fn owner(process: &Redactor, first: u32) -> Redactor {
    let scope = process.scope();
    for number in first..first + 4 {
        scope.remember(&token(number));
    }
    scope
}

/// A redactor with this many tokens.
fn knowing(count: u32) -> Redactor {
    let redactor = Redactor::default();
    for number in 0..count {
        redactor.remember(&token(number));
    }
    redactor
}

/// A JWT like BondMCP's.
fn token(number: u32) -> SecretString {
    let claims = format!(
        r#"{{"sub":"usr_5d2c1f","email":"ada@example.com","iat":17123456{number},"exp":17123459{number}}}"#
    );
    let header = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9";
    let signature = [number.wrapping_mul(0x9E37_79B1).to_be_bytes(); 8].concat();
    format!("{header}.{}.{}", URL_SAFE_NO_PAD.encode(claims), URL_SAFE_NO_PAD.encode(signature)).into()
}

/// The best of several runs of 50 milliseconds.
fn took(mut work: impl FnMut()) -> Duration {
    let mut run = || {
        let began = Instant::now();
        let mut times = 0;
        while times == 0 || began.elapsed() < Duration::from_millis(50) {
            work();
            times += 1;
        }
        began.elapsed() / times
    };
    (0..5).map(|_| run()).min().unwrap_or_default()
}

fn shown(time: Duration) -> String {
    match time.as_nanos() {
        nanos if nanos < 10_000 => format!("{nanos} ns"),
        nanos if nanos < 10_000_000 => format!("{} us", nanos / 1000),
        nanos => format!("{} ms", nanos / 1_000_000),
    }
}
