//! A certificate for one run.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tonic::transport::{Certificate, Identity};

/// A self-signed certificate and its key.
#[derive(Clone)]
pub struct SelfSigned {
    certificate: String,
    key: String,
}

impl SelfSigned {
    /// For these hosts: names or addresses.
    ///
    /// # Errors
    ///
    /// One of them is neither, or there is no key.
    pub fn new(hosts: &[&str]) -> Result<Self, rcgen::Error> {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(hosts)?;
        Ok(Self {
            certificate: cert.pem(),
            key: signing_key.serialize_pem(),
        })
    }

    /// What the server shows.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }

    /// What the client trusts.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        Certificate::from_pem(&self.certificate)
    }
}
