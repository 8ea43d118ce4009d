//! The examples of the clients, run as a user runs them: against servers of one's own, with and without TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;

use std::{
    convert::Infallible,
    env, fs, io,
    path::PathBuf,
    process::{self, Command},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_dpop::testing::{CLIENT_ID, CLIENT_SECRET, Nonces};

use self::clients::{World, in_time};

/// Each with its flags, and how often it asks the API for an answer.
const EXAMPLES: [(&str, &[&str], usize); 5] = [
    ("axum", &[], 5),
    ("hyper", &[], 1),
    ("hyper", &["--http2"], 1),
    ("oauth2", &[], 1),
    ("reqwest", &[], 1),
];

struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// `cargo test` builds the examples beside the tests. Runs one to its end, while the servers of this runtime go on.
async fn run(name: &str, flags: &[&str], servers: &[&str]) -> Done {
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
    command.args(flags).args(servers);
    for name in ["DPOP_CLIENT_SECRET", "DPOP_KEY_PASSWORD"] {
        command.env_remove(name);
    }
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = in_time(output).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Done {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Against the servers of a world.
async fn run_in(world: &World, name: &str, flags: &[&str]) -> Done {
    let servers = [
        &world.api.url("/orders?page=2"),
        "--token-endpoint",
        &world.authorization_server.token_endpoint(),
        "--client-id",
        CLIENT_ID,
        "--client-secret",
        CLIENT_SECRET,
        "--scope",
        "api",
    ];
    run(name, flags, &servers).await
}

#[tokio::test]
async fn each_talks_to_the_servers_that_it_is_given() {
    for (name, flags, requests) in EXAMPLES {
        let world = World::start().await;
        world.authorization_server.nonces(Nonces::required());
        let done = run_in(&world, name, flags).await;
        assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
        let (asked, served) = world.statuses();
        assert_eq!(asked, [400, 200], "{name}");
        assert_eq!(served, vec![200; requests], "{name}");
        for seen in world.authorization_server.requests() {
            let form = String::from_utf8(seen.body().to_vec()).unwrap();
            assert!(form.contains("scope=api"), "{name}: {form}");
        }
        for seen in world.api.requests() {
            assert_eq!(seen.uri().path_and_query().unwrap(), "/orders?page=2");
        }
        let sent = format!("{0} requests sent, {0} proofs", requests + 2);
        assert!(done.stdout.contains(&sent), "{name}: {}", done.stdout);
        assert!(!done.stdout.contains(CLIENT_SECRET));
    }
}

#[tokio::test]
async fn each_fails_if_the_api_does() {
    for (name, flags, requests) in EXAMPLES {
        let world = World::start().await;
        world.api.fail(requests, StatusCode::NOT_FOUND);
        let done = run_in(&world, name, flags).await;
        assert_eq!(done.code, Some(1), "{name}: {}", done.stdout);
        assert!(
            done.stderr.starts_with("error: "),
            "{name}: {}",
            done.stderr
        );
        assert_eq!(done.stderr.lines().count(), 1, "{name}: {}", done.stderr);
    }
}

#[tokio::test]
async fn each_fails_without_a_token() {
    for (name, flags, _) in EXAMPLES {
        let world = World::start().await;
        world.authorization_server.token_type("Bearer");
        let done = run_in(&world, name, flags).await;
        assert_eq!(done.code, Some(1), "{name}: {}", done.stdout);
        assert_eq!(world.api.request_count(), 0);
    }
}

/// Both servers in one, with TLS, which gives tokens and answers whatever carries one with a proof. Returns its
/// origin and the file of its certificate.
async fn tls_server(name: &str) -> (String, PathBuf) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let file = env::temp_dir().join(format!("tower-dpop-stacks-{}-{name}.pem", process::id()));
    fs::write(&file, cert.pem()).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let io = TokioIo::new(acceptor.accept(tcp).await?);
                let service =
                    service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) });
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
                Ok::<_, io::Error>(())
            });
        }
    });
    (origin, file)
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !request.headers().contains_key("dpop") {
        let refusal = Response::builder().status(401).body(Full::default());
        return refusal.unwrap();
    }
    let version = match request.version() {
        Version::HTTP_2 => "by HTTP/2",
        _ => "by HTTP/1.1",
    };
    let answer = match request.uri().path() {
        "/token" => json!({ "access_token": "t", "token_type": "DPoP", "expires_in": 300 }),
        _ => json!({ "asked": version }),
    };
    Response::new(answer.to_string().into())
}

#[tokio::test]
async fn each_speaks_https_and_believes_only_whom_it_is_told_to() {
    for (name, flags, _) in EXAMPLES {
        let (origin, certificate) = tls_server(&format!("{name}{}", flags.len())).await;
        let (url, endpoint) = (format!("{origin}/orders"), format!("{origin}/token"));
        let servers = [&url, "--token-endpoint", &endpoint, "--client-id", "me"];
        let strangers = run(name, flags, &servers).await;
        assert_eq!(strangers.code, Some(1), "{name}");

        let ca = ["--ca", certificate.to_str().unwrap()];
        let done = run(name, flags, &[&servers[..], &ca].concat()).await;
        fs::remove_file(&certificate).unwrap();
        assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
        let version = match (name, flags) {
            ("axum" | "oauth2", _) | ("hyper", ["--http2"]) => "by HTTP/2",
            _ => "by HTTP/1.1",
        };
        assert!(done.stdout.contains(version), "{name}: {}", done.stdout);
    }
}
