//! The examples, run as a user runs them: exit status, output, session log, and no secret in any of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "examples/login.rs"]
mod login;
#[path = "../examples/client_credentials/masking.rs"]
mod masking;
#[path = "examples/servers.rs"]
mod servers;

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use tower_dpop::{
    DpopKey,
    proof::Check,
    testing::{AuthorizationServer, CLIENT_ID, Nonces, ResourceServer},
};

use self::masking::Masking;

/// What clients forget to encode, and JSON must escape.
const SECRET: &str = "canary/s3cret+ 100%&=\"x";
/// That of the encrypted keys in `tests/data/keys`.
const PASSWORD: &str = "correct horse";
const KEY: &str = "tests/data/keys/good/pkcs8.pem";
const ENCRYPTED: &str = "tests/data/keys/opened/aes256.pem";

/// What an example said.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The one line that an error is.
    fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        let line = self.stderr.strip_suffix('\n').expect("a line");
        assert!(line.starts_with("error: "), "{self:?}");
        assert!(!line.contains(char::is_control), "{self:?}");
        line
    }

    fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout).expect("JSON alone on stdout");
        assert!(value.is_object(), "{self:?}");
        value
    }
}

/// `cargo test` builds the examples beside the tests. Without the variables that the examples look at.
fn example(name: &str) -> Command {
    let mut path = env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.extend(["examples", name]);
    path.set_extension(env::consts::EXE_EXTENSION);
    assert!(
        path.is_file(),
        "{} is missing: `cargo test` builds it, `cargo build --examples` does if only this test is run",
        path.display()
    );
    let mut command = Command::new(path);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    for name in [
        "DPOP_CLIENT_SECRET",
        "DPOP_KEY_PASSWORD",
        "DPOP_ACCESS_TOKEN",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs to the end, while the servers of this runtime go on.
async fn finish(mut command: Command) -> Done {
    let output = tokio::task::spawn_blocking(move || command.output());
    // Against a hang; nothing here takes a tenth of it.
    let output = tokio::time::timeout(Duration::from_secs(120), output).await;
    let output = output.expect("the example ends").unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Done {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

async fn run(name: &str, args: &[&str]) -> Done {
    let mut command = example(name);
    command.args(args);
    finish(command).await
}

/// A path that no other test has, and no file.
fn fresh(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("examples-{}-{count}-{name}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = fresh(name);
    fs::write(&path, text).unwrap();
    path
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Servers that the examples take for real ones.
struct Servers {
    authorization: AuthorizationServer,
    api: ResourceServer,
}

impl Servers {
    async fn start() -> Self {
        let authorization = AuthorizationServer::start().await.unwrap();
        let api = ResourceServer::start(&authorization).await.unwrap();
        authorization.add_client(CLIENT_ID, SECRET);
        Self { authorization, api }
    }

    fn client(&self) -> Command {
        let mut command = example("client_credentials");
        command.args(["--token-endpoint", &self.authorization.token_endpoint()]);
        command.args([
            "--client-id",
            CLIENT_ID,
            "--key",
            KEY,
            &self.api.url("/orders"),
        ]);
        command
    }

    async fn run(&self, args: &[&str]) -> Done {
        let mut command = self.client();
        command.args(["--client-secret", SECRET]).args(args);
        finish(command).await
    }

    /// Every credential that arrived, as it is and as it is sent.
    fn canaries(&self) -> Vec<String> {
        let form =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let mut all = Vec::new();
        for secret in [SECRET, PASSWORD] {
            all.extend([secret.to_owned(), form(secret)]);
            all.extend([STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)]);
            let json = Value::from(secret).to_string();
            all.push(json.trim_matches('"').to_owned());
        }
        all.push(STANDARD.encode(format!("{}:{}", form(CLIENT_ID), form(SECRET))));
        let requests = [self.authorization.requests(), self.api.requests()];
        for request in requests.iter().flatten() {
            for name in ["authorization", "dpop"] {
                for value in request.headers().get_all(name) {
                    let value = value.to_str().unwrap();
                    all.push(
                        value
                            .split_once(' ')
                            .map_or(value, |(_, token)| token)
                            .to_owned(),
                    );
                }
            }
        }
        all
    }

    fn assert_no_secret(&self, text: &str) {
        for canary in self.canaries() {
            assert!(!text.contains(&canary), "{canary} in: {text}");
        }
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body.to_owned()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        answer.headers_mut().append(name, value.parse().unwrap());
    }
    answer
}

#[tokio::test]
async fn all_run_without_arguments() {
    let done = run("client_credentials", &[]).await.ok();
    assert!(done.stdout.starts_with("HTTP/1.1 200 OK\n{"), "{done:?}");
    assert_eq!(
        done.stderr
            .lines()
            .filter(|line| line.starts_with("note: "))
            .count(),
        2
    );

    let done = run("own_token", &[]).await.ok();
    assert!(done.stdout.starts_with("HTTP/1.1 200 OK\n{"), "{done:?}");

    let done = run("proof", &[]).await.ok();
    assert_eq!(done.stdout.trim_end().split('.').count(), 3);
    assert_eq!(done.stdout.lines().count(), 1);
}

#[tokio::test]
async fn the_embedded_servers_take_the_other_flags() {
    let log = fresh("log");
    for auth in ["post", "basic", "none"] {
        let args = [
            "--json",
            "--repeat",
            "5",
            "--client-auth",
            auth,
            "--log",
            path(&log),
            "--data",
            "{}",
        ];
        let summary = run("client_credentials", &args).await.ok().json();
        assert_eq!(summary["answers"]["200"], 5, "{summary}");
        assert_eq!(summary["requests"], 5, "{summary}");
        // One for each server: both ask for a nonce.
        assert_eq!(summary["nonce_retries"], 2, "{summary}");
        assert_eq!(summary["token_requests"], 2, "{summary}");
    }
    // Each run adds to it: 2 token requests, 5 requests, one of them twice.
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(
        log.lines().filter(|line| line.starts_with('#')).count(),
        3 * 8
    );
}

#[tokio::test]
async fn the_request_is_the_one_that_was_ordered() {
    let servers = Servers::start().await;
    let args = [
        "--method",
        "PUT",
        "--data",
        "-data",
        "--header",
        "X-One: 1",
        "--header",
        "x-one:2",
        "--header",
        "content-type: text/plain",
        "--scope",
        "a b",
        "--resource",
        "urn:x",
        "--resource",
        "https://y.example/",
        "--client-auth",
        "basic",
    ];
    servers.run(&args).await.ok();
    let [request] = &servers.api.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.method(), Method::PUT);
    assert_eq!(request.uri().path(), "/orders");
    assert_eq!(request.body(), "-data");
    assert_eq!(request.headers()["content-type"], "text/plain");
    let ones: Vec<_> = request.headers().get_all("x-one").iter().collect();
    assert_eq!(ones, ["1", "2"]);
    let [token_request] = &servers.authorization.requests()[..] else {
        panic!("one token request")
    };
    assert!(token_request.headers().contains_key("authorization"));
    let form: Vec<(String, String)> = form_urlencoded::parse(token_request.body())
        .into_owned()
        .collect();
    let values = |name: &str| -> Vec<&str> {
        let values = form.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(values("scope"), ["a b"]);
    assert_eq!(values("resource"), ["urn:x", "https://y.example/"]);

    servers.run(&["--data", "{}"]).await.ok();
    let requests = servers.api.requests();
    assert_eq!(requests[1].method(), Method::POST);
    assert_eq!(requests[1].headers()["content-type"], "application/json");
}

#[tokio::test]
async fn many_in_parallel_get_through() {
    for rotating in [false, true] {
        let servers = Servers::start().await;
        servers.authorization.nonces(Nonces::one_time());
        servers.api.nonces(Nonces::one_time());
        let rotation = rotating.then(|| {
            // By count, not by time: the previous nonce is still good.
            servers
                .api
                .nonces(Nonces::rotating(Duration::from_secs(3600)));
            let api = servers.api.clone();
            tokio::spawn(async move {
                for turn in 1.. {
                    while api.requests().len() < turn * 40 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    api.rotate_nonce();
                }
            })
        });
        let log = fresh("log");
        let args = [
            "--repeat",
            "200",
            "--concurrency",
            "8",
            "--json",
            "--log",
            path(&log),
        ];
        let done = servers.run(&args).await.ok();
        if let Some(rotation) = rotation {
            rotation.abort();
        }
        assert_eq!(
            done.stderr, "",
            "no progress bar where there is no terminal"
        );
        let summary = done.json();
        assert_eq!(summary["requests"], 200);
        assert_eq!(summary["answers"].as_object().unwrap().len(), 1);
        assert_eq!(summary["answers"]["200"], 200);
        let token_requests = servers.authorization.requests().len();
        assert_eq!(summary["token_requests"], token_requests);
        assert_eq!(token_requests, 2, "one, and once more with the nonce");
        let sends = servers.api.requests().len();
        assert_eq!(summary["nonce_retries"], sends - 200 + 1);
        // No entry is missing, and none is broken by another.
        let log = fs::read_to_string(&log).unwrap();
        let mut numbers: Vec<usize> = Vec::new();
        for entry in log.split_terminator("\n\n") {
            let (title, rest) = entry.split_once('\n').unwrap();
            let number = title.strip_prefix('#').unwrap().split_once(' ').unwrap().0;
            numbers.push(number.parse().unwrap());
            assert!(rest.starts_with("> "), "{entry}");
            let starts = rest.lines().filter(|line| line.starts_with("< HTTP/1.1 "));
            assert_eq!(starts.count(), 1, "{entry}");
            assert!(rest.ends_with(" ms)"), "{entry}");
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=sends + token_requests));
        servers.assert_no_secret(&log);
    }
}

#[tokio::test]
async fn the_summary_is_readable() {
    let servers = Servers::start().await;
    servers.api.answer(1, answer(503, &[], ""));
    let done = servers.run(&["--repeat", "3"]).await;
    assert_eq!(done.error(1), "error: 1 of 3 answers were no success");
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "answers: 2 x 200 OK, 1 x 503 Service Unavailable");
    assert_eq!(lines[1], "token requests: 1");
    assert_eq!(lines[2], "nonce retries: 0");
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn the_session_log_tells_all_in_order() {
    let servers = Servers::start().await;
    servers.authorization.nonces(Nonces::required());
    servers.api.nonces(Nonces::required());
    let log = fresh("log");
    let args = [
        "--log",
        path(&log),
        "--data",
        r#"{"a":1,"password":"hunter22"}"#,
        "--header",
        "Cookie: id=hunter33",
        "--header",
        "X-Api-Key: hunter44",
    ];
    let done = servers.run(&args).await.ok();
    let log_text = fs::read_to_string(&log).unwrap();
    let entries: Vec<&str> = log_text.split_terminator("\n\n").collect();
    let [challenged_token, token, challenged, accepted] = entries[..] else {
        panic!("four entries: {log_text}")
    };
    for (number, entry) in (1..).zip(&entries) {
        assert!(entry.starts_with(&format!("#{number} ")), "{entry}");
    }
    for (entry, expected) in [
        (
            challenged_token,
            &[
                "> POST /token HTTP/1.1",
                "> dpop: ***",
                "> grant_type=client_credentials&client_id=m2m.dpop&client_secret=***",
                "< HTTP/1.1 400 Bad Request",
                "< dpop-nonce: ",
                r#"< {"error":"use_dpop_nonce""#,
            ][..],
        ),
        (
            token,
            &[
                "> POST /token HTTP/1.1",
                "> dpop: ***",
                "< HTTP/1.1 200 OK",
                r#"< {"access_token":"***""#,
            ],
        ),
        (
            challenged,
            &[
                "> POST /orders HTTP/1.1",
                "> cookie: ***",
                "> x-api-key: ***",
                "> authorization: DPoP ***",
                "> dpop: ***",
                r#"> {"a":1,"password":"***"}"#,
                "< HTTP/1.1 401 Unauthorized",
                r#"< www-authenticate: DPoP error="use_dpop_nonce""#,
            ],
        ),
        (
            accepted,
            &[
                "> POST /orders HTTP/1.1",
                "> authorization: DPoP ***",
                "> dpop: ***",
                "< HTTP/1.1 200 OK",
                r#"< {"body":"{"#,
            ],
        ),
    ] {
        let mut lines = entry.lines();
        for start in expected {
            assert!(
                lines.any(|line| line.starts_with(start)),
                "no {start} in {entry}"
            );
        }
    }
    // The server repeats the body; what was masked once is masked again.
    assert!(!log_text.contains("hunter"), "{log_text}");
    assert_eq!(
        servers.authorization.requests().len() + servers.api.requests().len(),
        4
    );
    servers.assert_no_secret(&format!("{log_text}{}", done.stderr));

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            fs::metadata(&log).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}

#[tokio::test]
async fn an_exchange_without_answer_is_in_the_log() {
    let servers = Servers::start().await;
    servers.api.delay(Duration::from_secs(60));
    let log = fresh("log");
    let done = servers
        .run(&["--timeout", "1", "--log", path(&log), "--json"])
        .await;
    assert!(done.error(1).contains("--timeout"), "{done:?}");
    assert_eq!(done.stdout, "");
    let text = fs::read_to_string(&log).unwrap();
    let last = text.split_terminator("\n\n").last().unwrap();
    assert!(
        last.contains("\n! given up before the answer was here\n"),
        "{text}"
    );

    let log = fresh("log");
    let mut command = example("client_credentials");
    command.args([
        "--token-endpoint",
        "http://127.0.0.1:1/token",
        "--client-id",
        "x",
    ]);
    command.args(["--client-secret", SECRET, "--key", KEY, "--log", path(&log)]);
    command.arg("http://127.0.0.1:1/orders");
    let done = finish(command).await;
    assert!(
        done.error(1).contains("Connection refused") || cfg!(windows),
        "{done:?}"
    );
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("\n! client error (Connect)"), "{text}");
    servers.assert_no_secret(&text);
}

/// A wrong command line: what is wrong, in one line, and status 2.
#[tokio::test]
async fn usage_errors_are_one_line() {
    let real = [
        "--token-endpoint",
        "https://as.example/token",
        "--client-id",
        "x",
    ];
    let url = "https://api.example/orders";
    for (args, words) in [
        (&[url][..], &["--token-endpoint", "--client-id"][..]),
        (&["--client-id", "x"], &["URL", "--token-endpoint"]),
        (
            &["--token-endpoint", "https://as.example/token", url],
            &["--client-id"],
        ),
        (
            &[&real[..], &[url]].concat(),
            &["secret is missing", "--client-auth none"],
        ),
        (
            &[&real[..], &["/orders"]].concat(),
            &["does not begin with https://"],
        ),
        (
            &[&real[..], &["api.example/orders"]].concat(),
            &["does not begin with https://"],
        ),
        (
            &[&real[..], &["ftp://api.example/"]].concat(),
            &["does not begin with https://"],
        ),
        (&[&real[..], &["https://:80/"]].concat(), &["no host"]),
        (
            &[&real[..], &["https:///orders"]].concat(),
            &["no host", "expected something like"],
        ),
        (&[&real[..], &["https://"]].concat(), &["no host"]),
        (&[&real[..], &["https://?x"]].concat(), &["no host"]),
        (
            &[&real[..], &["https://api.example:99999/"]].concat(),
            &["port"],
        ),
        (
            &[&real[..], &["https://api.example/ä b"]].concat(),
            &["not a valid one"],
        ),
        (
            &[&real[..], &["https://user:canary@api.example/"]].concat(),
            &["user information"],
        ),
        (&["--method", "G T"], &["--method"]),
        (&["--method", ""], &["--method"]),
        (&["--method", "CONNECT"], &["--method"]),
        (
            &["--header", "no-colon canary"],
            &["--header", "Name: value"],
        ),
        (
            &["--header", "bad name: canary"],
            &["--header", "Name: value"],
        ),
        (
            &["--header", "x: canary\r\ny: canary"],
            &["--header", "Name: value"],
        ),
        (
            &["--header", "Authorization: Bearer canary"],
            &["--header", "authorization"],
        ),
        (
            &["--header", "Content-Length: 7"],
            &["--header", "content-length"],
        ),
        (
            &["--client-secret", "a", "canary", "canary"],
            &["one too many", "quote"],
        ),
    ] {
        let done = run("client_credentials", &[args, &["--json"]].concat()).await;
        let line = done.error(2);
        for word in words {
            assert!(line.contains(word), "{args:?}: {line}");
        }
        assert!(!line.contains("canary"), "{line}");
        assert_eq!(done.stdout, "");
    }
}

#[tokio::test]
async fn wrong_flags_are_one_line() {
    for (args, words) in [
        (&["--bogus-canary"][..], &["not known", "--help"][..]),
        (&["--token-endpint", "canary"], &["--token-endpoint"]),
        (&["--client-secret", "a", "--canary"], &["not known"]),
        (&["--repeat", "0"], &["--repeat"]),
        (&["--repeat", "canary"], &["--repeat"]),
        (&["--concurrency", "0"], &["--concurrency"]),
        (&["--timeout", "0"], &["--timeout"]),
        (
            &["--client-auth", "canary"],
            &["--client-auth", "post, basic, none"],
        ),
        (&["--key"], &["--key"]),
        (&["--json", "--json"], &["--json"]),
    ] {
        let done = run("client_credentials", args).await;
        let line = done.error(2);
        for word in words {
            assert!(line.contains(word), "{args:?}: {line}");
        }
        assert!(!line.contains("canary"), "{line}");
        assert_eq!(done.stdout, "");
    }
    for help in ["--help", "-h"] {
        let done = run("client_credentials", &[help]).await;
        assert_eq!((done.code, &*done.stderr), (Some(0), ""));
        assert!(done.stdout.contains("--token-endpoint"));
    }
}

#[tokio::test]
async fn wrong_files_are_named() {
    let empty = file("empty", "\n");
    let binary = fresh("binary");
    fs::write(&binary, [0xff, 0xfe, 0xfd]).unwrap();
    let missing = fresh("missing");
    for (args, words) in [
        (
            &["--key", path(&missing)][..],
            &["key file", "no such file"][..],
        ),
        (&["--key", ENCRYPTED], &["encrypted", "--key-password-file"]),
        (
            &["--key", ENCRYPTED, "--key-password", "canary"],
            &["password does not open"],
        ),
        (
            &["--key", ENCRYPTED, "--key-password-file", path(&missing)],
            &["secret file"],
        ),
        (&["--key", "tests/data/keys/bad/rsa.pem"], &["RSA", "P-256"]),
        (
            &["--client-secret-file", path(&missing)],
            &["secret file", "cannot be read"],
        ),
        (&["--client-secret-file", path(&empty)], &["is empty"]),
        (&["--client-secret-file", path(&binary)], &["holds no text"]),
        (&["--ca", path(&missing)], &["certificate file"]),
        (&["--ca", KEY], &["no certificate in PEM"]),
        (&["--log", "/"], &["session log"]),
    ] {
        let done = run("client_credentials", args).await;
        let line = done.error(1);
        for word in words {
            assert!(line.contains(word), "{args:?}: {line}");
        }
        assert!(!line.contains("canary"), "{line}");
        assert_eq!(done.stdout, "");
    }
}

#[tokio::test]
async fn nothing_is_sent_in_clear() {
    for (endpoint, url) in [
        ("http://as.example/token", "https://api.example/orders"),
        ("https://as.example/token", "http://api.example/orders"),
    ] {
        let args = [
            "--key",
            KEY,
            "--token-endpoint",
            endpoint,
            "--client-id",
            "x",
            "--client-secret",
            SECRET,
            url,
        ];
        let done = run("client_credentials", &args).await;
        assert!(done.error(1).contains("use https"), "{done:?}");
    }
    let args = [
        "--key",
        KEY,
        "--access-token",
        "canary",
        "http://api.example/orders",
    ];
    let done = run("own_token", &args).await;
    assert!(done.error(1).contains("use https"), "{done:?}");
    assert!(!done.stderr.contains("canary"));
}

/// What the token endpoint may answer instead of a token, and words of the line that tells it.
#[tokio::test]
async fn a_token_endpoint_that_gives_no_token() {
    let json = ("content-type", "application/json");
    let repeated = format!(
        r#"{{"error":"invalid_client","error_description":{}}}"#,
        Value::from(format!("no {SECRET} here\u{7}\nor there"))
    );
    for (answer, words) in [
        (
            answer(200, &[("content-type", "text/html")], "<h1>Log in</h1>"),
            &["text/html", "is this the token endpoint?"][..],
        ),
        (answer(500, &[], "oops"), &["500", "try again later"]),
        (answer(200, &[], ""), &["empty body"]),
        (
            answer(
                302,
                &[("location", "https://x.example/login?code=canary")],
                "",
            ),
            &["redirect", "https://x.example/login"],
        ),
        (
            answer(400, &[json], &repeated),
            &["invalid_client", "no *** here"],
        ),
        (
            answer(200, &[json], r#"{"access_token":"canary"}"#),
            &["token_type"],
        ),
        (
            answer(
                200,
                &[json],
                r#"{"access_token":"canary","token_type":"Bearer"}"#,
            ),
            &["Bearer", "DPoP"],
        ),
        (
            answer(
                200,
                &[json],
                r#"{"access_token":"ca nary","token_type":"DPoP"}"#,
            ),
            &["access token"],
        ),
    ] {
        let servers = Servers::start().await;
        servers.authorization.answer(9, answer);
        let log = fresh("log");
        let done = servers.run(&["--json", "--log", path(&log)]).await;
        let line = done.error(1);
        for word in words {
            assert!(line.contains(word), "{line}");
        }
        assert_eq!(done.stdout, "");
        assert!(servers.api.requests().is_empty(), "no token, no request");
        let said = format!("{line}{}", fs::read_to_string(&log).unwrap());
        servers.assert_no_secret(&said);
        for canary in ["canary", "ca nary"] {
            assert!(!said.contains(canary), "{said}");
        }
    }
}

#[tokio::test]
async fn a_refused_client_is_told_so() {
    for auth in ["post", "basic"] {
        let servers = Servers::start().await;
        servers.authorization.add_client(CLIENT_ID, "another");
        let log = fresh("log");
        let done = servers
            .run(&["--client-auth", auth, "--log", path(&log)])
            .await;
        assert!(done.error(1).contains("invalid_client"), "{done:?}");
        assert!(
            done.error(1).contains("check client id, secret"),
            "{done:?}"
        );
        servers.assert_no_secret(&format!("{done:?}{}", fs::read_to_string(&log).unwrap()));
    }
}

#[tokio::test]
async fn an_answer_that_is_no_success_is_shown_and_counts() {
    let challenge = r#"DPoP error="insufficient_scope", error_description="ask for more""#;
    for (answer, words) in [
        (answer(500, &[], "oops"), &["500 Internal Server Error"][..]),
        (
            answer(401, &[("www-authenticate", challenge)], "oops"),
            &["insufficient_scope", "ask for more"],
        ),
        (
            answer(302, &[("location", "/elsewhere?code=canary")], "oops"),
            &["302", "redirect to /elsewhere", "not followed"],
        ),
        (answer(404, &[], "oops"), &["404"]),
    ] {
        let servers = Servers::start().await;
        let status = answer.status();
        servers.api.answer(9, answer);
        let done = servers.run(&[]).await;
        for word in words {
            assert!(done.error(1).contains(word), "{done:?}");
        }
        assert!(!done.stderr.contains("canary"));
        assert_eq!(done.stdout, format!("HTTP/1.1 {status}\noops\n"));
        let done = servers.run(&["--json"]).await;
        assert_eq!(done.json()["status"], status.as_u16());
        assert_eq!(done.json()["body"], "oops");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_it() {
    let servers = Servers::start().await;
    servers
        .api
        .answer(1, answer(200, &[], &"x".repeat(11 * 1024 * 1024)));
    let done = servers.run(&[]).await;
    assert!(done.error(1).contains("longer than 10 MiB"), "{done:?}");
}

#[tokio::test]
async fn a_run_ends_at_the_first_request_without_answer() {
    let servers = Servers::start().await;
    servers
        .authorization
        .fail(99, StatusCode::SERVICE_UNAVAILABLE);
    let done = servers
        .run(&["--repeat", "1000", "--concurrency", "4", "--json"])
        .await;
    assert!(done.error(1).contains("503"), "{done:?}");
    let summary = done.json();
    assert!(summary["requests"].as_u64().unwrap() <= 4, "{summary}");
    assert_eq!(summary["answers"], serde_json::json!({}));
}

/// By whatever way a secret comes in, it does not come out.
#[tokio::test]
async fn secrets_come_from_files_and_the_environment_and_show_nowhere() {
    // With either line end, and with none.
    let secret = file("secret", &format!("{SECRET}\r\n"));
    let password = file("password", &format!("{PASSWORD}\n"));
    let log = fresh("log");
    for auth in ["post", "basic"] {
        for from_file in [true, false] {
            let servers = Servers::start().await;
            servers.authorization.nonces(Nonces::one_time());
            let mut command = example("client_credentials");
            command.args(["--token-endpoint", &servers.authorization.token_endpoint()]);
            command.args([
                "--client-id",
                CLIENT_ID,
                "--client-auth",
                auth,
                "--key",
                ENCRYPTED,
            ]);
            command.args(["--log", path(&log), &servers.api.url("/orders")]);
            if from_file {
                command.args(["--client-secret-file", path(&secret)]);
                command.args(["--key-password-file", path(&password)]);
                // The file counts.
                command.env("DPOP_CLIENT_SECRET", "wrong");
            } else {
                command.env("DPOP_CLIENT_SECRET", SECRET);
                command.env("DPOP_KEY_PASSWORD", PASSWORD);
            }
            let done = finish(command).await.ok();
            servers.assert_no_secret(&format!("{done:?}{}", fs::read_to_string(&log).unwrap()));
        }
    }
    let mut command = example("client_credentials");
    command
        .env("DPOP_CLIENT_SECRET", SECRET)
        .env("DPOP_KEY_PASSWORD", PASSWORD)
        .arg("--help");
    let done = finish(command).await.ok();
    assert!(done.stdout.contains("DPOP_CLIENT_SECRET"));
    assert!(!done.stdout.contains(SECRET) && !done.stdout.contains(PASSWORD));
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_trusted_if_named() {
    let servers = Servers::start().await;
    let url = tls_server();
    let ca = file("ca.pem", TLS_CERTIFICATE);
    let client = |url: &str| {
        let mut command = example("client_credentials");
        command.args(["--token-endpoint", &servers.authorization.token_endpoint()]);
        command.args([
            "--client-id",
            CLIENT_ID,
            "--client-secret",
            SECRET,
            "--key",
            KEY,
            url,
        ]);
        command
    };
    let refused = finish(client(&url)).await;
    assert!(refused.error(1).contains("--ca FILE"), "{refused:?}");

    let mut command = client(&url);
    command.args(["--ca", path(&ca)]);
    assert_eq!(
        finish(command).await.ok().stdout,
        "HTTP/1.1 200 OK\nhello over TLS\n"
    );
}

/// Answers one connection after the other, each with one answer.
fn tls_server() -> String {
    let certificate = CertificateDer::from_pem_slice(TLS_CERTIFICATE.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(TLS_KEY.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/orders", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match tls.read(&mut buffer) {
                    Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
                    // The client that does not trust us goes away.
                    _ => break,
                }
            }
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nhello over TLS");
            let _ = tls.flush();
        }
    });
    url
}

fn check<'a>(url: &'a str, method: &'a Method) -> Check<'a> {
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    Check::new(method, url, now)
}

fn dpop(proof: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("dpop", HeaderValue::from_str(proof.trim_end()).unwrap());
    headers
}

#[tokio::test]
async fn proofs_are_right() {
    let key = DpopKey::from_file(KEY, None).unwrap();
    let url = "https://api.example.com/orders";
    let token = file("token", "canary-token\n");
    let args = [
        "--key",
        KEY,
        "--url",
        "https://API.example.com:443/orders?x[]=1",
        "--method",
        "POST",
        "--access-token-file",
        path(&token),
        "--nonce",
        "-n1",
    ];
    let done = run("proof", &args).await.ok();
    assert_eq!(done.stderr, "");
    let valid = check(url, &Method::POST).access_token("canary-token", key.thumbprint());
    let valid = valid.verify(&dpop(&done.stdout)).unwrap();
    assert_eq!(valid.nonce(), Some("-n1"));

    let done = run("proof", &[&args[..], &["--explain"]].concat())
        .await
        .ok();
    for text in [
        key.thumbprint(),
        r#""typ": "dpop+jwt""#,
        r#""htm": "POST""#,
        &format!(r#""htu": "{url}""#),
        r#""nonce": "-n1""#,
        r#""ath": "#,
        "curl --globoff -X 'POST' -H \"Authorization: DPoP $TOKEN\" -H 'DPoP: ey",
        "' 'https://API.example.com:443/orders?x[]=1'\n",
    ] {
        assert!(done.stdout.contains(text), "{text}: {}", done.stdout);
    }
    assert!(!done.stdout.contains("canary"), "{}", done.stdout);
}

#[tokio::test]
async fn proof_refuses_what_makes_no_proof() {
    let url = ["--url", "https://api.example.com/"];
    // A JWT whose `cnf.jkt` is that of another key.
    let claims = URL_SAFE_NO_PAD.encode(r#"{"cnf":{"jkt":"another"}}"#);
    let bound = format!("canary.{claims}.canary");
    for (args, code, word) in [
        (&["--url", "/orders"][..], 2, "https://"),
        (
            &["--url", "https://u:canary@api.example.com/"],
            2,
            "user information",
        ),
        (&[&url[..], &["--method", "G T"]].concat(), 2, "--method"),
        (
            &[&url[..], &["--access-token", "can ary"]].concat(),
            1,
            "access token",
        ),
        (
            &[&url[..], &["--access-token", &bound, "--key", KEY]].concat(),
            1,
            "another key",
        ),
        (&["--write-key", KEY], 1, "not written"),
    ] {
        let done = run("proof", args).await;
        assert!(done.error(code).contains(word), "{done:?}");
        assert!(!done.stderr.contains("canary"), "{done:?}");
        assert_eq!(done.stdout, "");
    }
    // No URL, but what only makes sense with one.
    let done = run("proof", &["--nonce", "x"]).await;
    assert_eq!(done.code, Some(2));
}

/// A proof and its key for a token request by other means; then the token by `own_token`.
#[tokio::test]
async fn a_token_got_by_hand_is_used() {
    let servers = Servers::start().await;
    servers.api.nonces(Nonces::one_time());
    let endpoint = servers.authorization.token_endpoint();
    let key = fresh("key.pem");
    let args = [
        "--url",
        &endpoint,
        "--method",
        "POST",
        "--write-key",
        path(&key),
    ];
    let proof = run("proof", &args).await.ok();
    assert_eq!(proof.stderr, "");
    let done = run("proof", &args).await;
    assert!(
        done.error(1).contains("not written"),
        "it does not overwrite: {done:?}"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("client_secret", SECRET)
        .finish();
    let request = Request::post(&endpoint)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("dpop", proof.stdout.trim_end())
        .body(Full::<Bytes>::from(form))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let members: Value = serde_json::from_slice(&body).unwrap();
    let token = members["access_token"].as_str().unwrap();

    let url = servers.api.url("/orders");
    let token_file = file("token", &format!("{token}\n"));
    let args = [
        "--key",
        path(&key),
        "--access-token-file",
        path(&token_file),
        &url,
    ];
    let done = run("own_token", &args).await.ok();
    assert!(done.stdout.starts_with("HTTP/1.1 200 OK\n{"), "{done:?}");
    servers.assert_no_secret(&format!("{done:?}"));
    assert_eq!(
        servers.api.requests().len(),
        2,
        "a nonce challenge in between"
    );

    let mut command = example("own_token");
    command
        .env("DPOP_ACCESS_TOKEN", token)
        .args(["--key", KEY, &url]);
    let done = finish(command).await;
    assert!(done.error(1).contains("401"), "another key: {done:?}");
    servers.assert_no_secret(&format!("{done:?}"));

    let done = run("own_token", &["--key", path(&key), &url]).await;
    assert!(done.error(2).contains("--access-token-file"), "{done:?}");
    let args = [
        "--key",
        path(&key),
        "--access-token",
        token,
        "http://127.0.0.1:1/",
    ];
    let done = run("own_token", &args).await;
    assert!(done.error(1).contains("is the server up"), "{done:?}");
}

fn mask(content_type: &str, body: &str) -> String {
    mask_bytes(content_type, body.as_bytes())
}

fn mask_bytes(content_type: &str, body: &[u8]) -> String {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", content_type.parse().unwrap());
    Masking::default().body(&headers, body)
}

#[test]
fn bodies_are_masked() {
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    for (body, shown) in [
        ("a=1&client_secret=canary&b", "a=1&client_secret=***&b"),
        ("client%5Fsecret=canary", "client%5Fsecret=***"),
        ("CLIENT_SECRET=canary", "CLIENT_SECRET=***"),
        (
            "client_assertion_type=urn%3Ax&client_assertion=canary",
            "client_assertion_type=urn%3Ax&client_assertion=***",
        ),
        (
            "refresh_token=canary&password=canary&code=canary",
            "refresh_token=***&password=***&code=***",
        ),
        (
            "code_verifier=canary&scope=a+b",
            "code_verifier=***&scope=a+b",
        ),
        // Repeated elsewhere in the same body.
        ("note=canary1&secret=canary1", "note=***&secret=***"),
    ] {
        assert_eq!(mask(form, body), shown);
    }
    for (body, shown) in [
        (
            r#"{"access_token":"canary","expires_in":300}"#,
            r#"{"access_token":"***","expires_in":300}"#,
        ),
        (
            r#"{"a":{"id\u005ftoken":"canary"},"token_type":"DPoP"}"#,
            r#"{"a":{"id_token":"***"},"token_type":"DPoP"}"#,
        ),
        (
            r#"[{"secrets":["canary",{"x":7}]}]"#,
            r#"[{"secrets":["***",{"x":"***"}]}]"#,
        ),
        (r#"{"code":"not_found"}"#, r#"{"code":"not_found"}"#),
    ] {
        for media_type in ["application/json", "Application/Problem+JSON"] {
            assert_eq!(mask(media_type, body), shown);
        }
    }
    // What is not what it claims to be may hold anything.
    assert_eq!(
        mask("application/json", r#"{"access_token":"canary"#),
        "(23 bytes)"
    );
    assert_eq!(mask("application/octet-stream", "canary"), "(6 bytes)");
    assert_eq!(mask_bytes("text/plain", &[0xff, 0xfe]), "(2 bytes)");
    assert_eq!(
        Masking::default().body(&HeaderMap::new(), b"canary"),
        "(6 bytes)"
    );
    assert_eq!(
        mask("text/html", "<b>\u{1b}[2J</b>\r\n"),
        "<b>\u{fffd}[2J</b>\u{fffd}\n"
    );
    let long = mask("text/plain", &"ä".repeat(5000));
    assert!(long.ends_with("ä\n… (10000 bytes in all)"), "{long}");
    assert_eq!(long.matches('ä').count(), 4096);
}

#[test]
fn headers_are_masked() {
    let mut masking = Masking::default();
    for (name, value, shown) in [
        ("authorization", "DPoP canary-token", "DPoP ***"),
        ("authorization", "Basic aWQ6Y2FuYXJ5JTJCMQ==", "Basic ***"),
        ("authorization", "canary", "***"),
        ("proxy-authorization", "Basic canary", "Basic ***"),
        ("dpop", "canary.proof.x", "***"),
        ("set-cookie", "id=canary; HttpOnly", "***"),
        ("x-auth-token", "canary", "***"),
        ("dpop-nonce", "nonce", "nonce"),
        (
            "www-authenticate",
            r#"DPoP error="use_dpop_nonce""#,
            r#"DPoP error="use_dpop_nonce""#,
        ),
        (
            "location",
            "https://x.example/cb?code=canary&state=s#token=canary",
            "https://x.example/cb?code=***&state=s#token=***",
        ),
        // What was masked before.
        ("x-echo", "DPoP canary-token", "DPoP ***"),
        (
            "x-echo",
            "the secret canary%2B1, canary+1",
            "the secret ***, ***",
        ),
    ] {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_static(value);
        assert_eq!(masking.header(&name, &value), shown, "{name}");
    }
    let mut sensitive = HeaderValue::from_static("canary");
    sensitive.set_sensitive(true);
    assert_eq!(
        masking.header(&HeaderName::from_static("x-any"), &sensitive),
        "***"
    );
    assert_eq!(masking.url("/a?api_key=canary&b=1"), "/a?api_key=***&b=1");
}

/// For 127.0.0.1, until 2120.
const TLS_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBZTCCAQugAwIBAgIBATAKBggqhkjOPQQDAjAaMRgwFgYDVQQDDA90b3dlci1k
cG9wIHRlc3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBoxGDAW
BgNVBAMMD3Rvd2VyLWRwb3AgdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA
BPcekvsX/+STDmH+tloiVUapU8+CPLz89e46NC1gIBowZFTP/tev9nTsBgtytmO1
uvoePhykT3CBSyTM36O3K6CjQDA+MA8GA1UdEQQIMAaHBH8AAAEwDAYDVR0TAQH/
BAIwADAdBgNVHQ4EFgQUWVtgVMfEzpyIsI4WxUCSDUPJwZwwCgYIKoZIzj0EAwID
SAAwRQIhALv/D37LGpvTYA0oe7ri11XsLjLNGGN+Zl3naApp6byeAiBzxJsvu9Be
3ukta+DJd7C4EhnjoTpy9EBDj9BFG3/nVw==
-----END CERTIFICATE-----
";

/// For this test only.
const TLS_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvSq6tbFxKVI5nb8K
Jhe83kse11A4tqX5zgHWFROxYLShRANCAAT3HpL7F//kkw5h/rZaIlVGqVPPgjy8
/PXuOjQtYCAaMGRUz/7Xr/Z07AYLcrZjtbr6Hj4cpE9wgUskzN+jtyug
-----END PRIVATE KEY-----
";
