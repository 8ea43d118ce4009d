//! The examples where a user logs in: with the test as the browser, over a real listener.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Uri, header::LOCATION};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::{sleep, timeout};
use tower_dpop::testing::{CLIENT_ID, Profile, Recorded};

use super::{Done, KEY, SECRET, Servers, example, finish, fresh, path, run};

/// Against a hang; nothing here takes a tenth of it.
const LONG: Duration = Duration::from_secs(60);

const PROMPT: &str = "open this in a browser here: ";

/// An example at work. It is stopped with its test.
pub(super) struct Running {
    child: Child,
    stderr: Option<BufReader<ChildStderr>>,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().map(BufReader::new);
        Self { child, stderr }
    }

    /// What the user is to open.
    pub(super) async fn prompt(&mut self) -> String {
        let mut stderr = self.stderr.take().unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stderr.read_line(&mut line).unwrap();
            (stderr, line)
        });
        let Ok(read) = timeout(LONG, reading).await else {
            self.child.kill().unwrap();
            panic!("it asks nobody");
        };
        let (stderr, line) = read.unwrap();
        self.stderr = Some(stderr);
        let url = line.strip_prefix(PROMPT);
        url.unwrap_or_else(|| panic!("no prompt: {line}"))
            .trim_end()
            .to_owned()
    }

    /// To its end. What it says fits into the pipes.
    pub(super) async fn done(mut self) -> Done {
        let ended = async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => break status,
                    None => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let status = timeout(LONG, ended).await.expect("the example ends");
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let mut out = self.child.stdout.take().unwrap();
        out.read_to_string(&mut stdout).unwrap();
        let mut err = self.stderr.take().unwrap();
        err.read_to_string(&mut stderr).unwrap();
        Done {
            code: status.code(),
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the embedded server sends a browser that opens `url`.
pub(super) async fn sent_to(url: &str) -> Uri {
    let browser = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = browser.get(url.parse().unwrap()).await.unwrap();
    let location = answer.headers()[LOCATION].to_str().unwrap();
    location.parse().unwrap()
}

fn connect(to: &Uri) -> TcpStream {
    let authority = to.authority().unwrap().as_str();
    let stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// What the listener answers to these bytes: all of it, or what came until it was cut off.
pub(super) async fn visit(to: &Uri, bytes: impl Into<Vec<u8>>) -> String {
    let (to, bytes) = (to.clone(), bytes.into());
    let visit = tokio::task::spawn_blocking(move || {
        let mut stream = connect(&to);
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    });
    visit.await.unwrap()
}

pub(super) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: a browser\r\n\r\n")
}

pub(super) fn target(uri: &Uri) -> &str {
    uri.path_and_query().unwrap().as_str()
}

/// The user's part: the browser goes where it is sent.
async fn answer(running: &mut Running) -> String {
    let to = sent_to(&running.prompt().await).await;
    visit(&to, get(target(&to))).await
}

fn forms(requests: &[Recorded], place: &str) -> Vec<Vec<(String, String)>> {
    let requests = requests
        .iter()
        .filter(|request| request.uri().path() == place);
    let forms = requests.map(|request| form_urlencoded::parse(request.body()).into_owned());
    forms.map(Iterator::collect).collect()
}

fn value<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values = form.iter().filter(|(known, _)| known == name);
    let value = values.next().map(|(_, value)| value.as_str());
    assert!(values.next().is_none(), "{name} twice");
    value
}

impl Servers {
    async fn with_app() -> Self {
        let servers = Self::start().await;
        servers.authorization.add_public_client("app");
        servers
    }

    fn app(&self, args: &[&str]) -> Command {
        let mut command = example("authorization_code");
        command.args([
            "--issuer",
            self.authorization.issuer(),
            "--client-id",
            "app",
        ]);
        command.args(args).arg(self.api.url("/orders"));
        command
    }

    fn paths(&self) -> Vec<String> {
        let requests = self.authorization.requests();
        let paths = requests
            .iter()
            .map(|request| request.uri().path().to_owned());
        paths
            .filter(|path| !path.starts_with("/.well-known/"))
            .collect()
    }

    /// Nor what was sent for a login: codes, verifiers, refresh tokens.
    fn assert_no_grant(&self, done: &Done) {
        let text = format!("{}{}", done.stdout, done.stderr);
        self.assert_no_secret(&text);
        for form in forms(&self.authorization.requests(), "/token") {
            for name in ["code", "code_verifier", "refresh_token", "client_secret"] {
                let secret = value(&form, name);
                assert!(
                    secret.is_none_or(|secret| !text.contains(secret)),
                    "{name} in {text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_login_is_shown_from_its_beginning_to_its_end() {
    let directory = fresh("tmp");
    fs::create_dir(&directory).unwrap();
    for args in [
        &[][..],
        &["--client-secret", SECRET, "--client-auth", "basic"],
        &["--key", KEY, "--scope", "a b", "--resource", "urn:x"],
    ] {
        let mut command = example("authorization_code");
        command.args(args).env("TMPDIR", &directory);
        let done = finish(command).await.ok();
        assert_eq!(done.stderr, "");
        assert!(!done.stdout.contains(SECRET));
        let lines: Vec<&str> = done.stdout.lines().collect();
        let titles: Vec<&str> = lines
            .iter()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let expected = [
            "discovery",
            "login",
            "API",
            "API",
            "restart",
            "API",
            "logout",
            "API",
        ];
        assert_eq!(titles, expected);
        for line in [lines[2], lines[3], lines[5]] {
            assert!(line.contains("200 OK"), "{done:?}");
        }
        assert!(lines[7].contains("invalid_token"), "{done:?}");
        let left: Vec<_> = fs::read_dir(&directory).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn an_account_is_shown_without_arguments() {
    for args in [
        &[][..],
        &[
            "--client-id",
            "https://app.example/client.json",
            "--handle",
            "alice.test",
        ],
    ] {
        let done = run("bluesky", args).await.ok();
        assert!(done.stdout.starts_with("HTTP/1.1 200 OK\n{"), "{done:?}");
        assert!(
            done.stdout.contains("com.atproto.server.getSession"),
            "{done:?}"
        );
        assert_eq!(done.stderr, "note: logged in by the user\n");
    }
}

#[tokio::test]
async fn a_login_outlives_the_program() {
    let servers = Servers::with_app().await;
    let store = fresh("grant.json");
    let args = ["--store", path(&store), "--scope", "orders"];

    let mut first = Running::start(servers.app(&args));
    let page = answer(&mut first).await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    let done = first.done().await.ok();
    assert!(done.stdout.starts_with("HTTP/1.1 200 OK\n{"), "{done:?}");
    assert!(done.stdout.contains(r#""scope":"orders""#), "{done:?}");
    assert_eq!(servers.paths(), ["/par", "/authorize", "/token"]);
    servers.assert_no_grant(&done);

    // Nobody is asked.
    for runs in 1..=2 {
        let done = Running::start(servers.app(&args)).done().await.ok();
        assert!(done.stdout.starts_with("HTTP/1.1 200 OK\n{"), "{done:?}");
        servers.assert_no_grant(&done);
        assert_eq!(servers.paths().len(), 3 + runs);
    }
    let forms = forms(&servers.authorization.requests(), "/token");
    let refreshed: Vec<_> = forms
        .iter()
        .map(|form| value(form, "refresh_token"))
        .collect();
    assert!(refreshed[0].is_none() && refreshed[1].is_some() && refreshed[2].is_some());
    assert_ne!(refreshed[1], refreshed[2], "each is good once");

    let args = [&args[..], &["--logout"]].concat();
    let done = Running::start(servers.app(&args)).done().await.ok();
    assert_eq!(done.stderr, "note: logged out\n");
    assert_eq!(servers.paths().last().unwrap(), "/revoke");
    assert!(!store.exists());
    let done = Running::start(servers.app(&args)).done().await.ok();
    assert_eq!(done.stderr, "note: nobody was logged in\n");

    // The next one has to ask again.
    Running::start(servers.app(&args[..2])).prompt().await;
}

#[tokio::test]
async fn a_stored_grant_that_is_over_says_what_to_do() {
    let servers = Servers::with_app().await;
    let store = fresh("grant.json");
    let args = ["--store", path(&store)];
    let mut first = Running::start(servers.app(&args));
    answer(&mut first).await;
    first.done().await.ok();
    servers.authorization.revoke_refresh_tokens();
    let done = Running::start(servers.app(&args)).done().await;
    let line = done.error(1);
    assert!(line.contains("invalid_grant"), "{line}");
    let advice = format!("(remove {} to log in anew)", store.display());
    assert!(line.ends_with(&advice), "{line}");
    servers.assert_no_grant(&done);

    // Another key than the stored grant's is refused before anything is sent.
    let before = servers.paths().len();
    let args = [&args[..], &["--key", KEY]].concat();
    let done = Running::start(servers.app(&args)).done().await;
    assert!(done.error(1).contains("bound to another key"), "{done:?}");
    assert_eq!(servers.paths().len(), before);
}

#[tokio::test]
async fn a_server_that_tells_nothing_is_told_by_hand() {
    let servers = Servers::start().await;
    let secret = super::file("secret", SECRET);
    let mut command = example("authorization_code");
    let authorization = &servers.authorization;
    command.args([
        "--authorization-endpoint",
        &authorization.authorization_endpoint(),
    ]);
    command.args(["--token-endpoint", &authorization.token_endpoint()]);
    command.args(["--issuer", authorization.issuer(), "--client-id", CLIENT_ID]);
    command.args(["--client-secret-file", path(&secret), "--resource", "urn:x"]);
    command.arg(servers.api.url("/orders"));
    let mut running = Running::start(command);
    answer(&mut running).await;
    let done = running.done().await.ok();
    assert_eq!(servers.paths(), ["/authorize", "/token"]);
    let forms = forms(&authorization.requests(), "/token");
    assert_eq!(value(&forms[0], "client_secret"), Some(SECRET));
    assert_eq!(value(&forms[0], "resource"), Some("urn:x"));
    servers.assert_no_grant(&done);
}

#[tokio::test]
async fn the_listener_waits_for_the_answer_whatever_else_comes() {
    let servers = Servers::with_app().await;
    let mut running = Running::start(servers.app(&[]));
    let to = sent_to(&running.prompt().await).await;
    let right = target(&to);
    let of_another = right.replace(
        "iss=http%3A%2F%2F127.0.0.1",
        "iss=http%3A%2F%2Fevil.example",
    );
    assert_ne!(right, of_another);
    let unnamed = right.split("&iss=").next().unwrap();

    // As browsers have them open ahead of need: one after the other, they would take longer than a test may.
    let silent: Vec<TcpStream> = (0..8).map(|_| connect(&to)).collect();
    connect(&to).shutdown(Shutdown::Both).unwrap();
    for stray in [
        "/favicon.ico",
        "/",
        "/callback",
        "/callback?code=stray&state=stray",
        "/callback?error=stray&state=stray",
        &of_another,
        unnamed,
        &right.replace("/callback", "/other"),
        &format!("{right}&state=stray"),
    ] {
        let page = visit(&to, get(stray)).await;
        assert!(
            page.starts_with("HTTP/1.1 404 Not Found\r\n"),
            "{stray}: {page}"
        );
        assert!(
            !page.contains("stray") && !page.contains("evil") && !page.contains("code"),
            "{page}"
        );
    }
    for unreadable in [
        format!("POST {right} HTTP/1.1\r\nHost: x\r\n\r\n"),
        "\u{0}\r\n\r\n".to_owned(),
    ] {
        assert_eq!(visit(&to, unreadable).await, "");
    }
    let endless = connect(&to);
    let endless = tokio::task::spawn_blocking(move || (&endless).write_all(&vec![b'x'; 32 << 20]));
    assert!(endless.await.unwrap().is_err(), "it reads whatever comes");

    let page = visit(&to, get(right)).await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(
        page.contains("\r\ncontent-security-policy: default-src 'none'\r\n"),
        "{page}"
    );
    assert!(page.contains("This page can be closed."), "{page}");
    let done = running.done().await.ok();
    drop(silent);
    assert!(done.stdout.starts_with("HTTP/1.1 200 OK\n{"), "{done:?}");
    // What looked like an answer is told, what a browser asks for beside it is not.
    let notes = done.stderr.lines().inspect(|line| {
        assert!(line.starts_with("note: an answer was not used: "), "{line}");
    });
    assert_eq!(notes.count(), 6, "{done:?}");
    assert!(done.stderr.contains("evil.example"), "{done:?}");
    servers.assert_no_grant(&done);
}

#[tokio::test]
async fn a_user_who_says_no_ends_it() {
    let servers = Servers::with_app().await;
    servers.authorization.deny_authorizations(true);
    let mut running = Running::start(servers.app(&[]));
    let page = answer(&mut running).await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("Nothing was granted."), "{page}");
    let done = running.done().await;
    assert!(done.error(1).contains("access_denied"), "{done:?}");
    assert!(servers.api.requests().is_empty());
}

#[tokio::test]
async fn an_account_is_used_as_its_server_asks_for() {
    let servers = Servers::start().await;
    servers.authorization.profile(Profile::Bluesky);
    servers
        .authorization
        .require_pushed_authorization_requests(true);
    servers.authorization.add_public_client("http://localhost");
    servers.api.profile(Profile::Bluesky);
    let store = fresh("grant.json");
    let command = || {
        let mut command = example("bluesky");
        command.args([
            servers.api.origin(),
            "--store",
            path(&store),
            "--handle",
            "alice.test",
        ]);
        command
    };

    let mut first = Running::start(command());
    let to = sent_to(&first.prompt().await).await;
    assert_eq!(
        to.path(),
        "/",
        "where every PDS sends the client for development"
    );
    let unnamed = target(&to).split("&iss=").next().unwrap();
    assert!(visit(&to, get(unnamed)).await.starts_with("HTTP/1.1 404 "));
    assert!(
        visit(&to, get(target(&to)))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let done = first.done().await.ok();
    assert!(done.stdout.starts_with("HTTP/1.1 200 OK\n{"), "{done:?}");
    assert!(
        done.stderr.ends_with("note: logged in by the user\n"),
        "{done:?}"
    );
    servers.assert_no_grant(&done);

    let done = Running::start(command()).done().await.ok();
    let expected = "note: logged in by the refresh token that was stored\n";
    assert_eq!(done.stderr, expected);
    servers.assert_no_grant(&done);

    let requests = servers.authorization.requests();
    let pushed = forms(&requests, "/par");
    let last = pushed.last().unwrap();
    assert_eq!(value(last, "client_id"), Some("http://localhost"));
    assert_eq!(value(last, "scope"), Some("atproto"));
    assert_eq!(value(last, "login_hint"), Some("alice.test"));
    // Of those that were looked at, none lacked a nonce, and no refresh token came twice: one for the renewal of the
    // first run, two of the second.
    let accepted = |request: &&Recorded| request.refused().is_none();
    let accepted: Vec<Recorded> = requests.iter().filter(accepted).cloned().collect();
    let proven = accepted
        .iter()
        .filter(|request| request.headers().contains_key("dpop"));
    assert!(
        proven
            .inspect(|request| assert!(request.claim("nonce").is_some()))
            .count()
            > 0
    );
    let forms = forms(&accepted, "/token");
    let mut refreshed: Vec<_> = forms
        .iter()
        .filter_map(|form| value(form, "refresh_token"))
        .collect();
    assert_eq!(refreshed.len(), 3);
    refreshed.sort_unstable();
    refreshed.dedup();
    assert_eq!(refreshed.len(), 3);
}

#[tokio::test]
async fn what_a_login_lacks_is_told_in_one_line() {
    let url = "http://127.0.0.1:1/orders";
    for (args, expected) in [
        (
            &["--client-id", "app"][..],
            "missing: the API's URL and --issuer",
        ),
        (&[url], "missing: --client-id and --issuer"),
        (
            &["--store", "x"],
            "missing: the API's URL and --client-id and --issuer",
        ),
        (
            &[
                url,
                "--client-id",
                "app",
                "--token-endpoint",
                "http://127.0.0.1:1/",
            ],
            "missing: --issuer",
        ),
        (&["--logout"], "--store"),
        (&["--redirect-port", "canary"], "--redirect-port"),
        (&["--client-auth", "canary"], "--client-auth"),
        (&["--canary", "canary"], "not known"),
        (
            &[
                "canary://x",
                "--issuer",
                "http://127.0.0.1:1",
                "--client-id",
                "x",
            ],
            "https://",
        ),
    ] {
        let done = run("authorization_code", args).await;
        let line = done.error(2);
        assert!(line.contains(expected), "{line}");
        assert!(!line.contains("canary"), "{line}");
    }
    for args in [
        &["--store", "canary"][..],
        &["canary"],
        &["https://u:canary@pds.example"],
        &["--redirect-port", "canary"],
        &["--canary"],
    ] {
        let done = run("bluesky", args).await;
        assert!(!done.error(2).contains("canary"), "{done:?}");
    }
    for name in ["authorization_code", "bluesky"] {
        let done = run(name, &["--help"]).await.ok();
        for flag in [
            "--store",
            "--redirect-port",
            "--client-id",
            "--scope",
            "--ca",
        ] {
            assert!(done.stdout.contains(flag), "{done:?}");
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let servers = Servers::with_app().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let done = Running::start(servers.app(&["--redirect-port", &port]));
    let done = done.done().await;
    let line = done.error(1);
    assert!(
        line.contains(&port) && line.contains("--redirect-port"),
        "{line}"
    );
    drop(taken);
    let mut running = Running::start(servers.app(&["--redirect-port", &port]));
    let to = sent_to(&running.prompt().await).await;
    assert_eq!(to.port_u16(), port.parse().ok());
    assert_eq!(to.path(), "/callback");
}
