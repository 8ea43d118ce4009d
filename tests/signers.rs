//! Signers of one's own: what they must do to become a key, and what happens when they fail (F68 of the fault
//! catalogue).
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/stores.rs"]
mod stores;
mod support;
#[path = "support/verifier.rs"]
mod verifier;

use std::{
    error::Error as _,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{
        Signature, SigningKey,
        signature::{Signer as _, hazmat::PrehashSigner as _},
    },
    pkcs8::EncodePublicKey as _,
};
use sha2::{Digest as _, Sha256};
use stores::grant;
use support::{API, Fake, get, nonce_challenge, ok, own_token, with_token};
use tower::{Layer as _, ServiceExt as _};
use tower_dpop::{Algorithm, BoxError, DpopKey, DpopLayer, Error, StoredGrant, proof::Proof};
use verifier::Verifier;

type Signed = Result<[u8; 64], BoxError>;
type Misfit = Box<dyn Fn(&[u8]) -> Signed + Send + Sync>;

fn private(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

/// Compressed, as SEC1 writes it.
fn public(key: &SigningKey) -> Vec<u8> {
    key.verifying_key().to_sec1_point(true).as_bytes().to_vec()
}

fn signed(key: &SigningKey, message: &[u8]) -> [u8; 64] {
    let signature: Signature = key.sign(message);
    signature.to_bytes().into()
}

fn sound(seed: u8) -> impl Fn(&[u8]) -> Signed + Send + Sync + 'static {
    move |message| Ok(signed(&private(seed), message))
}

fn own() -> DpopKey {
    DpopKey::from_signer(public(&private(7)), sound(7)).unwrap()
}

/// The thumbprint of the key that signed it, by another crate.
async fn verified(proof: &str, token: Option<&str>) -> String {
    let mut verifier = Verifier::default();
    let url = format!("{API}/");
    let thumbprint = verifier.verify(proof, "GET", &url, token).await.unwrap();
    assert_eq!(verifier.count(), 1);
    thumbprint
}

#[tokio::test]
async fn a_signer_makes_a_key_whatever_form_its_public_key_has() {
    let key = private(7);
    let point = key.verifying_key().to_sec1_point(false);
    let der = key.verifying_key().to_public_key_der().unwrap();
    let base64 = STANDARD.encode(der.as_bytes());
    let pem =
        format!("A comment.\n-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n");
    let forms: [&[u8]; 4] = [
        &public(&key),
        point.as_bytes(),
        der.as_bytes(),
        pem.as_bytes(),
    ];
    for form in forms {
        let own = DpopKey::from_signer(form, sound(7)).unwrap();
        assert_eq!(own, self::own());
        assert_eq!(own.algorithm(), Algorithm::Es256);
        let (method, uri) = (http::Method::GET, API.parse().unwrap());
        let proof = Proof::new(&method, &uri).unwrap().sign(&own).unwrap();
        assert_eq!(verified(&proof, None).await, own.thumbprint());
    }
    let error = DpopKey::from_signer("no key", sound(7)).unwrap_err();
    assert!(error.is_key() && error.to_string().contains("no public key on P-256"));
}

