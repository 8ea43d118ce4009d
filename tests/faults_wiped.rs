//! What is left of secrets in memory: F73 of the fault catalogue. In a program of its own, whose allocator gives
//! no block back, so that all that was ever written to the heap can be read afterwards.
//!
//! Looked for are the key, the client's secret and refresh tokens. What the caller made before, and what the
//! client below holds, is theirs to wipe. Not looked for is what cannot be wiped by this crate:
//!
//! - what the HTTP client copies: hyper writes requests, and with them access tokens and the token request's
//!   secrets, to buffers of its own, and reads answers into such;
//! - what is on the stack, and what the operating system swapped out.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt::Write as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame};
use p256::{ecdsa::SigningKey, pkcs8::DecodePrivateKey as _};
use support::{API, ENDPOINT, get, own_token, saves::saves, with_token};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_dpop::{
    Audience, AuthorizationRequest, BoxError, DpopKey, DpopLayer, FileStore, Grant, GrantStore,
    OAuthClient, Registration, ServerMetadata, StoredGrant, TokenLayer, TokenRequest, proof::Proof,
};
use zeroize::Zeroize as _;

unsafe extern "C" {
    /// A search by hand takes a hundred times as long without optimisation.
    fn memmem(hay: *const u8, size: usize, needle: *const u8, length: usize) -> *const u8;
}

/// Keeps a list of all blocks, and gives none back.
struct Keeping;

const MOST_BLOCKS: usize = 1 << 20;

static BLOCKS: [Block; MOST_BLOCKS] = [const { Block::none() }; MOST_BLOCKS];
static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Block {
    start: AtomicPtr<u8>,
    size: AtomicUsize,
}

impl Block {
    const fn none() -> Self {
        Self {
            start: AtomicPtr::new(std::ptr::null_mut()),
            size: AtomicUsize::new(0),
        }
    }
}

#[global_allocator]
static KEEPING: Keeping = Keeping;

// SAFETY: every block comes from the system's allocator. A vector that grows gets a new one, by the default
// `realloc`, so that what it leaves behind is on the list as well.
unsafe impl GlobalAlloc for Keeping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that all of it can be read.
        // SAFETY: the caller's promise is passed on.
        let start = unsafe { System.alloc_zeroed(layout) };
        let block = BLOCKS.get(COUNT.fetch_add(1, Ordering::Relaxed));
        if let (Some(block), false) = (block, start.is_null()) {
            block.size.store(layout.size(), Ordering::Relaxed);
            block.start.store(start, Ordering::Release);
        }
        start
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// One test at a time: while the heap is read nothing is written, and nobody else's secrets are found.
struct Alone(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Alone {
    fn wait() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        Self(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn heap_from_now_on(&self) -> Heap<'_> {
        Heap {
            from: COUNT.load(Ordering::Relaxed),
            to: usize::MAX,
            _alone: self,
        }
    }
}

/// What is written to the heap in a time.
struct Heap<'a> {
    from: usize,
    to: usize,
    _alone: &'a Alone,
}

impl Heap<'_> {
    /// How many blocks hold this, be they free or not.
    fn holding(&self, needle: &[u8]) -> usize {
        let count = COUNT.load(Ordering::Relaxed);
        assert!(count < MOST_BLOCKS, "too many to be listed");
        let to = self.to.min(count);
        let mut hits = 0;
        for block in &BLOCKS[self.from..to] {
            let start = block.start.load(Ordering::Acquire);
            if start.is_null() {
                continue;
            }
            let size = block.size.load(Ordering::Relaxed);
            // SAFETY: a block of this size, zeroed when it was made and never given back. No other thread
            // runs but the test harness's, which waits.
            let found = unsafe { memmem(start, size, needle.as_ptr(), needle.len()) };
            hits += usize::from(!found.is_null());
        }
        hits
    }

    /// In which of its forms a secret is still there.
    fn left(&self, forms: &Forms) -> Vec<&'static str> {
        let held = forms
            .0
            .iter()
            .filter(|(_, needle)| self.holding(needle) > 0);
        let mut names: Vec<_> = held.map(|(name, _)| *name).collect();
        names.dedup();
        names
    }
}

