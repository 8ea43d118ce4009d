//! The examples for servers in use: what they print is what they do.

use std::{collections::BTreeSet, process::Command};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64URL},
};
use bytes::Bytes;
use http::{Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tower_dpop::{
    DpopKey,
    testing::{AuthorizationServer, CLIENT_ID, Profile, Recorded, ResourceServer},
};

use super::{
    Done, KEY, SECRET, check, dpop, example, file, fresh,
    login::{Running, get, sent_to, target, visit},
    path, run,
};

fn thumbprint() -> String {
    let key = DpopKey::from_file(KEY, None).unwrap();
    key.thumbprint().to_owned()
}

fn form(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}

/// The one value of a parameter.
fn value(pairs: &[(String, String)], name: &str) -> String {
    let mut values = pairs.iter().filter(|(known, _)| known == name);
    let (_, value) = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(values.next(), None);
    value.clone()
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Header and claims of a JWT.
fn read(jwt: &str) -> [Value; 2] {
    let parts: Vec<&str> = jwt.split('.').collect();
    [0, 1].map(|part| serde_json::from_slice(&BASE64URL.decode(parts[part]).unwrap()).unwrap())
}

/// The thumbprint of the key of a proof that is good for this request.
fn proven(proof: &str, method: &Method, url: &str) -> String {
    let proof = check(url, method).verify(&dpop(proof)).unwrap();
    proof.thumbprint().to_owned()
}

/// Whatever arrived that nobody else may see, as it is and as it is sent.
fn secrets(requests: &[Recorded]) -> BTreeSet<String> {
    let mut secrets = BTreeSet::from([SECRET.to_owned(), encoded(SECRET), STANDARD.encode(SECRET)]);
    for request in requests {
        for name in ["authorization", "dpop"] {
            for value in request.headers().get_all(name) {
                secrets.extend(value.to_str().unwrap().split(' ').map(str::to_owned));
            }
        }
        for (name, value) in form(request.body()) {
            let public = [
                "client_id",
                "grant_type",
                "scope",
                "redirect_uri",
                "resource",
            ];
            if !public.contains(&&*name) {
                secrets.insert(value);
            }
        }
    }
    for scheme in [
        "Basic",
        "DPoP",
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    ] {
        secrets.remove(scheme);
    }
    secrets
}

fn assert_no_secret(done: &Done, secrets: &BTreeSet<String>) {
    let said = format!("{}{}", done.stdout, done.stderr);
    for secret in secrets.iter().filter(|secret| secret.len() > 4) {
        assert!(!said.contains(secret), "{secret} in: {said}");
    }
}

fn json_answer(json: &Value) -> Response<Bytes> {
    let answer = Response::builder().header("content-type", "application/json");
    answer.body(Bytes::from(json.to_string())).unwrap()
}

/// To its end, whatever it waits for.
async fn finish(command: Command) -> Done {
    Running::start(command).done().await
}

/// The same, with a user who is given the URL that is to be opened, and says where the browser is sent.
async fn with_user(command: Command, user: impl AsyncFnOnce(&str) -> Uri) -> Done {
    let mut running = Running::start(command);
    let to = user(&running.prompt().await).await;
    let page = visit(&to, get(target(&to))).await;
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    running.done().await
}

#[tokio::test]
async fn okta_runs_without_arguments() {
    let done = run("okta", &[]).await.ok();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "HTTP/1.1 200 OK");
    assert!(lines[1].contains("/api/v1/users"), "{done:?}");
    // The first call costs two.
    let expected = [
        "POST /token: the proof has no nonce",
        "POST /token: a token",
    ];
    assert_eq!(lines[2..], expected);
    assert!(done.stderr.starts_with("note: no issuer named"), "{done:?}");
}

#[tokio::test]
async fn each_try_at_okta_has_an_assertion_of_its_own() {
    let authorization_server = AuthorizationServer::start().await.unwrap();
    let api = ResourceServer::start(&authorization_server).await.unwrap();
    authorization_server.profile(Profile::Okta);
    api.profile(Profile::Okta);
    let client_key = DpopKey::generate().unwrap();
    authorization_server.add_client_with_key("0oa1", &client_key);
    let client_key_file = file("client.pem", &client_key.to_pkcs8_pem().unwrap());
    let args = [
        "--issuer",
        authorization_server.issuer(),
        "--client-id",
        "0oa1",
        "--client-key",
        path(&client_key_file),
        "--key-id",
        "2026-11",
        "--scope",
        "okta.users.read okta.groups.read",
        "--key",
        KEY,
        &api.url("/api/v1/users"),
    ];
    let done = run("okta", &args).await.ok();
    assert_eq!(done.stderr, "");
    assert_eq!(done.stdout.lines().count(), 2);

    let requests = authorization_server.requests();
    assert_eq!(requests[0].method(), Method::GET, "discovery");
    let [refused, accepted] = &requests[1..] else {
        panic!("{requests:?}")
    };
    assert_eq!(refused.refused(), Some("the proof has no nonce"));
    assert_eq!(accepted.status(), Some(StatusCode::OK));
    let mut jtis = BTreeSet::new();
    for request in [refused, accepted] {
        let pairs = form(request.body());
        assert_eq!(value(&pairs, "grant_type"), "client_credentials");
        assert_eq!(value(&pairs, "scope"), "okta.users.read okta.groups.read");
        let [header, claims] = read(&value(&pairs, "client_assertion"));
        assert_eq!(header["kid"], "2026-11");
        let endpoint = authorization_server.token_endpoint();
        assert_eq!(claims["aud"], endpoint);
        jtis.insert(claims["jti"].as_str().unwrap().to_owned());
        // The server has checked the assertion by the client's key; this is the other one.
        let proof = request.proof().unwrap();
        assert_eq!(proven(proof, &Method::POST, &endpoint), thumbprint());
    }
    assert_eq!(jtis.len(), 2);
    assert_ne!(client_key.thumbprint(), thumbprint());
    let [call] = &api.requests()[..] else {
        panic!("no nonce is asked for by the API")
    };
    assert_eq!(call.uri().path(), "/api/v1/users");
    assert_eq!(call.claim("nonce"), None);
    assert_no_secret(&done, &secrets(&[requests, api.requests()].concat()));
}

#[tokio::test]
async fn wso2_runs_both_flows_without_arguments() {
    let done = run("wso2", &[]).await.ok();
    let answers = done.stdout.lines().filter(|line| line.starts_with("HTTP/"));
    assert!(answers.eq(["HTTP/1.1 200 OK"; 3]), "{done:?}");
    assert!(done.stderr.lines().all(|line| line.starts_with("note: ")));
    assert_eq!(done.stderr.lines().count(), 2);

    let (said, saw) = done
        .stdout
        .split_once("# The authorization server saw:\n")
        .unwrap();
    let tokens = commands(said);
    assert_eq!(tokens.len(), 6);
    let endpoint = between(&tokens[0], "--url '", "'");
    assert_eq!(between(&tokens[0], "curl --globoff '", "'"), endpoint);
    assert!(endpoint.ends_with("/token"), "{endpoint}");
    let url = said
        .lines()
        .find(|line| line.contains("response_type=code"))
        .unwrap();
    let query = form(url.split_once('?').unwrap().1.as_bytes());
    let token = |grant_type: &str| {
        format!(
            "# POST /token, grant_type={grant_type}, Authorization: Basic, DPoP: a proof for {endpoint}"
        )
    };
    let expected = [
        token("client_credentials"),
        format!("# GET /authorize, dpop_jkt={}", value(&query, "dpop_jkt")),
        token("authorization_code"),
        token("refresh_token"),
    ];
    assert_eq!(saw.lines().collect::<Vec<_>>(), expected);
    assert_eq!(value(&query, "dpop_jkt").len(), 43);
    assert!(!done.stdout.contains(tower_dpop::testing::CLIENT_SECRET));

    let of_one = ["--flow", "client-credentials", "--key", KEY];
    let done = run("wso2", &of_one).await.ok();
    assert_eq!(commands(&done.stdout).len(), 2);
    assert_eq!(done.stderr.lines().count(), 1);
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap();
    rest.split_once(after).unwrap().0
}

/// The commands for curl.
fn commands(said: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in said.lines() {
        if goes_on {
            let last = commands.last_mut().unwrap();
            *last = format!("{last}\n{line}");
        } else if line.starts_with("curl ") {
            commands.push(line.to_owned());
        } else {
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

/// A server that has its endpoints where WSO2's are, and an API. What it answers has to be ordered.
struct Wso2 {
    authorization_server: AuthorizationServer,
    api: ResourceServer,
    base: String,
    url: String,
}

impl Wso2 {
    async fn start() -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        let api = ResourceServer::start(&authorization_server).await.unwrap();
        Self {
            base: format!("{}/t/example.com", authorization_server.origin()),
            url: api.url("/scim2/Users?filter=userName%20eq%20a[0]&it's"),
            authorization_server,
            api,
        }
    }

    fn gives(&self, access_token: &str, refresh_token: Option<&str>) {
        let mut token =
            json!({"access_token": access_token, "token_type": "DPoP", "expires_in": 3600});
        if let Some(refresh_token) = refresh_token {
            token["refresh_token"] = refresh_token.into();
        }
        self.authorization_server.answer(1, json_answer(&token));
    }

    fn command(&self, args: &[&str]) -> Command {
        let secret = file("secret", &format!("{SECRET}\n"));
        let mut command = example("wso2");
        command.args(["--base-url", &format!("{}/", self.base)]);
        command.args([
            "--client-id",
            CLIENT_ID,
            "--client-secret-file",
            path(&secret),
        ]);
        command.args(["--key", KEY, &self.url]).args(args);
        command
    }

    fn requests(&self) -> Vec<Recorded> {
        [self.authorization_server.requests(), self.api.requests()].concat()
    }
}

/// What a command is to be run with, as its user would.
struct Shell(Vec<(&'static str, String)>);

impl Shell {
    /// The arguments that curl gets.
    #[cfg(unix)]
    async fn curl(&self, line: &str) -> Vec<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = fresh("bin");
        std::fs::create_dir(&directory).unwrap();
        for (name, script) in [
            ("curl", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"),
            (
                "cargo",
                "#!/bin/sh\necho \"$@\" | grep -q '^run -q --example proof -- ' || exit 1\nshift 5\nexec \"$PROOF\" \"$@\"\n",
            ),
        ] {
            let script_file = directory.join(name);
            std::fs::write(&script_file, script).unwrap();
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&script_file, executable).unwrap();
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-e", "-c", line]).envs(self.0.clone());
        command.env("PATH", format!("{}:/usr/bin:/bin", path(&directory)));
        command.env("PROOF", example("proof").get_program());
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        let done = finish(command).await.ok();
        assert_eq!(done.stderr, "");
        done.stdout.lines().map(str::to_owned).collect()
    }
}

/// Curl's arguments stand for this request: another proof, and all else the same.
fn assert_stands_for(curl: &[String], request: &Recorded, url: &str) {
    let mut arguments = curl.iter().map(String::as_str);
    let (mut urls, mut method, mut body) = (Vec::new(), Method::GET, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut next = || arguments.next().unwrap();
        match argument {
            "--globoff" => {}
            "--cacert" => drop(next()),
            "-X" => method = next().parse().unwrap(),
            "-u" => {
                let basic = format!("Basic {}", STANDARD.encode(next()));
                assert_eq!(request.headers()["authorization"], basic);
            }
            "-H" => match next().split_once(": ").unwrap() {
                ("DPoP", proof) => {
                    let (without_query, _) = url.split_once('?').unwrap_or((url, ""));
                    let [header, claims] = read(proof);
                    let [its_header, its_claims] = read(request.proof().unwrap());
                    assert_eq!(header, its_header);
                    assert_eq!(claims["htm"], its_claims["htm"]);
                    assert_eq!(claims["htu"], without_query);
                    assert_eq!(claims["htu"], its_claims["htu"]);
                    assert_eq!(claims["ath"], its_claims["ath"]);
                }
                (name, value) => assert_eq!(request.headers()[name], value),
            },
            "-d" => body.extend(form(next().as_bytes())),
            "--data-urlencode" => {
                let (name, value) = next().split_once('=').unwrap();
                body.push((name.to_owned(), value.to_owned()));
            }
            url => urls.push(url),
        }
    }
    let sent = request.uri().path_and_query().unwrap();
    assert_eq!(urls, [url]);
    assert!(url.ends_with(sent.as_str()), "{url} is not {sent}");
    assert_eq!(method, request.method());
    let mut sent = form(request.body());
    sent.sort();
    body.sort();
    assert_eq!(body, sent);
}

#[cfg(unix)]
#[tokio::test]
async fn the_curl_commands_for_client_credentials_are_what_is_sent() {
    let wso2 = Wso2::start().await;
    wso2.gives("canary-token", None);
    wso2.api.answer(1, json_answer(&json!({})));
    let ca = "tests/data/keys/bad/certificate.pem";
    let args = [
        "--flow",
        "client-credentials",
        "--scope",
        "a $b 'c'",
        "--ca",
        ca,
    ];
    let done = finish(wso2.command(&args)).await.ok();
    assert_eq!(done.stderr, "");

    let [token, call] = &wso2.requests()[..] else {
        panic!("two requests")
    };
    let shell = Shell(vec![
        ("KEY_FILE", KEY.to_owned()),
        ("CLIENT_SECRET", encoded(SECRET)),
        ("ACCESS_TOKEN", "canary-token".to_owned()),
    ]);
    let commands = commands(&done.stdout);
    let endpoint = format!("{}/oauth2/token", wso2.base);
    let of_token = shell.curl(&commands[0]).await;
    assert_stands_for(&of_token, token, &endpoint);
    let of_call = shell.curl(&commands[1]).await;
    assert_stands_for(&of_call, call, &wso2.url);
    for curl in [of_token, of_call] {
        let ca_at = curl.iter().position(|argument| argument == "--cacert");
        assert_eq!(curl[ca_at.unwrap() + 1], ca);
    }
    assert_eq!(commands.len(), 2);
    assert_eq!(value(&form(token.body()), "scope"), "a $b 'c'");
    assert_no_secret(&done, &secrets(&wso2.requests()));
}

#[cfg(unix)]
#[tokio::test]
async fn the_curl_commands_for_a_code_are_what_is_sent() {
    let wso2 = Wso2::start().await;
    wso2.gives("canary-token-1", Some("canary-refresh-1"));
    wso2.gives("canary-token-2", Some("canary-refresh-2"));
    wso2.api.answer(2, json_answer(&json!({})));
    let command = wso2.command(&["--flow", "authorization-code", "--scope", "openid"]);
    let issuer = encoded(&format!("{}/oauth2/token", wso2.base));
    let mut opened = String::new();
    let done = with_user(command, async |url| {
        opened = url.to_owned();
        let query = form(url.split_once('?').unwrap().1.as_bytes());
        let (to, state) = (value(&query, "redirect_uri"), value(&query, "state"));
        format!("{to}?code=canary%2Fcode&state={state}&iss={issuer}")
            .parse()
            .unwrap()
    })
    .await
    .ok();

    // The authorization request that was opened, and the one that is shown.
    let (endpoint, query) = opened.split_once('?').unwrap();
    assert_eq!(endpoint, format!("{}/oauth2/authorize", wso2.base));
    let query = form(query.as_bytes());
    assert_eq!(value(&query, "dpop_jkt"), thumbprint());
    let shown = done
        .stdout
        .lines()
        .find(|line| line.contains("response_type=code"));
    let (its_endpoint, shown) = shown.unwrap().split_once('?').unwrap();
    assert_eq!(its_endpoint, format!("# {endpoint}"));
    let random = ["code_challenge", "state"];
    let sorted = |mut pairs: Vec<(String, String)>| {
        for (name, value) in &mut pairs {
            if random.contains(&&**name) {
                value.clear();
            }
        }
        pairs.sort();
        pairs
    };
    assert_eq!(sorted(form(shown.as_bytes())), sorted(query));

    let [code, refresh, first, second] = &wso2.requests()[..] else {
        panic!("four requests")
    };
    let shell = |access_token: &str| {
        Shell(vec![
            ("KEY_FILE", KEY.to_owned()),
            ("CLIENT_SECRET", encoded(SECRET)),
            ("CODE", "canary/code".to_owned()),
            ("CODE_VERIFIER", value(&form(code.body()), "code_verifier")),
            ("REFRESH_TOKEN", "canary-refresh-1".to_owned()),
            ("ACCESS_TOKEN", access_token.to_owned()),
        ])
    };
    let (before, after) = (shell("canary-token-1"), shell("canary-token-2"));
    let commands = commands(&done.stdout);
    let endpoint = format!("{}/oauth2/token", wso2.base);
    assert_stands_for(&before.curl(&commands[0]).await, code, &endpoint);
    assert_stands_for(&before.curl(&commands[1]).await, first, &wso2.url);
    assert_stands_for(&before.curl(&commands[2]).await, refresh, &endpoint);
    assert_stands_for(&after.curl(&commands[3]).await, second, &wso2.url);
    assert_eq!(commands.len(), 4);
    assert_no_secret(&done, &secrets(&wso2.requests()));
}

#[tokio::test]
async fn an_application_at_wso2_that_is_not_set_to_dpop_is_told_so() {
    let wso2 = Wso2::start().await;
    let token = json!({"access_token": "canary-token", "token_type": "Bearer", "expires_in": 3600});
    wso2.authorization_server.answer(1, json_answer(&token));
    let done = finish(wso2.command(&["--flow", "client-credentials"])).await;
    assert!(done.error(1).contains("token binding type"), "{done:?}");
    assert!(!done.stderr.contains("canary"));
}

#[tokio::test]
async fn mcp_runs_without_arguments() {
    let done = run("mcp", &[]).await.ok();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(
        lines[0].starts_with("resource: http://127.0.0.1:"),
        "{done:?}"
    );
    assert!(lines[1].starts_with("authorization server: http://127.0.0.1:"));
    assert_eq!(lines[2], "HTTP/1.1 200 OK");
    let echo: Value = serde_json::from_str(lines[3]).unwrap();
    assert_eq!(echo["scope"], "mcp:tools");
    let message: Value = serde_json::from_str(echo["body"].as_str().unwrap()).unwrap();
    assert_eq!(message["method"], "initialize");
}

/// An MCP server, and an authorization server that knows the public client `app`.
async fn mcp() -> (AuthorizationServer, ResourceServer) {
    let authorization_server = AuthorizationServer::start().await.unwrap();
    let api = ResourceServer::start(&authorization_server).await.unwrap();
    authorization_server.add_public_client("app");
    (authorization_server, api)
}

fn mcp_command(url: &str, args: &[&str]) -> Command {
    let mut command = example("mcp");
    command
        .args(["--client-id", "app", "--key", KEY, url])
        .args(args);
    command
}

#[tokio::test]
async fn mcp_finds_its_way_from_the_refusal() {
    // Whether the refusal tells where the metadata are, or leaves it to the client.
    for told in [true, false] {
        let (authorization_server, api) = mcp().await;
        api.resource_metadata_in_challenges(told);
        let url = api.url("/mcp");
        let done = with_user(mcp_command(&url, &["--scope", "a b"]), sent_to)
            .await
            .ok();
        assert_eq!(done.stderr, "");

        let requests = authorization_server.requests();
        let authorization = requests.iter().find(|one| one.uri().path() == "/authorize");
        let query = form(authorization.unwrap().uri().query().unwrap().as_bytes());
        assert_eq!(value(&query, "dpop_jkt"), thumbprint());
        assert_eq!(value(&query, "code_challenge_method"), "S256");
        assert_eq!(value(&query, "resource"), url);
        assert_eq!(value(&query, "scope"), "a b");
        let [token] = &requests
            .iter()
            .filter(|one| one.method() == Method::POST)
            .collect::<Vec<_>>()[..]
        else {
            panic!("{requests:?}")
        };
        assert_eq!(value(&form(token.body()), "resource"), url);

        let [refused, metadata, accepted] = &api.requests()[..] else {
            panic!("{:?}", api.requests())
        };
        assert_eq!(refused.status(), Some(StatusCode::UNAUTHORIZED));
        assert!(!refused.headers().contains_key("authorization"));
        assert_eq!(
            metadata.uri().path(),
            "/.well-known/oauth-protected-resource/mcp"
        );
        assert_eq!(accepted.body(), refused.body());
        assert_eq!(accepted.status(), Some(StatusCode::OK));
        assert_no_secret(&done, &secrets(&[requests, api.requests()].concat()));
    }
}

#[tokio::test]
async fn mcp_asks_for_the_scope_that_the_refusal_names() {
    let (authorization_server, api) = mcp().await;
    api.refuse(1, r#"Bearer error="insufficient_scope", scope="x y""#);
    api.metadata_member("scopes_supported", Some(r#"["x", "y", "z"]"#));
    let done = with_user(mcp_command(&api.url("/mcp"), &[]), async |url| {
        let query = form(url.split_once('?').unwrap().1.as_bytes());
        assert_eq!(value(&query, "scope"), "x y");
        sent_to(url).await
    })
    .await;
    done.ok();
    drop(authorization_server);
}

#[tokio::test]
async fn mcp_goes_nowhere_else() {
    let (authorization_server, api) = mcp().await;
    let elsewhere = ResourceServer::start(&authorization_server).await.unwrap();
    let url = api.url("/mcp");
    let leads = format!(
        "{}/.well-known/oauth-protected-resource/mcp",
        elsewhere.origin()
    );
    api.refuse(1, &format!(r#"DPoP resource_metadata="{leads}""#));
    let done = finish(mcp_command(&url, &[])).await;
    assert!(done.error(1).contains("does not allow"), "{done:?}");
    assert_eq!(elsewhere.request_count(), 0);

    let done = finish(mcp_command(&url, &["--issuer", "https://as.example"])).await;
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("not --issuer"), "{done:?}");
    api.metadata_member("authorization_servers", Some("[]"));
    let done = finish(mcp_command(&url, &[])).await;
    assert!(done.stderr.contains("no authorization server"), "{done:?}");
    assert_eq!(authorization_server.request_count(), 0);

    // One that asks for no token gets none; one in trouble is not asked again.
    api.answer(1, json_answer(&json!({"jsonrpc": "2.0"})));
    let done = finish(mcp_command(&url, &[])).await.ok();
    assert_eq!(done.stdout, "HTTP/1.1 200 OK\n{\"jsonrpc\":\"2.0\"}\n");
    api.fail(1, StatusCode::BAD_GATEWAY);
    let done = finish(mcp_command(&url, &[])).await;
    assert!(done.stderr.contains("502"), "{done:?}");
    assert_eq!(done.code, Some(1));
}

#[tokio::test]
async fn usage_errors_are_one_line() {
    let url = "https://api.example/orders";
    let okta = ["--issuer", "https://dev.okta.com", "--client-id", "x"];
    let okta = [&okta[..], &["--client-key", KEY]].concat();
    let wso2 = ["--base-url", "https://localhost:9443", "--client-id", "x"];
    let secret = ["--client-secret", "canary"];
    let bad_url = "https://user:canary@api.example/";
    for (name, args, words) in [
        (
            "okta",
            vec![url],
            &["--issuer", "--client-id", "--client-key"][..],
        ),
        ("okta", vec!["--client-key", KEY], &["URL", "--issuer"]),
        ("okta", okta.clone(), &["URL"]),
        (
            "okta",
            [&okta[..], &[bad_url]].concat(),
            &["user information"],
        ),
        (
            "okta",
            [&okta[2..], &["--issuer", bad_url, url]].concat(),
            &["user information"],
        ),
        (
            "okta",
            vec!["--client-key-password-file", "canary"],
            &["--client-key"],
        ),
        ("okta", vec!["--client-kye", "canary"], &["--client-key"]),
        ("wso2", vec![url], &["--base-url", "--client-id"]),
        ("wso2", vec!["--issuer", "canary"], &["--base-url"]),
        (
            "wso2",
            [&wso2[..], &[url]].concat(),
            &["--client-secret-file"],
        ),
        ("wso2", [&wso2[..], &secret].concat(), &["URL"]),
        (
            "wso2",
            [&wso2[..], &secret, &[bad_url]].concat(),
            &["user information"],
        ),
        (
            "wso2",
            [&wso2[2..], &secret, &["--base-url", bad_url, url]].concat(),
            &["user information"],
        ),
        (
            "wso2",
            [
                &wso2[2..],
                &secret,
                &["--base-url", "https://localhost/?canary", url],
            ]
            .concat(),
            &["query"],
        ),
        (
            "wso2",
            vec!["--flow", "canary"],
            &["client-credentials, authorization-code, both"],
        ),
        (
            "wso2",
            vec!["--client-secret", "a", "b", "canary"],
            &["one too many"],
        ),
        ("mcp", vec![url], &["--client-id"]),
        ("mcp", vec!["--client-id", "canary"], &["URL"]),
        (
            "mcp",
            vec!["--client-id", "x", bad_url],
            &["user information"],
        ),
        (
            "mcp",
            vec!["--client-id", "x", "mcp.example"],
            &["https://"],
        ),
        (
            "mcp",
            vec!["--redirect-port", "canary"],
            &["--redirect-port"],
        ),
    ] {
        let done = run(name, &args).await;
        let line = done.error(2);
        for word in words {
            assert!(line.contains(word), "{name} {args:?}: {line}");
        }
        assert!(!line.contains("canary"), "{line}");
        assert_eq!(done.stdout, "", "{name} {args:?}");
    }
    for (name, word) in [
        ("okta", "--issuer"),
        ("wso2", "--base-url"),
        ("mcp", "--client-id"),
    ] {
        let done = run(name, &["--help"]).await.ok();
        assert_eq!(done.stderr, "");
        assert!(done.stdout.contains(word));
        assert!(done.stdout.contains("Exit status"), "{name}");
    }
}

#[tokio::test]
async fn nothing_is_sent_in_clear() {
    let secret = ["--client-secret", "canary"];
    let wso2 = ["--base-url", "http://is.example:9763", "--client-id", "x"];
    let wso2 = [&wso2[..], &secret, &["https://api.example/"]].concat();
    let okta = [
        "--issuer",
        "http://okta.example",
        "--client-id",
        "x",
        "--client-key",
    ];
    let okta = [&okta[..], &[KEY, "https://api.example/"]].concat();
    for (name, args) in [("wso2", wso2), ("okta", okta)] {
        let done = run(name, &[&args[..], &["--key", KEY]].concat()).await;
        assert_eq!(done.code, Some(1));
        assert!(done.stderr.contains("plain http"), "{done:?}");
        assert!(!format!("{done:?}").contains("canary"));
    }
}

#[tokio::test]
async fn the_request_to_an_mcp_server_holds_what_the_protocol_asks_for() {
    let (_authorization_server, api) = mcp().await;
    api.answer(1, json_answer(&json!({})));
    finish(mcp_command(&api.url("/mcp"), &[])).await.ok();
    let [request] = &api.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.headers()["content-type"], "application/json");
    assert_eq!(
        request.headers()["accept"],
        "application/json, text/event-stream"
    );
    let message: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(message["jsonrpc"], "2.0");
    assert!(message["params"]["clientInfo"]["name"].is_string());
}