/// What would be a refusal of every proof by every server is one error at the start.
#[test]
fn a_signer_that_does_not_fit_is_refused_when_the_key_is_made() {
    fn der_cut(message: &[u8]) -> Signed {
        let signature: Signature = private(7).sign(message);
        Ok(signature.to_der().as_bytes()[..64].try_into()?)
    }
    fn of_the_hash(message: &[u8]) -> Signed {
        Ok(signed(&private(7), &Sha256::digest(message)))
    }
    fn hash_cut(message: &[u8]) -> Signed {
        let signature: Signature = private(7).sign_prehash(&message[..32])?;
        Ok(signature.to_bytes().into())
    }
    fn swapped(message: &[u8]) -> Signed {
        let mut bytes = signed(&private(7), message);
        bytes.rotate_left(32);
        Ok(bytes)
    }
    let misfits: [Misfit; 6] = [
        Box::new(sound(8)),
        Box::new(der_cut),
        Box::new(of_the_hash),
        Box::new(hash_cut),
        Box::new(swapped),
        Box::new(|_| Ok([0; 64])),
    ];
    for (number, misfit) in misfits.into_iter().enumerate() {
        let error = DpopKey::from_signer(public(&private(7)), misfit).unwrap_err();
        assert!(error.is_key(), "{number}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("does not belong to the public key"), "{text}");
    }
}

#[test]
fn a_signer_that_fails_at_once_makes_no_key() {
    let fails = |_: &[u8]| -> Signed { Err(io::Error::other("PIN?").into()) };
    let error = DpopKey::from_signer(public(&private(7)), fails).unwrap_err();
    assert!(error.is_sign() && !error.is_key(), "{error:?}");
    assert_eq!(error.source().unwrap().to_string(), "PIN?");
}

/// Signs, but for some calls.
fn failing(at: impl Fn(usize) -> bool + Send + Sync + 'static) -> DpopKey {
    let calls = AtomicUsize::new(0);
    let signer = move |message: &[u8]| match at(calls.fetch_add(1, Ordering::Relaxed)) {
        true => Err("the token was pulled out".into()),
        false => Ok(signed(&private(7), message)),
    };
    DpopKey::from_signer(public(&private(7)), signer).unwrap()
}

#[track_caller]
fn assert_says_so(error: &BoxError) {
    let error = Error::find(&**error).expect("ours");
    assert!(error.is_sign() && !error.is_key(), "{error:?}");
    let source = error.source().unwrap().to_string();
    assert_eq!(source, "the token was pulled out");
}

#[tokio::test]
async fn f68_a_signer_that_fails_sends_nothing_and_the_next_request_works() {
    // The first call is that of the making.
    let key = failing(|call| call == 2 || call == 3);
    let fake = Fake::new(|_, _| ok());
    let stack = DpopLayer::new(key.clone()).layer(fake.clone());
    let send = || {
        stack
            .clone()
            .oneshot(with_token(get(API), &own_token(&key)))
    };
    assert_eq!(send().await.unwrap().status(), 200);
    for _ in 0..2 {
        assert_says_so(&send().await.unwrap_err());
        assert_eq!(fake.seen().len(), 1);
    }
    assert_eq!(send().await.unwrap().status(), 200);
    assert_eq!(fake.seen().len(), 2);
    for seen in fake.seen() {
        let thumbprint = verified(seen.proof(), Some("own.token")).await;
        assert_eq!(thumbprint, key.thumbprint());
    }
}

#[tokio::test]
async fn f68_nor_is_a_challenge_answered_without_a_signature() {
    let key = failing(|call| call == 2);
    let fake = Fake::new(|_, _| nonce_challenge("n"));
    let stack = DpopLayer::new(key.clone()).layer(fake.clone());
    let request = with_token(get(API), &own_token(&key));
    assert_says_so(&stack.oneshot(request).await.unwrap_err());
    assert_eq!(fake.seen().len(), 1);
}

#[test]
fn a_key_that_cannot_leave_its_place_is_found_again_by_its_thumbprint() {
    let key = own();
    let error = key.to_pkcs8_pem().unwrap_err();
    assert!(error.is_key() && error.to_string().contains("only its signer has it"));
    let json = grant(&key, "refresh").to_json().unwrap();
    let stored = StoredGrant::from_json(json.as_bytes()).unwrap();
    assert_eq!(
        (stored.key(), stored.thumbprint()),
        (None, key.thumbprint())
    );
    assert_eq!(*stored.to_json().unwrap(), *json);
}

#[test]
fn one_signer_serves_all_handles() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let signer = move |message: &[u8]| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(signed(&private(7), message))
    };
    let key = DpopKey::from_signer(public(&private(7)), signer).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1, "tried out");
    let handles = [key.clone(), key.with_algorithm(Algorithm::Es256).unwrap()];
    let (method, uri) = (http::Method::GET, API.parse().unwrap());
    for handle in handles {
        Proof::new(&method, &uri).unwrap().sign(&handle).unwrap();
    }
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}