/// A secret, as it may stand in memory. Made before the heap is looked at.
struct Forms(Vec<(&'static str, Vec<u8>)>);

impl Forms {
    fn of_text(secret: &str) -> Self {
        let raw = secret.as_bytes();
        let (first, last) = (&raw[..12], &raw[raw.len() - 12..]);
        let mut forms: Vec<_> = [raw, first, last].map(|raw| ("raw", raw.to_vec())).into();
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        forms.push(("percent", form.clone().into_bytes()));
        for text in [secret, &form] {
            forms.extend(inside_base64(text.as_bytes()));
        }
        Self(forms)
    }

    /// Of the private key in this PEM text.
    fn of_key(pem: &str) -> Self {
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let signing = SigningKey::from_pkcs8_der(&STANDARD.decode(base64).unwrap()).unwrap();
        let scalar = signing.to_bytes();
        let reversed = scalar.iter().rev().copied().collect();
        let hex = scalar.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let mut forms = vec![
            ("raw", scalar.to_vec()),
            ("raw", scalar[..16].to_vec()),
            ("raw", scalar[16..].to_vec()),
            ("as it is reckoned with", reversed),
            ("hex", hex.into_bytes()),
        ];
        // In parts as well: the lines of a PEM file break it.
        for part in [&scalar[..], &scalar[..12], &scalar[12..24]] {
            forms.extend(inside_base64(part));
        }
        Self(forms)
    }
}

/// What of a base64 text shows the bytes, wherever in a longer text they stand.
fn inside_base64(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = Vec::new();
    for start in 0..3 {
        let bytes = &bytes[start..];
        // The last characters depend on what follows.
        let cut = |mut text: String| {
            text.truncate(bytes.len() / 3 * 4);
            text.into_bytes()
        };
        forms.push(("base64", cut(STANDARD.encode(bytes))));
        forms.push(("base64", cut(URL_SAFE_NO_PAD.encode(bytes))));
    }
    forms
}

#[test]
fn what_is_left_behind_is_found() {
    let alone = Alone::wait();
    let secret = "canary of/the+scan itself";
    let forms = Forms::of_text(secret);
    let heap = alone.heap_from_now_on();
    assert!(heap.left(&forms).is_empty());
    drop(std::hint::black_box(secret.to_owned()));
    assert_eq!(heap.left(&forms), ["raw"]);
    // A vector that grows leaves its old block.
    let heap = alone.heap_from_now_on();
    let mut grown = zeroize::Zeroizing::new(Vec::with_capacity(secret.len()));
    grown.extend_from_slice(secret.as_bytes());
    grown.push(b'!');
    drop(grown);
    assert_eq!(heap.left(&forms), ["raw"]);
    let heap = alone.heap_from_now_on();
    drop(zeroize::Zeroizing::new(secret.to_owned()));
    drop(std::hint::black_box(
        STANDARD.encode(format!("id:{secret}?")),
    ));
    assert_eq!(heap.left(&forms), ["raw", "base64"], "`format!` left it");
}

// The key.

const PASSWORD: Option<&str> = Some("correct horse");

/// Signs by itself and through a layer, and is dropped.
async fn use_up(key: DpopKey) {
    let uri = API.parse().unwrap();
    let proof = Proof::new(&http::Method::GET, &uri).unwrap();
    proof.sign(&key).unwrap();
    let client = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(support::ok()) });
    let layer = DpopLayer::new(key.clone());
    let stack = layer.layer(client);
    let request = with_token(get(API), &own_token(&key));
    stack.clone().oneshot(request.clone()).await.unwrap();
    drop((stack, layer, request));
    drop(key.to_pkcs8_pem().unwrap());
}

