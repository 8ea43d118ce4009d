//! What becomes of the same servers with other DPoP clients and with this one: a table, walked in memory and
//! over TCP. `cargo test --test scenarios -- --nocapture` prints our column.
//!
//! How often a request is sent and how it ends; the other columns were measured on loopback in November 2026.
//!
//! | scenario | openid-client 6.8.9 | @atproto/oauth-client 0.6.1 | requests_oauth2client 1.8.0 | here |
//! |---|---|---|---|---|
//! | nonce challenge | 2, ok | 2, ok | 2, ok | 2, ok |
//! | its scheme is `dPoP` | 2, ok | 1, 401 | 1, 401 | 2, ok |
//! | it stands behind a `Bearer` challenge | 2, ok | 1, 401 | 1, 401 | 2, ok |
//! | its error is not quoted | 2, ok | 1, 401 | | 2, ok |
//! | it is long, like Okta's | 2, ok | 2, ok | | 2, ok |
//! | it is a `Bearer` challenge | 1, an error | 1, 401 | | 2, ok |
//! | another error, whose description has its words | 1 | 1 | | 1, 401 |
//! | a new nonce with each answer, 4 calls | 5 | 5 | 8 | 5 |
//! | endless challenges | 2 | 2 | 2 | 3, 401 |
//! | `invalid_token` without a nonce | 1, an error | 1, 401 | 1, an error | 2, a new token, ok |
//! | a body in memory, challenged | 2, whole twice | 2, whole twice | 2, whole twice | 2, whole twice |
//! | a streamed body, challenged | 1, an error | 1, 401 | 2, the second one empty, 200 | recorded: 2, whole twice; if not: 1, 401 |
//! | a redirect within the origin | 1, 302 | 2, the old proof | 2, the old proof | 1, 302 |
//! | 10 at once, no nonce known | 20 | 20 | | 20 at the most |
//! | two origins | a nonce each | a nonce each | one nonce for both | a nonce each |
//! | an odd path | dot segments removed | dot segments removed | decoded, on the wire too | byte for byte |
//! | the token endpoint's nonce with 400 or 401 | 2, ok | | 2, ok | 2, ok |
//! | `"expires_in": "60"` | ok | | | ok, 60 s |
//! | no `token_type` | an error | | | an error |
//! | `"token_type": "Bearer"` | accepted | | used as `DPoP` | an error |
//! | no `expires_in` | | | the token is kept | kept for 300 s |
//! | `"expires_in": 5` | | | a fetch for each call | a fetch in 4 s |
//! | `ath` at the token endpoint | none | | | none |
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "support/walk.rs"]
mod walk;

use bytes::Bytes;
use http::{Response, Version};
use support::{Seen, bench::secs};
use tower_dpop::testing::Nonces;
use walk::{
    BODY, CHALLENGE, Calls, Kind, Outcome, Row, Went, World, challenge, gives, lines, row, says,
    walk,
};

const ODD_PATH: &str = "/a%2Fb/%7Euser/t@x/%C3%A9/sp%20ace/../q";

const LONG: &str = "DPoP realm=\"https://okta.example/oauth2\", scope=\"okta.users.read\", \
    authorization_uri=\"https://okta.example/oauth2/v1/authorize\", error=\"use_dpop_nonce\", \
    error_description=\"Authorization server requires nonce in DPoP proof.\", resource=\"/api/v1/users\"";

