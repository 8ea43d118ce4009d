//! The counters (feature `metrics`): each thing that happens counts once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{Layer as _, ServiceExt as _, util::BoxCloneSyncService};
use tower_dpop::{
    Audience, BoxError, CloneBody, DpopKey, DpopLayer, ForceRenewal, NoReplay, Replay, TokenLayer,
    TokenRequest,
    dpop::ResponseBody,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, ResourceServer},
};

type Stack = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody<Incoming>>, BoxError>;

/// Both servers, and what was counted.
struct Scene {
    authorization_server: AuthorizationServer,
    api: ResourceServer,
    counts: Snapshotter,
}

impl Scene {
    async fn start(recorder: &DebuggingRecorder) -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        let api = ResourceServer::start(&authorization_server).await.unwrap();
        Self {
            authorization_server,
            api,
            counts: recorder.snapshotter(),
        }
    }

    /// A stack without token and nonces.
    fn stack<R>(&self, replay: R) -> Stack
    where
        R: Replay<Full<Bytes>> + Clone + Send + Sync + 'static,
    {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let dpop = DpopLayer::new(DpopKey::generate().unwrap()).replay(replay);
        let endpoint = self.authorization_server.token_endpoint();
        let request =
            TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET);
        let audience = Audience::origins([self.api.origin()]).unwrap();
        let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
        BoxCloneSyncService::new(tokens.layer(dpop.layer(http)))
    }

    fn get(&self) -> Request<Full<Bytes>> {
        let request = Request::get(self.api.url("/orders"));
        request.body(Full::default()).unwrap()
    }

    async fn send(&self, stack: &Stack) -> StatusCode {
        send(stack, self.get()).await
    }

    /// What was counted since the last time, and nothing else.
    #[track_caller]
    fn counts(&self, expected: &[(&str, u64)]) {
        let mut counts = Vec::new();
        // A snapshot takes the counts out.
        for (key, _, _, value) in self.counts.snapshot().into_vec() {
            let key = key.key();
            let labels = key.labels().map(|l| format!("{}={}", l.key(), l.value()));
            let name = [key.name().to_owned()].into_iter().chain(labels);
            let name = name.collect::<Vec<_>>().join(" ");
            match value {
                DebugValue::Counter(0) => {}
                DebugValue::Counter(count) => counts.push((name, count)),
                _ => panic!("{name} is no counter"),
            }
        }
        counts.sort();
        let counts: Vec<_> = counts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(counts, expected);
    }
}

async fn send(stack: &Stack, request: Request<Full<Bytes>>) -> StatusCode {
    let response = stack.clone().oneshot(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

const TO_API: &str = "tower_dpop_proofs server=resource";
const TO_AS: &str = "tower_dpop_proofs server=authorization";
const BY_API: &str = "tower_dpop_nonce_challenges server=resource";
const BY_AS: &str = "tower_dpop_nonce_challenges server=authorization";
const FOR_NONCE: &str = "tower_dpop_resends cause=nonce";
const FOR_TOKEN: &str = "tower_dpop_resends cause=token";
const FOR_CLOCK: &str = "tower_dpop_resends cause=clock";
const NO_TOKEN: &str = "tower_dpop_renewals cause=first";
const TOKENS: &str = "tower_dpop_token_requests outcome=token";

#[tokio::test]
async fn proofs_and_tokens() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let scene = Scene::start(&recorder).await;
    let stack = scene.stack(CloneBody);
    assert_eq!(scene.send(&stack).await, 200);
    scene.counts(&[(TO_AS, 1), (TO_API, 1), (NO_TOKEN, 1), (TOKENS, 1)]);
    assert_eq!(scene.send(&stack).await, 200);
    scene.counts(&[(TO_API, 1)]);
}

#[tokio::test]
async fn a_nonce_challenge_makes_the_doubled_cost_visible() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let scene = Scene::start(&recorder).await;
    scene.authorization_server.nonces(Nonces::required());
    scene.api.nonces(Nonces::required());
    let stack = scene.stack(CloneBody);
    assert_eq!(scene.send(&stack).await, 200);
    let all = [(TO_AS, 2), (TO_API, 2), (BY_AS, 1), (BY_API, 1)];
    scene.counts(&[&all[..], &[(FOR_NONCE, 2), (NO_TOKEN, 1), (TOKENS, 1)]].concat());
    assert_eq!(scene.send(&stack).await, 200);
    scene.counts(&[(TO_API, 1)]);
}