fn files(folder: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys");
    let files = std::fs::read_dir(directory.join(folder)).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

#[tokio::test]
async fn f73_nothing_is_left_of_a_key_in_any_format() {
    let alone = Alone::wait();
    let files = [files("good"), files("opened")].concat();
    assert!(files.len() > 40);
    let key = DpopKey::from_file(&files[0], PASSWORD).unwrap();
    let forms = Forms::of_key(&key.to_pkcs8_pem().unwrap());
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let heap = alone.heap_from_now_on();
        let key = DpopKey::from_bytes(&bytes, PASSWORD).unwrap();
        // Where it should be; so it would be found elsewhere, too.
        assert_eq!(heap.left(&forms), ["as it is reckoned with"], "{path:?}");
        use_up(key).await;
        assert_eq!(heap.left(&forms), [""; 0], "{path:?}");
        use_up(DpopKey::from_file(&path, PASSWORD).unwrap()).await;
        assert_eq!(heap.left(&forms), [""; 0], "{path:?}");
    }
}

#[test]
fn f73_nor_of_one_that_was_refused() {
    let alone = Alone::wait();
    let good = &files("good")[0];
    let key = DpopKey::from_file(good, PASSWORD).unwrap();
    let forms = Forms::of_key(&key.to_pkcs8_pem().unwrap());
    for path in files("bad") {
        let bytes = std::fs::read(&path).unwrap();
        let heap = alone.heap_from_now_on();
        DpopKey::from_bytes(&bytes, PASSWORD).unwrap_err();
        DpopKey::from_bytes(&bytes, None).unwrap_err();
        DpopKey::from_file(&path, PASSWORD).unwrap_err();
        assert_eq!(heap.left(&forms), [""; 0], "{path:?}");
    }
}

#[tokio::test]
async fn f73_nor_of_one_that_was_made_here() {
    let alone = Alone::wait();
    // The same random numbers cannot be had again, so it is looked for from the beginning.
    let heap = alone.heap_from_now_on();
    let key = DpopKey::generate().unwrap();
    let to = COUNT.load(Ordering::Relaxed);
    let forms = Forms::of_key(&key.to_pkcs8_pem().unwrap());
    let made = Heap { to, ..heap };
    assert_eq!(made.left(&forms), ["as it is reckoned with"]);
    let used = alone.heap_from_now_on();
    use_up(key).await;
    assert_eq!(used.left(&forms), [""; 0]);
    let made = Heap {
        from: 0,
        to,
        ..used
    };
    assert_eq!(made.left(&forms), [""; 0]);
}

/// By `AwsLcRs`, as far as the memory is this program's and not that of the library in C, which does as its authors say.
#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
mod by_aws_lc_rs {
    use tower_dpop::AwsLcRs;

    use super::*;

    /// Of the private parts of the key in this JWK, without the zeros that they may begin with.
    fn forms_of_jwk(json: &str) -> Forms {
        let jwk: serde_json::Value = serde_json::from_str(json).unwrap();
        let mut forms = Vec::new();
        for name in ["d", "p", "q", "dp", "dq", "qi"] {
            let Some(text) = jwk[name].as_str() else {
                continue;
            };
            let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            for part in bytes.chunks_exact(16) {
                forms.push(("raw", part.to_vec()));
                forms.push(("reversed", part.iter().rev().copied().collect()));
                forms.extend(inside_base64(part));
            }
        }
        assert!(forms.len() > 8);
        Forms(forms)
    }

    async fn nothing_is_left(alone: &Alone, path: &Path, forms: &Forms) {
        let bytes = std::fs::read(path).unwrap();
        let heap = alone.heap_from_now_on();
        use_up(AwsLcRs::from_bytes(&bytes, PASSWORD).unwrap()).await;
        use_up(AwsLcRs::from_file(path, PASSWORD).unwrap()).await;
        drop(DpopKey::from_file(path, PASSWORD));
        assert_eq!(heap.left(forms), [""; 0], "{path:?}");
    }