fn rows() -> Vec<Row> {
    vec![
        row("nonce challenge").challenged(CHALLENGE).served(2),
        row("scheme dPoP")
            .challenged(r#"dPoP error="use_dpop_nonce""#)
            .served(2),
        row("behind a Bearer challenge")
            .challenged(r#"Bearer realm="api", scope="a b", DPoP error="use_dpop_nonce""#)
            .served(2),
        row("not quoted")
            .challenged("DPoP error=use_dpop_nonce")
            .served(2),
        row("long, like Okta's").challenged(LONG).served(2),
        row("a Bearer challenge")
            .challenged(r#"Bearer error="use_dpop_nonce""#)
            .served(2),
        row("only its words, in a description")
            .challenged(
                r#"DPoP error="invalid_request", error_description="not \"use_dpop_nonce\"""#,
            )
            .ends(Outcome::Status(401)),
        row("only its words, in a realm")
            .challenged(r#"DPoP realm="use_dpop_nonce", error="insufficient_scope""#)
            .ends(Outcome::Status(401)),
        row("a new nonce with each answer, 4 calls")
            .calls(Calls::InTurn(4))
            .api(|seen| {
                let good = seen.nonce() == seen.number.checked_sub(1).map(|n| format!("n{n}"));
                let (status, headers) = match good && seen.number > 0 {
                    true => (200, vec![]),
                    false => (401, vec![("www-authenticate", CHALLENGE)]),
                };
                let nonce = format!("n{}", seen.number);
                says(
                    status,
                    &[headers, vec![("dpop-nonce", &nonce)]].concat(),
                    "",
                )
            })
            .tcp(|servers| servers.one.nonces(Nonces::one_time()))
            .served(5),
        row("endless challenges")
            .api(|seen| challenge(CHALLENGE, &format!("n{}", seen.number)))
            .tcp(|servers| servers.one.nonces(Nonces::endless()))
            .served(3)
            .ends(Outcome::Status(401)),
        row("invalid_token, no nonce")
            .api(|seen| match seen.token() {
                "t0" => says(
                    401,
                    &[("www-authenticate", r#"DPoP error="invalid_token""#)],
                    "",
                ),
                _ => says(200, &[], ""),
            })
            .tcp(|servers| servers.one.refuse(1, r#"DPoP error="invalid_token""#))
            .asked(2)
            .served(2)
            .and("two tokens", |went| {
                went.served[0].header("authorization") != went.served[1].header("authorization")
            }),
        row("POST, a body in memory")
            .calls(Calls::Post(Kind::Whole))
            .challenged(CHALLENGE)
            .served(2)
            .and("whole twice", whole),
        row("POST, a stream, recorded")
            .calls(Calls::Post(Kind::Recorded))
            .challenged(CHALLENGE)
            .served(2)
            .and("whole twice", whole),
        row("POST, a stream, not recorded")
            .calls(Calls::Post(Kind::Once))
            .api(|_| challenge(CHALLENGE, "n"))
            .tcp(|servers| servers.one.answer(1, challenge(CHALLENGE, "n")))
            .ends(Outcome::Status(401))
            .and("whole once, the 401 untouched", |went| {
                let answer = went.answers[0].as_ref();
                whole(went)
                    && answer.is_ok_and(|answer| {
                        has(answer, "www-authenticate", CHALLENGE)
                            && has(answer, "dpop-nonce", "n")
                            && answer.body() == "the server's own words"
                    })
            }),
        row("a redirect within the origin")
            .api(|_| redirect())
            .tcp(|servers| servers.one.answer(1, redirect()))
            .ends(Outcome::Status(302))
            .and("and where to", |went| {
                let answer = went.answers[0].as_ref();
                answer.is_ok_and(|answer| has(answer, "location", "/elsewhere"))
            }),
        row("10 at once, no nonce known")
            .calls(Calls::AtOnce(10))
            .challenged_always()
            .served(11..=20),
        row("10 at once, all sent before one is answered")
            .calls(Calls::AtOnce(10))
            .challenged_always()
            .in_memory_only()
            .served(20),
        row("two origins, 2 calls each")
            .calls(Calls::TwoOrigins)
            .api(|seen| match seen.nonce().as_deref() == seen.uri.host() {
                true => says(200, &[], ""),
                false => challenge(CHALLENGE, seen.uri.host().unwrap()),
            })
            .tcp(|servers| {
                servers.one.nonces(Nonces::required());
                servers.two.nonces(Nonces::required());
            })
            .served(6)
            .and("a nonce each", |went| {
                let of = |origin: &str| -> Vec<_> {
                    let sent = went.served.iter().filter(|sent| sent.origin == origin);
                    sent.map(|sent| sent.claim("nonce")).collect()
                };
                let [one, two] = went.origins.each_ref().map(|origin| of(origin));
                let own = |nonces: &[Option<String>]| {
                    nonces.len() == 3
                        && nonces[0].is_none()
                        && nonces[1].is_some()
                        && nonces[1] == nonces[2]
                };
                own(&one) && own(&two) && one[1] != two[1]
            }),
        row("an odd path")
            .calls(Calls::Path(ODD_PATH))
            .challenged(CHALLENGE)
            .served(2)
            .and("byte for byte", |went| {
                let url = format!("{}{ODD_PATH}", went.origins[0]);
                went.served
                    .iter()
                    .all(|sent| sent.path == ODD_PATH && sent.claim("htu").as_ref() == Some(&url))
            }),
        row("token endpoint: nonce with 400")
            .asks(|seen| as_challenged(seen, 400))
            .tcp(|servers| servers.authorization_server.nonces(Nonces::required()))
            .asked(2),
        row("token endpoint: nonce with 401")
            .asks(|seen| as_challenged(seen, 401))
            .in_memory_only()
            .asked(2),
        row("token endpoint: nonce with 401, then with 400")
            .asks(|seen| match seen.number {
                0 => as_challenge(401, "first"),
                _ => as_challenged(seen, 400),
            })
            .tcp(|servers| {
                let server = &servers.authorization_server;
                server.nonces(Nonces::required());
                server.answer(1, as_challenge(401, "first"));
            })
            .asked(3),
        row("token endpoint: no ath, on the second try neither")
            .asks(|seen| as_challenged(seen, 400))
            .tcp(|servers| servers.authorization_server.nonces(Nonces::required()))
            .asked(2)
            .and("but to the API", |went| {
                let none = went.asked.iter().all(|sent| sent.claim("ath").is_none());
                none && went.served.iter().all(|sent| sent.claim("ath").is_some())
            }),
        row(r#""expires_in": "60", 4 calls"#)
            .calls(Calls::InTurn(4))
            .asks(|seen| gives(seen.number, r#""token_type":"DPoP","expires_in":"60""#))
            .tcp(|servers| servers.authorization_server.expires_in(Some(r#""60""#)))
            .served(4),
        row(r#""expires_in": "60", a call a second, 100 s"#)
            .calls(Calls::EachSecond(100))
            .asks(|seen| gives(seen.number, r#""token_type":"DPoP","expires_in":"60""#))
            .in_memory_only()
            .asked(2..=3)
            .served(100),
        row("no token_type, 2 calls")
            .calls(Calls::InTurn(2))
            .asks(|seen| gives(seen.number, r#""expires_in":60"#))
            .tcp(|servers| {
                let answer = gives(0, r#""expires_in":60"#);
                servers.authorization_server.answer(1, answer);
            })
            .served(0)
            .ends(Outcome::Downgrade),
        row(r#""token_type": "Bearer", 2 calls"#)
            .calls(Calls::InTurn(2))
            .asks(|seen| gives(seen.number, r#""token_type":"Bearer","expires_in":60"#))
            .tcp(|servers| servers.authorization_server.token_type("Bearer"))
            .served(0)
            .ends(Outcome::Downgrade),
        row("no expires_in, 4 calls")
            .calls(Calls::InTurn(4))
            .asks(|seen| gives(seen.number, r#""token_type":"DPoP""#))
            .tcp(|servers| servers.authorization_server.expires_in(None))
            .served(4),
        row("no expires_in, a call a second, 100 s")
            .calls(Calls::EachSecond(100))
            .asks(|seen| gives(seen.number, r#""token_type":"DPoP""#))
            .in_memory_only()
            .served(100),
        row(r#""expires_in": 5, 4 calls"#)
            .calls(Calls::InTurn(4))
            .asks(|seen| gives(seen.number, r#""token_type":"DPoP","expires_in":5"#))
            .tcp(|servers| servers.authorization_server.token_lifetime(secs(5)))
            .served(4),
        row(r#""expires_in": 5, a call a second, 60 s"#)
            .calls(Calls::EachSecond(60))
            .asks(|seen| gives(seen.number, r#""token_type":"DPoP","expires_in":5"#))
            .in_memory_only()
            // Due after 3.25 to 4.25 s, and the calls come at whole seconds.
            .asked(12..=15)
            .served(60),
    ]
}

fn redirect() -> Response<Bytes> {
    says(302, &[("location", "/elsewhere")], "")
}

fn as_challenge(status: u16, nonce: &str) -> Response<Bytes> {
    let headers = [("content-type", "application/json"), ("dpop-nonce", nonce)];
    says(status, &headers, r#"{"error":"use_dpop_nonce"}"#)
}

fn as_challenged(seen: &Seen, status: u16) -> Response<Bytes> {
    match seen.nonce().as_deref() {
        Some("n") => gives(seen.number, r#""token_type":"DPoP","expires_in":300"#),
        _ => as_challenge(status, "n"),
    }
}

fn has(answer: &Response<Bytes>, name: &str, value: &str) -> bool {
    answer
        .headers()
        .get(name)
        .is_some_and(|found| found == value)
}

fn whole(went: &Went) -> bool {
    went.served.iter().all(|sent| sent.body == BODY)
}

#[tokio::test(start_paused = true)]
async fn our_column_in_memory() {
    walk("In memory", rows(), World::InMemory).await;
}

#[tokio::test]
async fn our_column_over_http_1() {
    walk("By HTTP/1.1", rows(), World::Tcp(Version::HTTP_11)).await;
}

#[tokio::test]
async fn our_column_over_http_2() {
    walk("By HTTP/2", rows(), World::Tcp(Version::HTTP_2)).await;
}

/// A table that finds nothing wrong proves nothing.
#[tokio::test(start_paused = true)]
async fn a_wrong_line_shows() {
    let rows = || {
        let challenged = || row("challenged").challenged(CHALLENGE);
        vec![
            challenged().served(1),
            challenged().served(2).asked(0),
            challenged().served(2).ends(Outcome::Status(401)),
            challenged().served(2).and("never", |_| false),
            challenged().served(2),
        ]
    };
    for world in [World::InMemory, World::Tcp(Version::HTTP_11)] {
        let lines = lines(rows(), world).await;
        let right: Vec<bool> = lines.iter().map(|line| line.right).collect();
        assert_eq!(right, [false, false, false, false, true]);
    }
}
