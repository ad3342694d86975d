use proptest::prelude::*;

use super::*;
use crate::{
    oauth::GrantId,
    secret::{self, ExposeSecret as _, SecretString},
};

const LIMITS: Limits =
    Limits { idle: Duration::from_hours(30 * 24), absolute: Duration::from_hours(180 * 24) };

/// A family with all tokens that it ever had, the first one first, and when each was used first.
struct Server {
    keys: ServerKeys,
    family: Family,
    tokens: Vec<(RefreshToken, Option<Timestamp>)>,
    limits: Limits,
    now: Timestamp,
}

impl Server {
    fn new() -> Self {
        let keys = ServerKeys::of(&secret::random());
        let first = RefreshToken::first(&GrantId::given("grant"));
        let now = Timestamp::UNIX_EPOCH;
        Self { family: Family::new(&first, now), keys, tokens: vec![(first, None)], limits: LIMITS, now }
    }

    fn wait(&mut self, minutes: i64) {
        self.now += TimeDelta::minutes(minutes);
    }

    fn present(&mut self, text: &SecretString) -> Refresh {
        let Some(token) = RefreshToken::parse(&self.keys, text) else { return Refresh::Unknown };
        let generation = self.family.generation;
        let refresh = self.family.refresh(&self.keys, &token, self.limits, self.now);
        if let Refresh::Answered { token, .. } = &refresh
            && self.family.generation > generation
        {
            self.tokens[usize::try_from(generation).unwrap() - 1].1 = Some(self.now);
            self.tokens.push((token.clone(), None));
        }
        refresh
    }

    /// Presents a token of an honest client, which is answered with the newest one.
    fn refresh(&mut self, text: &SecretString) -> SecretString {
        let refresh = self.present(text);
        let Refresh::Answered { token, .. } = refresh else { panic!("signed out: {refresh:?}") };
        let newest = self.newest();
        assert!(secret::same(&token.to_text(&self.keys), &newest));
        newest
    }

    fn text(&self, index: usize) -> SecretString {
        self.tokens[index].0.to_text(&self.keys)
    }

    fn newest(&self) -> SecretString {
        self.text(self.tokens.len() - 1)
    }
}

#[test]
fn each_use_of_the_current_token_rotates_it() {
    let mut server = Server::new();
    let first = server.newest();
    let second = server.refresh(&first);
    let third = server.refresh(&second);
    for (one, other) in [(&first, &second), (&second, &third), (&first, &third)] {
        assert!(!secret::same(one, other));
    }
}

#[test]
fn five_processes_at_once_get_the_same_successor_and_one_that_comes_later_comes_along() {
    let mut server = Server::new();
    let first = server.newest();
    let second = server.refresh(&first);
    for _ in 0..4 {
        assert!(secret::same(&server.refresh(&first), &second));
    }
    let third = server.refresh(&second);
    server.wait(7);
    assert!(secret::same(&server.refresh(&first), &third), "after 7 minutes, as Codex does");
}

#[test]
fn a_client_that_refreshes_without_end_keeps_its_token_until_rotations_are_forgotten() {
    let mut server = Server::new();
    let first = server.newest();
    for _ in 0..MAX_ROTATIONS + 5 {
        server.refresh(&server.newest());
    }
    assert_eq!(server.tokens.len(), 1 + MAX_ROTATIONS);
    assert!(secret::same(&server.refresh(&first), &server.newest()));
    server.wait(10);
    server.refresh(&server.newest());
    assert_eq!(server.tokens.len(), 2 + MAX_ROTATIONS);
    assert_eq!(server.family.rotations.len(), 1);
}

#[test]
fn a_client_that_never_stores_the_new_token_goes_on_until_the_absolute_limit() {
    let mut server = Server::new();
    let first = server.newest();
    for _ in 0..6 * 30 - 1 {
        server.wait(24 * 60);
        server.refresh(&first);
    }
    server.wait(24 * 60);
    assert!(matches!(server.present(&first), Refresh::Expired));
}

#[test]
fn a_family_expires_when_it_is_not_used() {
    let mut server = Server::new();
    let second = server.refresh(&server.newest());
    server.wait(30 * 24 * 60 - 1);
    server.refresh(&second);
    server.wait(30 * 24 * 60);
    assert!(matches!(server.present(&server.newest()), Refresh::Expired));
}

#[test]
fn the_vault_keeps_a_family_as_long_as_it_can_be_used() {
    let mut server = Server::new();
    assert_eq!(server.family.lifetime(LIMITS, server.now), LIMITS.idle + Duration::from_hours(1));
    server.wait(170 * 24 * 60);
    assert_eq!(server.family.lifetime(LIMITS, server.now), Duration::from_hours(10 * 24));
}

/// RFC 9700, section 4.14.2: a stolen token that its owner has used since.
#[test]
fn a_token_two_generations_old_is_a_replay() {
    let mut server = Server::new();
    let first = server.newest();
    let second = server.refresh(&first);
    server.refresh(&second);
    server.wait(10);
    assert!(matches!(server.present(&first), Refresh::Replayed));
    assert!(matches!(server.present(&second), Refresh::Answered { has_changed: false, .. }));
}

/// RFC 9700, section 4.14.2: what a thief can do who refreshes as often as the app, and no later. Nothing tells the two apart,
/// so the grant is shared until its absolute end.
#[test]
fn a_thief_who_keeps_up_shares_the_grant_until_its_absolute_end() {
    let mut server = Server::new();
    server.limits.absolute = Duration::from_hours(2 * 24);
    let (mut app, mut thief) = (server.newest(), server.newest());
    for _quarter_of_an_hour in 0..2 * 24 * 4 {
        app = server.refresh(&app);
        server.wait(7);
        thief = server.refresh(&thief);
        server.wait(8);
    }
    for token in [&app, &thief] {
        assert!(matches!(server.present(token), Refresh::Expired));
    }
}