    #[tokio::test]
    async fn f73_nothing_is_left_of_a_p256_key() {
        let alone = Alone::wait();
        let key = DpopKey::from_file(&files("good")[0], PASSWORD).unwrap();
        let forms = Forms::of_key(&key.to_pkcs8_pem().unwrap());
        for path in [files("good"), files("opened")].concat() {
            nothing_is_left(&alone, &path, &forms).await;
        }
    }

    #[tokio::test]
    async fn f73_nor_of_an_rsa_or_ed25519_key() {
        let alone = Alone::wait();
        for folder in ["rsa", "ed25519"] {
            let files = files(folder);
            let jwk = files
                .iter()
                .find(|path| path.ends_with("jwk.json"))
                .unwrap();
            let forms = forms_of_jwk(&std::fs::read_to_string(jwk).unwrap());
            let names = ["pkcs", "encrypted", "jwk", "version"];
            let mut count = 0;
            for path in &files {
                let name = path.file_name().unwrap().to_str().unwrap();
                if names.iter().any(|own| name.starts_with(own)) {
                    nothing_is_left(&alone, path, &forms).await;
                    count += 1;
                }
            }
            assert!(count > 6, "{folder}");
        }
    }

    #[test]
    fn f73_nor_of_one_that_was_refused() {
        let alone = Alone::wait();
        let good = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys/rsa/jwk.json"),
        );
        let forms = forms_of_jwk(&good.unwrap());
        for path in files("rsa-bad") {
            let bytes = std::fs::read(&path).unwrap();
            let heap = alone.heap_from_now_on();
            AwsLcRs::from_bytes(&bytes, None).unwrap_err();
            assert_eq!(heap.left(&forms), [""; 0], "{path:?}");
        }
    }
}

// The client's secret, and tokens.

const SECRET: &str = "client's-canary/+% and its secret";
const TOKEN: &str = "access-t0ken-canary";
const REFRESH: [&str; 3] = [
    "first-refresh-canary/+one",
    "second-refresh-canary/+two",
    "third-refresh-canary/+three",
];

