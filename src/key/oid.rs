//! Object identifiers: the few that decide, and the names of others for errors.

use pkcs8::ObjectIdentifier as Oid;

pub(super) const EC: Oid = Oid::new_unwrap("1.2.840.10045.2.1");
pub(super) const RSA: Oid = Oid::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const RSA_PSS: Oid = Oid::new_unwrap("1.2.840.113549.1.1.10");
pub(super) const MGF1: Oid = Oid::new_unwrap("1.2.840.113549.1.1.8");
pub(super) const SHA256: Oid = Oid::new_unwrap("2.16.840.1.101.3.4.2.1");
pub(super) const ED25519: Oid = Oid::new_unwrap("1.3.101.112");
pub(super) const P256: Oid = Oid::new_unwrap("1.2.840.10045.3.1.7");
pub(super) const PBES2: Oid = Oid::new_unwrap("1.2.840.113549.1.5.13");

/// The name of an elliptic curve.
pub(super) fn curve(oid: Oid) -> String {
    name(
        oid,
        &[
            ("1.2.840.10045.3.1.1", "P-192"),
            ("1.2.840.10045.3.1.7", "P-256"),
            ("1.3.132.0.10", "secp256k1"),
            ("1.3.132.0.33", "P-224"),
            ("1.3.132.0.34", "P-384"),
            ("1.3.132.0.35", "P-521"),
            ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1"),
            ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1"),
            ("1.3.36.3.3.2.8.1.1.13", "brainpoolP512r1"),
            ("1.2.156.10197.1.301", "SM2"),
        ],
    )
}

/// The name of what a PKCS#8 file or a public key is for.
pub(super) fn algorithm(oid: Oid) -> String {
    name(
        oid,
        &[
            ("1.2.840.113549.1.1.1", "RSA"),
            ("1.2.840.113549.1.1.10", "RSA-PSS"),
            ("1.2.840.10040.4.1", "DSA"),
            ("1.2.840.113549.1.3.1", "Diffie-Hellman"),
            ("1.2.840.10046.2.1", "Diffie-Hellman"),
            ("1.3.101.110", "X25519"),
            ("1.3.101.111", "X448"),
            ("1.3.101.112", "Ed25519"),
            ("1.3.101.113", "Ed448"),
            ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
            ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
            ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
        ],
    )
}

/// The name of a cipher of old. Openssl 3 has some of them in its legacy provider only.
pub(super) fn old_cipher(oid: Oid) -> Option<&'static str> {
    let found = [
        ("1.2.840.113549.3.7", "3DES"),
        ("1.3.14.3.2.7", "DES"),
        ("1.2.840.113549.3.2", "RC2"),
    ];
    found
        .iter()
        .find(|(text, _)| Oid::new(text) == Ok(oid))
        .map(|(_, name)| *name)
}

fn name(oid: Oid, names: &[(&str, &str)]) -> String {
    let found = names.iter().find(|(text, _)| Oid::new(text) == Ok(oid));
    found.map_or_else(
        || format!("(object identifier {oid})"),
        |(_, name)| (*name).to_owned(),
    )
}
