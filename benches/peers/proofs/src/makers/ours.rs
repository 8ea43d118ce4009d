//! `tower-dpop`.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use graviola::{
    hashing::Sha256,
    signing::ecdsa::{P256, SigningKey},
    util::is_cpu_supported,
};
use http::{HeaderValue, Method, Request, Response, Uri};
use tower_dpop::{AccessToken, Audience, AwsLcRs, DpopKey, DpopLayer, proof::Proof};
use tower_layer::Layer as _;
use tower_service::Service;

use super::now;
use crate::case::{BoxError, Case, Kind, Make, Maker, NONCE, ORIGIN, TOKEN, URL};

pub(super) fn all(case: &Case) -> Result<Vec<Maker>, BoxError> {
    let p256 = DpopKey::from_bytes(&case.pkcs8, None)?;
    let aws_lc = AwsLcRs::from_bytes(&case.pkcs8, None)?;
    let mut makers = vec![
        Maker {
            name: "tower-dpop",
            kind: Kind::Default,
            make: proof(p256.clone()),
        },
        Maker {
            name: "tower-dpop, aws-lc-rs",
            kind: Kind::AwsLc,
            make: proof(aws_lc.clone()),
        },
        Maker {
            name: "tower-dpop, request and layer and all",
            kind: Kind::Ours,
            make: layer(&p256)?,
        },
        Maker {
            name: "tower-dpop, aws-lc-rs, request and layer and all",
            kind: Kind::Ours,
            make: layer(&aws_lc)?,
        },
    ];
    // It panics on a processor that it does not know how to use.
    if is_cpu_supported() {
        makers.push(Maker {
            name: "tower-dpop, graviola as a signer of one's own",
            kind: Kind::Ours,
            make: proof(DpopKey::from_signer(case.point(), graviola(case)?)?),
        });
    }
    Ok(makers)
}

fn graviola(
    case: &Case,
) -> Result<impl Fn(&[u8]) -> Result<[u8; 64], BoxError> + Send + Sync + 'static, BoxError> {
    let key = SigningKey::<P256>::from_pkcs8_der(&case.pkcs8)?;
    Ok(move |message: &[u8]| {
        let mut signature = [0; 64];
        key.sign::<Sha256>(&[message], &mut signature)?;
        Ok(signature)
    })
}

/// What the other clients do: the claims of one request in, the proof's text out.
fn proof(key: DpopKey) -> Make {
    let uri = Uri::from_static(URL);
    Box::new(move || {
        let proof = Proof::new(&Method::GET, &uri)?
            .access_token(TOKEN)
            .nonce(NONCE);
        Ok(proof.sign(&key)?)
    })
}

/// A request through `DpopLayer`, to a client that sends nothing: nonces looked up, `Authorization` written, the
/// answer read.
fn layer(key: &DpopKey) -> Result<Make, BoxError> {
    let mut service = DpopLayer::new(key.clone()).layer(Nowhere { nonce: true });
    let token = AccessToken::new(TOKEN, key, Audience::origins([ORIGIN])?)?;
    let uri = Uri::from_static(URL);
    let mut send = move || {
        let mut request = Request::new(());
        *request.uri_mut() = uri.clone();
        request.extensions_mut().insert(token.clone());
        let mut answer = now(service.call(request))??;
        let proof = answer.headers_mut().remove("dpop").ok_or("no proof")?;
        service.get_mut().nonce = false;
        Ok(proof.to_str()?.to_owned())
    };
    send()?; // The first answer brings the nonce.
    Ok(Box::new(send))
}

/// Answers with the request's own headers.
#[derive(Clone)]
struct Nowhere {
    nonce: bool,
}

impl Service<Request<()>> for Nowhere {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut answer = Response::new(());
        *answer.headers_mut() = request.into_parts().0.headers;
        if self.nonce {
            let nonce = HeaderValue::from_static(NONCE);
            answer.headers_mut().insert("dpop-nonce", nonce);
        }
        ready(Ok(answer))
    }
}