/// An answer that comes in two parts, in memory that is not looked at.
#[derive(Clone)]
struct Parts(u16, [&'static [u8]; 2]);

impl Parts {
    fn new(status: u16, text: String) -> Self {
        let text = text.leak().as_bytes();
        let (first, second) = text.split_at(text.len() / 2);
        Self(status, [first, second])
    }

    fn token(refresh_token: &str) -> Self {
        let members = serde_json::json!({
            "access_token": TOKEN, "token_type": "DPoP", "expires_in": 300,
            "refresh_token": refresh_token,
        });
        // As PHP writes it.
        Self::new(200, members.to_string().replace('/', r"\/"))
    }

    /// What holds secrets, and is no token.
    fn bad() -> Vec<Self> {
        // A server can repeat in its texts what it was just sent.
        let sent = [SECRET, REFRESH[2]].concat();
        let refusal = |error: &str| {
            let members = serde_json::json!({"error": error, "error_description": sent});
            members.to_string()
        };
        let all = [SECRET, TOKEN, REFRESH[0], REFRESH[1], REFRESH[2]].concat();
        let Self(_, [first, second]) = Self::token(REFRESH[2]);
        let cut = [first, &second[..second.len() - 1]].concat();
        vec![
            Self::new(401, refusal("invalid_client")),
            Self::new(400, refusal("use_dpop_nonce")),
            Self::new(400, refusal("invalid_request")),
            Self::new(200, String::from_utf8(cut).unwrap()),
            Self::new(200, all.clone()),
            Self::new(503, all),
        ]
    }

    fn response(&self) -> Response<Streamed> {
        let frames = self.1.map(|part| Full::new(Bytes::from_static(part)));
        let [first, second] = frames;
        let body = Streamed::new(Chain(first, second));
        let response = Response::builder().status(self.0);
        response.header("dpop-nonce", "n").body(body).unwrap()
    }
}

type Streamed = UnsyncBoxBody<Bytes, BoxError>;

/// One body after the other.
struct Chain(Full<Bytes>, Full<Bytes>);

impl Body for Chain {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let part = if this.0.is_end_stream() {
            &mut this.1
        } else {
            &mut this.0
        };
        let frame = Pin::new(part).poll_frame(cx);
        frame.map_err(|never| match never {})
    }
}

/// Fetches a token for each answer and uses it, until one is refused; then all is dropped.
async fn fetch(request: TokenRequest, answers: Vec<Parts>) {
    let count = AtomicUsize::new(0);
    let last = answers.last().unwrap().clone();
    let answers = Arc::new((count, answers));
    let asked = answers.clone();
    // Drops what it is given, without a copy.
    let client = service_fn(move |request: Request<Full<Bytes>>| {
        let (count, answers) = &*answers;
        let answer = match request.uri().host() == Some(support::bench::AS) {
            true => answers.get(count.fetch_add(1, Ordering::Relaxed)),
            false => None,
        };
        let response = match (answer, request.headers().contains_key("accept")) {
            (Some(answer), _) => answer.response(),
            (None, true) => last.response(),
            (None, false) => Response::new(Streamed::default()),
        };
        std::future::ready(Ok::<_, BoxError>(response))
    });
    let dpop = DpopLayer::new(support::a3_key());
    let audience = Audience::origins([API]).unwrap();
    let tokens = TokenLayer::new(&dpop, client.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens.clone())
        .layer(dpop)
        .service(client);
    for number in 1.. {
        let outcome = stack.clone().oneshot(get(API)).await;
        if let Err(error) = outcome {
            assert!(number >= asked.1.len(), "{error}");
            drop(format!("{error} {error:?}"));
            return;
        }
        tokens.forget_tokens();
    }
}

/// For each end that it may take, what is left of these secrets.
async fn nothing_is_left(request: impl Fn() -> TokenRequest, secrets: &[&str]) {
    let alone = Alone::wait();
    let forms: Vec<_> = secrets
        .iter()
        .map(|secret| Forms::of_text(secret))
        .collect();
    for (number, bad) in Parts::bad().into_iter().enumerate() {
        let mut answers: Vec<_> = REFRESH[1..]
            .iter()
            .map(|token| Parts::token(token))
            .collect();
        answers.push(bad);
        let heap = alone.heap_from_now_on();
        fetch(request(), answers).await;
        for (secret, forms) in secrets.iter().zip(&forms) {
            assert_eq!(heap.left(forms), [""; 0], "{secret}, end {number}");
        }
    }
}

fn client() -> TokenRequest {
    TokenRequest::client_credentials(ENDPOINT, "id")
}

#[tokio::test(start_paused = true)]
async fn f73_nothing_is_left_of_the_clients_secret() {
    nothing_is_left(|| client().client_secret_post(SECRET), &[SECRET]).await;
    nothing_is_left(|| client().client_secret_basic(SECRET), &[SECRET]).await;
    let signed = || {
        let registration = Registration::new(ENDPOINT, "id").client_secret_jwt(SECRET);
        TokenRequest::new(registration, Grant::client_credentials())
    };
    nothing_is_left(signed, &[SECRET]).await;
}

#[tokio::test(start_paused = true)]
async fn f73_nor_of_an_authorization_code() {
    const CODE: &str = "c0de-canary/+1, of a kind";
    const STATE: &str = "state canary/+1, a text of mine";
    const HINT: &str = "id token hint's canary/+1";
    // In memory that is not looked at.
    let answer = form_urlencoded::Serializer::new(String::from("/cb?"))
        .extend_pairs([("code", CODE), ("state", STATE)])
        .finish()
        .leak();
    let refusal = form_urlencoded::Serializer::new(String::from("/cb?"))
        .extend_pairs([
            ("error", "e"),
            ("error_description", HINT),
            ("state", STATE),
        ])
        .finish()
        .leak();
    let request = || {
        let server = ServerMetadata::new("https://as.example.com")
            .with_authorization_endpoint("https://as.example.com/authorize")
            .with_token_endpoint(ENDPOINT);
        let registration = Registration::new(server, "id");
        let http = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(support::ok()) });
        let dpop = DpopLayer::new(support::a3_key());
        let client = OAuthClient::new(&dpop, http, registration.clone()).unwrap();
        let request = AuthorizationRequest::new("https://app.example.com/cb")
            .state(STATE)
            .parameter("id_token_hint", HINT);
        // What needs no answer is ready at once.
        let mut begun = tokio_test::task::spawn(client.authorize(request));
        let pending = tokio_test::assert_ready_ok!(begun.poll());
        drop(pending.answered(refusal).unwrap_err());
        TokenRequest::new(registration, pending.answered(answer).unwrap())
    };
    nothing_is_left(request, &[CODE, STATE, HINT]).await;
}