#[tokio::test]
async fn why_tokens_are_renewed() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let scene = Scene::start(&recorder).await;
    let stack = scene.stack(CloneBody);
    assert_eq!(scene.send(&stack).await, 200);
    scene.counts(&[(TO_AS, 1), (TO_API, 1), (NO_TOKEN, 1), (TOKENS, 1)]);

    scene.authorization_server.revoke_all();
    assert_eq!(scene.send(&stack).await, 200);
    let refused = "tower_dpop_renewals cause=refused";
    scene.counts(&[
        (TO_AS, 1),
        (TO_API, 2),
        (refused, 1),
        (TOKENS, 1),
        (FOR_TOKEN, 1),
    ]);

    let mut request = scene.get();
    request.extensions_mut().insert(ForceRenewal::now());
    assert_eq!(send(&stack, request).await, 200);
    let forced = "tower_dpop_renewals cause=forced";
    scene.counts(&[(TO_AS, 1), (TO_API, 1), (forced, 1), (TOKENS, 1)]);
}

#[tokio::test]
async fn a_token_that_ended() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let scene = Scene::start(&recorder).await;
    scene.authorization_server.expires_in(Some("1"));
    let stack = scene.stack(CloneBody);
    assert_eq!(scene.send(&stack).await, 200);
    scene.counts(&[(TO_AS, 1), (TO_API, 1), (NO_TOKEN, 1), (TOKENS, 1)]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.send(&stack).await, 200);
    let over = "tower_dpop_renewals cause=over";
    scene.counts(&[(TO_AS, 1), (TO_API, 1), (over, 1), (TOKENS, 1)]);
}

#[tokio::test]
async fn what_was_not_sent_again_for_its_body() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let scene = Scene::start(&recorder).await;
    scene.api.nonces(Nonces::required());
    let stack = scene.stack(NoReplay);
    assert_eq!(scene.send(&stack).await, 401);
    let not_for_nonce = "tower_dpop_resends_refused cause=nonce";
    let fetched = [(TO_AS, 1), (NO_TOKEN, 1), (TOKENS, 1)];
    scene.counts(
        &[
            &fetched[..],
            &[(TO_API, 1), (BY_API, 1), (not_for_nonce, 1)],
        ]
        .concat(),
    );
    assert_eq!(scene.send(&stack).await, 200);
    scene.counts(&[(TO_API, 1)]);

    scene.authorization_server.revoke_all();
    assert_eq!(scene.send(&stack).await, 401);
    scene.counts(&[(TO_API, 1), ("tower_dpop_resends_refused cause=token", 1)]);
}

#[tokio::test]
async fn a_wrong_clock() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let scene = Scene::start(&recorder).await;
    scene.api.clock_offset(-600);
    scene.authorization_server.clock_offset(-600);
    let stack = scene.stack(CloneBody);
    assert_eq!(scene.send(&stack).await, 200);
    scene.counts(&[
        (TO_AS, 2),
        (TO_API, 2),
        (FOR_CLOCK, 2),
        (NO_TOKEN, 1),
        (TOKENS, 1),
    ]);
}

#[tokio::test]
async fn failures_of_the_authorization_server_by_kind() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let scene = Scene::start(&recorder).await;
    for (status, outcome) in [(400, "refused"), (503, "bad_response")] {
        let body = Bytes::from_static(br#"{"error":"invalid_scope"}"#);
        let body = if status == 400 { body } else { Bytes::new() };
        let answer = Response::builder().status(status).body(body).unwrap();
        scene.authorization_server.answer(1, answer);
        let error = scene
            .stack(CloneBody)
            .oneshot(scene.get())
            .await
            .unwrap_err();
        let outcome = format!("tower_dpop_token_requests outcome={outcome}");
        scene.counts(&[(TO_AS, 1), (NO_TOKEN, 1), (&outcome, 1)]);
        drop(error);
    }
    scene.authorization_server.stop().await;
    scene
        .stack(CloneBody)
        .oneshot(scene.get())
        .await
        .unwrap_err();
    let transport = "tower_dpop_token_requests outcome=transport";
    scene.counts(&[(TO_AS, 1), (NO_TOKEN, 1), (transport, 1)]);
}

#[tokio::test]
async fn each_challenge_counts_though_it_is_answered_no_more() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let scene = Scene::start(&recorder).await;
    scene.authorization_server.nonces(Nonces::endless());
    scene
        .stack(CloneBody)
        .oneshot(scene.get())
        .await
        .unwrap_err();
    let refused = "tower_dpop_token_requests outcome=refused";
    scene.counts(&[
        (TO_AS, 3),
        (BY_AS, 3),
        (FOR_NONCE, 2),
        (NO_TOKEN, 1),
        (refused, 1),
    ]);
}

#[test]
fn a_fetch_whose_runtime_ends_counts_as_given_up() {
    let recorder = DebuggingRecorder::new();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let scene = runtime.block_on(async {
        let scene = Scene::start(&recorder).await;
        scene.authorization_server.delay(Duration::from_secs(60));
        tokio::spawn(scene.stack(CloneBody).oneshot(scene.get()));
        while scene.authorization_server.request_count() == 0 {
            tokio::task::yield_now().await;
        }
        scene
    });
    scene.counts(&[(TO_AS, 1), (NO_TOKEN, 1)]);
    drop(runtime);
    scene.counts(&[("tower_dpop_token_requests outcome=given_up", 1)]);
}
