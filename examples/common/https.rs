//! hyper-util's client, with rustls.

use std::{error::Error, fs, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tower_dpop::BoxError;

/// A host that answers at all answers a SYN within this; the next address gets its turn then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for HTTP/1.1 and HTTP/2, that does not follow redirects. It trusts the system's certificates
/// and those of the PEM file `ca`.
pub(crate) fn client(ca: Option<&Path>) -> Result<HttpsClient, BoxError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false); // `https` is for the connector around it
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // Plain http is for loopback: the DPoP layer refuses any other.
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls(ca)?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(https))
}

/// Whom to trust: the system's certificates and those of the PEM file `ca`.
pub(crate) fn tls(ca: Option<&Path>) -> Result<ClientConfig, BoxError> {
    let mut roots = RootCertStore::empty();
    // Those that cannot be read are left out: none of them is needed for http on loopback, or with `ca`.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        trust(&mut roots, path)
            .map_err(|error| format!("certificate file {}: {error}", path.display()))?;
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

fn trust(roots: &mut RootCertStore, path: &Path) -> Result<(), BoxError> {
    let pem = fs::read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err("there is no certificate in PEM in it".into());
    }
    for certificate in certificates {
        roots.add(certificate)?;
    }
    Ok(())
}

/// Why there is no answer from `uri`. Errors of the layers say it, and what to do; the client's do not.
pub(crate) fn no_answer(error: BoxError, uri: &Uri) -> BoxError {
    let line = super::one_line(&*error);
    if is_untrusted(&*error) {
        format!("{line} (--ca FILE adds a certificate to trust)").into()
    } else if tower_dpop::Error::find(&*error).is_some() {
        error
    } else {
        let origin = super::origin(uri);
        format!("no answer from {origin}: is the server up, and the URL right?: {line}").into()
    }
}

/// Whether the reason of an error is a certificate that nobody vouches for.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