#[tokio::test(start_paused = true)]
async fn f73_nor_of_refresh_tokens() {
    let request = || {
        let request = TokenRequest::refresh_token(ENDPOINT, "app", REFRESH[0]);
        request.store(saves(|mut token| {
            // What it is given is its own to wipe.
            token.zeroize();
            async { Ok(()) }
        }))
    };
    nothing_is_left(request, &REFRESH).await;
}

#[tokio::test(start_paused = true)]
async fn f73_nor_of_access_tokens_with_a_client_that_copies_none() {
    nothing_is_left(client, &[TOKEN]).await;
}

// What is stored.

#[tokio::test]
async fn f73_nor_of_a_grant_that_was_stored() {
    let alone = Alone::wait();
    // So long that what grows would be outgrown in the middle of it.
    let long = "and so on, ".repeat(200);
    let refresh_token = &*format!("canary-to-be-stored/\\+\"quoted\"{long}");
    let (key, other) = (DpopKey::generate().unwrap(), DpopKey::generate().unwrap());
    let forms = [
        Forms::of_text(refresh_token),
        Forms::of_key(&key.to_pkcs8_pem().unwrap()),
    ];
    let left = |heap: &Heap<'_>| forms.each_ref().map(|forms| heap.left(forms)).concat();
    let grant = |key| StoredGrant::new(key, refresh_token, "https://as.example.com", "app", None);
    let json = grant(&key).to_json().unwrap();
    let directory = std::env::temp_dir().join(format!("tower-dpop-wiped-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("grant.json");

    let heap = alone.heap_from_now_on();
    let store = FileStore::new(&path);
    store.save(grant(&key)).await.unwrap();
    let held = store.load().await.unwrap().unwrap();
    assert_eq!(left(&heap), ["raw", "as it is reckoned with"]);
    drop(held);
    store.save(grant(&key)).await.unwrap();
    assert_eq!(left(&heap), [""; 0]);
    // Refused: cut off, of another key, with something that it cannot be.
    for bad in [
        json[..json.len() - 1].to_owned(),
        json.replace(key.thumbprint(), other.thumbprint()),
        json.replace("\"app\"", "7"),
        json.replace("grant\":1", "grant\":2"),
        format!("{}{}", &*json, &*json),
    ] {
        std::fs::write(&path, &bad).unwrap();
        let heap = alone.heap_from_now_on();
        drop(format!(
            "{:?}",
            StoredGrant::from_json(bad.as_bytes()).unwrap_err()
        ));
        drop(format!("{:?}", store.load().await.unwrap_err()));
        assert_eq!(left(&heap), [""; 0]);
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