/// RFC 9700, section 4.14.2: whoever of the two comes ten minutes too late ends it for both.
#[test]
fn whoever_falls_behind_a_copy_of_the_token_ends_the_family() {
    let mut server = Server::new();
    let stolen = server.newest();
    let second = server.refresh(&stolen);
    // As long as the second token is not used, the first one is answered with it.
    server.wait(24 * 60);
    assert!(secret::same(&server.refresh(&stolen), &second));
    server.refresh(&second);
    server.wait(9);
    assert!(secret::same(&server.refresh(&stolen), &server.newest()));
    server.wait(1);
    assert!(matches!(server.present(&stolen), Refresh::Replayed));
}

/// RFC 6749, section 10.10: nobody guesses a token, and what is no secret in it ends nothing.
#[test]
fn a_token_that_somebody_made_up_is_unknown() {
    let mut server = Server::new();
    let first = server.newest();
    server.refresh(&first);
    let first = first.expose_secret();
    let other = if first.ends_with('A') { "B" } else { "A" };
    for forged in [
        "grant.0.x".to_owned(),
        String::new(),
        first.replace("grant.1", "grant.0"),
        first.replace("grant.1", "grant.2"),
        first.replace("grant", "other"),
        format!("{}{other}", &first[..first.len() - 1]),
        format!("{first}."),
        first.replace("grant.1.", "grant.1.A"),
        format!(" {first}"),
        first.replace("grant.1", "grant.+1"),
    ] {
        assert!(matches!(server.present(&forged.as_str().into()), Refresh::Unknown), "{forged}");
    }
    assert!(RefreshToken::parse(&ServerKeys::of(&secret::random()), &first.into()).is_none());
}

#[test]
fn a_token_that_is_newer_than_a_restored_vault_is_unknown_and_ends_nothing() {
    let mut server = Server::new();
    let backup = server.family.clone();
    let second = server.refresh(&server.newest());
    server.family = backup;
    assert!(matches!(server.present(&second), Refresh::Unknown));
}

#[test]
fn the_record_and_debug_output_have_no_token() {
    let mut server = Server::new();
    let second = server.refresh(&server.newest());
    let token = RefreshToken::parse(&server.keys, &second).unwrap();
    let shown = format!("{token:?} {:?} {}", server.family, serde_json::to_string(&server.family).unwrap());
    assert!(!shown.contains(&second.expose_secret()["grant.2.".len()..][..16]));
}

/// What the processes of one client do. They share a place where the token is stored, as hosts do.
#[derive(Clone, Debug)]
enum Step {
    Wait {
        minutes: i64,
    },
    /// Several processes refresh at once; some answers are lost.
    Burst {
        answers_lost: Vec<bool>,
    },
    /// A process reads the token, to use it later.
    Read {
        process: usize,
    },
    /// It uses it, if that was less than ten minutes ago; else it reads it again first.
    UseRead {
        process: usize,
        is_answer_lost: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..40_i64).prop_map(|minutes| Step::Wait { minutes }),
        prop::collection::vec(any::<bool>(), 1..6).prop_map(|answers_lost| Step::Burst { answers_lost }),
        (0..3_usize).prop_map(|process| Step::Read { process }),
        (0..3_usize, any::<bool>())
            .prop_map(|(process, is_answer_lost)| Step::UseRead { process, is_answer_lost }),
    ];
    prop::collection::vec(step, 1..120)
}

/// Plays the honest client, which must not be signed out.
fn play(server: &mut Server, steps: &[Step]) {
    let mut stored = server.newest();
    let mut read = [None, None, None];
    for step in steps {
        match step {
            Step::Wait { minutes } => server.wait(*minutes),
            Step::Burst { answers_lost } => {
                let presented = stored.clone();
                for is_lost in answers_lost {
                    let answer = server.refresh(&presented);
                    if !is_lost {
                        stored = answer;
                    }
                }
            }
            Step::Read { process } => read[*process] = Some((stored.clone(), server.now)),
            Step::UseRead { process, is_answer_lost } => {
                let fresh = read[*process].take().filter(|(_, at)| server.now - *at < TimeDelta::minutes(10));
                let answer = server.refresh(&fresh.map_or(stored.clone(), |(token, _)| token));
                if !is_answer_lost {
                    stored = answer;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn an_honest_client_is_never_signed_out(steps in steps()) {
        play(&mut Server::new(), &steps);
    }

    /// RFC 9700, section 4.14.2.
    #[test]
    fn a_stolen_token_that_is_old_ends_the_family(steps in steps(), pick in any::<prop::sample::Index>()) {
        let mut server = Server::new();
        play(&mut server, &steps);
        let stolen = pick.index(server.tokens.len());
        let successor_used_at = server.tokens.get(stolen + 1).and_then(|(_, used_at)| *used_at);
        let is_old = successor_used_at.is_some_and(|at| server.now - at >= REUSE_GRACE_PERIOD);
        match server.present(&server.text(stolen)) {
            Refresh::Answered { token, .. } => {
                prop_assert!(!is_old);
                prop_assert!(secret::same(&token.to_text(&server.keys), &server.newest()));
            }
            Refresh::Replayed => prop_assert!(is_old),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
