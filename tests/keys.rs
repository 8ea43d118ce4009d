//! Keys: what loads, what does not and why, and what never shows.
//!
//! The files are made by `tests/data/keys/make`, with openssl; the thumbprints beside them are computed there
//! from the public key that openssl tells.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    error::Error as _,
    fs,
    path::{Path, PathBuf},
};

use tower_dpop::{Algorithm, BoxError, DpopKey, Error};

const PASSWORD: &str = "correct horse";

/// RFC 7515, A.3.1.
const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
const THUMBPRINT: &str = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U";

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/keys")
        .join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(data(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text(name: &str) -> String {
    String::from_utf8(bytes(name)).unwrap()
}

/// The files in a folder, as `folder/file`.
fn files(folder: &str) -> BTreeSet<String> {
    fs::read_dir(data(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("thumbprint"))
        .map(|name| format!("{folder}/{name}"))
        .collect()
}

/// Loads both ways, which must agree.
fn load(name: &str, password: Option<&str>) -> Result<DpopKey, Error> {
    let from_file = DpopKey::from_file(data(name), password);
    let from_bytes = DpopKey::from_bytes(bytes(name), password);
    match (&from_file, &from_bytes) {
        (Ok(file), Ok(bytes)) => assert_eq!(file, bytes),
        (Err(file), Err(bytes)) => {
            let path = data(name);
            assert_eq!(
                file.to_string(),
                format!("key file {}: {bytes}", path.display())
            );
            assert_eq!(file.is_password_missing(), bytes.is_password_missing());
            assert_eq!(file.is_password_wrong(), bytes.is_password_wrong());
        }
        _ => panic!("{name}: {from_file:?}, but {from_bytes:?}"),
    }
    from_bytes
}

/// The error says all of `words`, in one line, and nothing of `secret` or the password.
fn assert_says(error: &Error, words: &str, secret: &[u8]) {
    let shown = error.to_string();
    for word in words.split('|') {
        assert!(shown.contains(word), "no {word:?} in {shown:?}");
    }
    assert!(!shown.contains(['\n', '\r', '\0', '\u{fffd}']), "{shown:?}");
    assert!(shown.len() < 320, "{shown:?}");
    assert!(error.is_key(), "{error:?}");
    let shown = format!("{error} {error:?} {:?}", error.source());
    assert!(!shown.contains(PASSWORD), "{shown:?}");
    for piece in pieces(secret) {
        assert!(!shown.contains(&*piece), "{piece:?} is in {shown:?}");
    }
}

/// Pieces of the base64 in a file, and of the base64 and hex of a binary file.
fn pieces(file: &[u8]) -> Vec<String> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let Ok(text) = str::from_utf8(file) else {
        return file.windows(6).map(hex).collect();
    };
    text.lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()))
        .flat_map(|word| word.as_bytes().windows(10))
        .map(|window| String::from_utf8_lossy(window).into_owned())
        .collect()
}

#[test]
fn good_files_give_the_one_key() {
    let thumbprint = text("thumbprint");
    for name in files("good") {
        let key = load(&name, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.thumbprint(), thumbprint.trim(), "{name}");
        // A password that is not needed is ignored.
        assert_eq!(load(&name, Some(PASSWORD)).unwrap(), key, "{name}");
    }
}

#[test]
fn encrypted_files_give_the_one_key() {
    let thumbprint = text("thumbprint");
    for name in files("opened") {
        let key = load(&name, Some(PASSWORD)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.thumbprint(), thumbprint.trim(), "{name}");

        let error = load(&name, None).unwrap_err();
        assert!(error.is_password_missing() && !error.is_password_wrong());
        assert_says(&error, "encrypted|no password", &bytes(&name));

        for password in ["", "correct  horse"] {
            let error = load(&name, Some(password)).unwrap_err();
            assert!(
                error.is_password_wrong() && !error.is_password_missing(),
                "{name}: {error:?}"
            );
            assert_says(&error, "password|damaged", &bytes(&name));
        }
    }
}

/// One wrong password in 256 leaves a right padding: about 12 of these, and none may be another error.
#[test]
fn a_wrong_password_is_wrong_even_if_the_padding_is_right() {
    let file = bytes("opened/one-round.pem");
    for number in 0..3000 {
        let error = DpopKey::from_bytes(&file, Some(&number.to_string())).unwrap_err();
        assert!(error.is_password_wrong(), "{number}: {error:?}");
    }
}

#[test]
fn keys_of_their_own() {
    for line in text("more/thumbprints").lines() {
        let (name, thumbprint) = line.split_once(' ').unwrap();
        let key = load(&format!("more/{name}"), None).unwrap();
        assert_eq!(key.thumbprint(), thumbprint, "{name}");
        // Two coordinates of 43 characters, even if a number is short.
        assert_eq!(key.public_jwk().len(), X.len() + Y.len() + 40, "{name}");
    }
}

/// File, and words that the error must have.
const BAD: &[(&str, &str)] = &[
    ("P-384-sec1.der", "another curve|P-384"),
    ("P-384.pem", "another curve|P-384"),
    ("P-521.pem", "another curve|P-521"),
    ("X25519.pem", "PKCS#8|another kind|X25519"),
    ("brainpoolP256r1.pem", "another curve|brainpoolP256r1"),
    ("certificate.der", "a certificate without"),
    ("certificate.pem", "a certificate without"),
    ("curve-contradicts.der", "another curve|secp256k1"),
    ("curve-null.der", "curve is not named"),
    ("damaged-parameters.der", "damaged parameters"),
    ("dsa-traditional.der", "a DSA key"),
    ("dsa-traditional.pem", "a DSA key"),
    ("dsa.pem", "another kind|DSA"),
    ("empty-sequence.der", "DER|cut off"),
    ("escaped.pem", "backslash"),
    (
        "explicit-pkcs8.pem",
        "openssl ec -in KEY -param_enc named_curve -out NEW",
    ),
    (
        "explicit-sec1.der",
        "openssl ec -inform DER -in KEY -param_enc named_curve -out NEW",
    ),
    (
        "explicit-sec1.pem",
        "openssl ec -in KEY -param_enc named_curve -out NEW",
    ),
    ("indefinite.p12", "BER|openssl pkcs12"),
    ("key-length.der", "parameters that cannot be"),
    ("long.der", "another length"),
    ("mislabelled.pem", "END PRIVATE KEY|cut off"),
    ("mixed-pkcs8.der", "public key that is not its own"),
    ("mixed-sec1.der", "public key that is not its own"),
    ("no-bytes.der", "the value 0"),
    ("no-point.der", "public key that is not its own"),
    ("not-base64.pem", "base64"),
    ("openssh.pem", "OpenSSH|ssh-keygen -p -m PKCS8 -f COPY"),
    ("openssh.pub", "not a key in any known format"),
    ("order.der", "beyond the order"),
    ("over-order.pem", "beyond the order"),
    ("parameters.pem", "EC parameters without a key"),
    (
        "pbes1-md5-des.der",
        "PBES1|openssl pkcs8 -topk8 -inform DER -in KEY -out NEW -provider default -provider legacy",
    ),
    (
        "pbes1-md5-des.pem",
        "PBES1|openssl pkcs8 -topk8 -in KEY -out NEW -provider default -provider legacy",
    ),
    (
        "pbes1-sha1-3des.pem",
        "PBES1|openssl pkcs8 -topk8 -in KEY -out NEW -provider",
    ),
    (
        "pbes1-sha1-rc2.pem",
        "PBES1|openssl pkcs8 -topk8 -in KEY -out NEW -provider",
    ),
    (
        "pbes2-3des.der",
        "3DES|openssl pkcs8 -topk8 -inform DER -in KEY -out NEW -provider",
    ),
    (
        "pbes2-3des.pem",
        "3DES|openssl pkcs8 -topk8 -in KEY -out NEW -provider",
    ),
    (
        "pbes2-camellia.pem",
        "unknown cipher|openssl pkcs8 -topk8 -in KEY -out NEW)",
    ),
    (
        "pbes2-des.pem",
        "DES|openssl pkcs8 -topk8 -in KEY -out NEW -provider",
    ),
    (
        "pbes2-hmac-sha1.pem",
        "HMAC-SHA1|openssl pkcs8 -topk8 -in KEY -out NEW)",
    ),
    (
        "pbes2-rc2.pem",
        "RC2|openssl pkcs8 -topk8 -in KEY -out NEW -provider",
    ),
    ("pgp.asc", "PGP PRIVATE KEY BLOCK"),
    (
        "pkcs12-legacy.p12",
        "PKCS#12|openssl pkcs12 -in KEY -nocerts -aes256 -out NEW|-legacy",
    ),
    (
        "pkcs12.p12",
        "PKCS#12|openssl pkcs12 -in KEY -nocerts -aes256 -out NEW",
    ),
    ("pkcs7.der", "a certificate without"),
    ("pkcs7.pem", "PKCS7"),
    ("pkcs8-of-nothing.der", "PKCS#8 that is damaged"),
    ("pkcs8-of-scalar.der", "PKCS#8 that is damaged"),
    (
        "proc-type.pem",
        "encryption|Proc-Type|openssl pkcs8 -topk8 -in KEY -out NEW)",
    ),
    ("public-empty.der", "SEC1 that is damaged"),
    ("public-not-bits.der", "SEC1 that is damaged"),
    ("public.der", "only a public key"),
    ("public.pem", "only a public key"),
    ("request.der", "a certificate request without"),
    ("request.pem", "a certificate request without"),
    ("rounds-11-million.der", "absurd"),
    ("rounds-huge.der", "unknown"),
    ("rounds-negative.der", "unknown"),
    ("rounds-zero.der", "absurd"),
    ("rounds.der", "absurd"),
    ("rsa-public-pkcs1.der", "only a public key|RSA"),
    ("rsa-public-pkcs1.pem", "only a public key"),
    ("rsa-public.der", "only a public key|RSA"),
    ("rsa-public.pem", "only a public key"),
    ("scrypt-huge.der", "absurd|scrypt"),
    ("scrypt-odd.der", "absurd|scrypt"),
    ("scrypt-overflow.der", "absurd|scrypt"),
    ("scrypt-parallel.der", "absurd|scrypt"),
    ("scrypt-zero-block.der", "parameters that cannot be"),
    ("scrypt-zero.der", "absurd|scrypt"),
    ("secp256k1-sec1.pem", "another curve|secp256k1"),
    ("secp256k1.pem", "another curve|secp256k1"),
    ("sect283r1.pem", "another curve|1.3.132.0.17"),
    ("trailing.der", "DER|after its end"),
    ("two-forms.pem", "2 private keys"),
    ("two-keys.pem", "2 private keys"),
    ("without-curve-31.der", "another length"),
    ("without-curve-48.der", "another length"),
    ("zero-pkcs8.pem", "the value 0"),
    ("zero.der", "the value 0"),
];

/// Keys that only `AwsLcRs` signs with. Whether that is compiled in makes no difference.
const FOR_ANOTHER_DOOR: &[(&str, &str)] = &[
    ("Ed25519.pem", "an Ed25519 key"),
    ("rsa-encrypted.pem", "an RSA key"),
    ("rsa-pkcs1.der", "an RSA key"),
    ("rsa-pkcs1.pem", "an RSA key"),
    ("rsa.der", "an RSA key"),
    ("rsa.pem", "an RSA key"),
];

#[test]
fn bad_files_say_what_they_are() {
    let mut left = files("bad");
    for (name, words) in FOR_ANOTHER_DOOR {
        let name = format!("bad/{name}");
        left.remove(&name);
        let error = load(&name, Some(PASSWORD)).expect_err(&name);
        assert_says(&error, words, &bytes(&name));
        assert_says(
            &error,
            "P-256 keys only|AwsLcRs::from_file|AwsLcRs::from_bytes|feature `aws-lc-rs`",
            b"",
        );
    }
    for (name, words) in BAD {
        let name = format!("bad/{name}");
        left.remove(&name);
        let error = load(&name, Some(PASSWORD)).expect_err(&name);
        assert!(
            !error.is_password_wrong() && !error.is_password_missing(),
            "{name}: {error:?}"
        );
        assert_says(&error, words, &bytes(&name));
        assert_says(
            &error,
            "needed is a P-256 private key|PKCS#8, SEC1 or PKCS#1 in PEM or DER, or a JWK",
            b"",
        );
    }
    for name in ["bad/no-data.der", "bad/odd-data.der"] {
        left.remove(name);
        let error = load(name, Some(PASSWORD)).unwrap_err();
        assert!(error.is_password_wrong(), "{name}: {error:?}");
    }
    assert!(left.is_empty(), "not tested: {left:?}");
}

/// So do all that the other door opens, sound as they are.
#[test]
fn keys_for_another_door_say_which() {
    for (folder, kind) in [("rsa", "an RSA key"), ("ed25519", "an Ed25519 key")] {
        for name in files(folder) {
            let error = load(&name, Some(PASSWORD)).expect_err(&name);
            assert_says(&error, kind, &bytes(&name));
            assert_says(&error, "AwsLcRs::from_file|feature `aws-lc-rs`", b"");
        }
    }
}

#[test]
fn an_algorithm_is_the_one_or_an_error() {
    let key = DpopKey::generate().unwrap();
    let same = key.clone().with_algorithm(Algorithm::Es256).unwrap();
    assert_eq!(same, key);
    for other in [Algorithm::Ps256, Algorithm::EdDsa] {
        let error = key.clone().with_algorithm(other).unwrap_err();
        assert_says(&error, "cannot sign with|signs with ES256", b"");
    }
}

#[test]
fn bad_bytes_say_what_they_are() {
    let too_long = vec![b' '; 64 * 1024 + 1];
    let table: &[(&[u8], &str)] = &[
        (b"", "nothing"),
        (b" \r\n\t\n", "nothing"),
        ("\u{feff}".as_bytes(), "nothing"),
        (b"\xff\xfe", "nothing"),
        (b"\xff\xfe-", "nothing"),
        (b"\xff\xfe\x00\xd8", "not a key"),
        (b"no key", "not a key"),
        (b"0123456789", "not a key"),
        (b"\x00\x01\x02", "not a key"),
        (b"0\x80", "not a key"),
        (b"0\x00\x02\x01\x01", "DER"),
        (b"0\x03\x02\x01\x01", "DER, but not a key"),
        (b"0\x84\xff\xff\xff\xff\x02\x01\x01", "DER|cut off"),
        (b"-----BEGIN P", "BEGIN line"),
        (b"-----BEGIN PRIVATE KEY", "BEGIN line"),
        (b"-----BEGIN aGVsbG8gd29ybGQ-----", "BEGIN line"),
        (b"-----BEGIN PRIVATE KEY-----", "cut off"),
        (
            b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
            "DER|cut off",
        ),
        (b"-----BEGIN -----\n-----END -----", "a PEM block"),
        (
            b"-----BEGIN TSS2 PRIVATE KEY-----\n-----END TSS2 PRIVATE KEY-----",
            "TSS2 PRIVATE KEY",
        ),
        (&too_long, "64 KiB"),
    ];
    for (bytes, words) in table {
        let error = DpopKey::from_bytes(bytes, None).unwrap_err();
        assert_says(&error, words, bytes);
    }
}

#[test]
fn bad_files_of_the_file_system() {
    let error = DpopKey::from_file(data("missing.pem"), None).unwrap_err();
    assert_says(&error, "missing.pem|no such file", b"");
    let source = error.source().unwrap().downcast_ref::<std::io::Error>();
    assert_eq!(source.unwrap().kind(), std::io::ErrorKind::NotFound);

    let error = DpopKey::from_file(data("good"), None).unwrap_err();
    assert_says(&error, "good: it is a directory", b"");

    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("long.pem");
    let mut long = bytes("good/pkcs8.pem");
    long.resize(64 * 1024, b'\n');
    fs::write(&path, &long).unwrap();
    DpopKey::from_file(&path, None).expect("64 KiB are read");
    long.push(b'\n');
    fs::write(&path, &long).unwrap();
    let error = DpopKey::from_file(&path, None).unwrap_err();
    assert_says(&error, "long.pem|64 KiB", b"");
    fs::remove_file(&path).unwrap();

    if cfg!(unix) {
        let error = DpopKey::from_file("/dev/zero", None).unwrap_err();
        assert_says(&error, "/dev/zero|64 KiB", b"");
    }
}

#[test]
fn the_jwk_of_rfc_7515() {
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"{D}"}}"#);
    let key = DpopKey::from_bytes(&jwk, None).unwrap();
    assert_eq!(key.thumbprint(), THUMBPRINT);
    assert_eq!(
        key.public_jwk(),
        format!(r#"{{"crv":"P-256","kty":"EC","x":"{X}","y":"{Y}"}}"#)
    );
    assert_eq!(key.algorithm(), Algorithm::Es256);
    assert_eq!(key.algorithm().to_string(), "ES256");
}

#[test]
fn bad_jwks_say_what_they_are() {
    let zeros = "A".repeat(43);
    let table = [
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}""#),
            "public JWK",
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","d":"{D}""#),
            r#"without "y""#,
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","y":"{Y}","d":"{D}""#),
            r#"without "x""#,
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{Y}","y":"{X}","d":"{D}""#),
            "do not belong",
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","y":"{X}","d":"{D}""#),
            "do not belong",
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"{D}=""#),
            r#""d" is not 32 bytes"#,
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"{D}AA""#),
            r#""d" is not 32 bytes"#,
        ),
        (
            format!(
                r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"{}""#,
                &D[..42]
            ),
            r#""d" is not 32 bytes"#,
        ),
        (
            format!(
                r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"\u006a{}""#,
                &D[1..]
            ),
            r#""d" is not 32 bytes"#,
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":["{D}"]"#),
            r#""d" is not 32 bytes"#,
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"{zeros}""#),
            "the value 0",
        ),
        (
            format!(
                r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"{}8""#,
                "_".repeat(42)
            ),
            "beyond the order",
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","y":"+","d":"{D}""#),
            r#""y" is not 32 bytes"#,
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","alg":"ES384","x":"{X}","y":"{Y}","d":"{D}""#),
            "alg",
        ),
        (
            format!(r#""kty":"EC","crv":"P-256","alg":null,"x":"{X}","y":"{Y}","d":"{D}""#),
            "alg",
        ),
        (
            format!(r#""kty":"EC","crv":"P-384","x":"{X}","y":"{Y}","d":"{D}""#),
            "another curve: P-384",
        ),
        (
            format!(r#""kty":"EC","crv":"{D}","x":"{X}","y":"{Y}","d":"{D}""#),
            "another curve",
        ),
        (
            format!(r#""kty":"EC","x":"{X}","y":"{Y}","d":"{D}""#),
            "on none",
        ),
        (
            format!(r#""kty":"RSA","n":"{X}","d":"{D}""#),
            r#"without "e""#,
        ),
        (
            format!(r#""kty":"OKP","crv":"X25519","x":"{X}","d":"{D}""#),
            "another curve: X25519",
        ),
        (format!(r#""kty":"{D}""#), "another kind"),
        (format!(r#""kty":{{"d":"{D}"}}"#), "another kind"),
        (
            format!(r#""keys":[{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"{D}"}}]"#),
            "JWK Set",
        ),
        (format!(r#""private_key":"{D}""#), "not a JWK"),
        (
            format!(r#""kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"{D}",,"#),
            "JSON that is cut off",
        ),
        (String::new(), "not a JWK"),
    ];
    for (members, words) in table {
        let jwk = format!("{{{members}}}");
        let error = DpopKey::from_bytes(&jwk, None).unwrap_err();
        assert_says(&error, words, jwk.as_bytes());
        assert_says(&error, "needed is a P-256 private key", b"");
    }
}

/// Cut off anywhere, a file is an error or, if only what follows the key is missing, still the key.
#[test]
fn cut_off_anywhere() {
    for name in files("good").iter().chain(&files("opened")) {
        let file = bytes(name);
        let whole = DpopKey::from_bytes(&file, Some(PASSWORD)).unwrap();
        let mut loaded = 0;
        for len in 0..file.len() {
            match DpopKey::from_bytes(&file[..len], Some(PASSWORD)) {
                Ok(key) => {
                    assert_eq!(key, whole, "{name}, {len}");
                    loaded += 1;
                }
                Err(error) => {
                    assert!(error.is_key() && !error.is_password_missing(), "{error:?}");
                    // What is left is not a whole encryption, so no password was tried.
                    assert!(!error.is_password_wrong(), "{name}, {len}: {error:?}");
                }
            }
        }
        let blanks = file.iter().rev().take_while(|b| b.is_ascii_whitespace());
        let after_the_key = match &**name {
            "good/comments.pem" => "\n# end\n".len(),
            "good/utf16-le.pem" => "\r\n".len() * 2,
            "good/utf16-be.pem" | "good/jwk-utf16.json" => "\n".len() * 2,
            "good/with-certificate.pem" => continue,
            _ => blanks.count(),
        };
        assert_eq!(loaded, after_the_key, "{name}");
    }
}

/// Damaged anywhere, a file is no reason to panic.
#[test]
fn damaged_anywhere() {
    let mut names = files("bad");
    names.retain(|name| name.ends_with(".der"));
    names.extend(
        [
            "sec1.der",
            "pkcs8-version-2.der",
            "sec1.pem",
            "jwk-more.json",
        ]
        .map(|name| format!("good/{name}")),
    );
    names.insert("opened/one-round.pem".into());
    for name in names {
        let mut file = bytes(&name);
        for at in 0..file.len() {
            for bits in [0x01, 0x20, 0x80] {
                file[at] ^= bits;
                if let Err(error) = DpopKey::from_bytes(&file, None) {
                    assert!(error.is_key());
                }
                file[at] ^= bits;
            }
        }
    }
}

#[test]
fn generated_keys_survive_pem() {
    let key = DpopKey::generate().unwrap();
    let pem = key.to_pkcs8_pem().unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(pem.ends_with("\n-----END PRIVATE KEY-----\n"));
    assert!(pem.lines().all(|line| line.len() <= 64));
    assert_eq!(DpopKey::from_bytes(pem.as_str(), None).unwrap(), key);

    assert_ne!(DpopKey::generate().unwrap(), key);
    assert_eq!(key.clone(), key);
}

/// Byte for byte what openssl writes, so openssl reads it.
#[test]
fn pem_is_what_openssl_writes() {
    let key = load("good/sec1.pem", None).unwrap();
    assert_eq!(*key.to_pkcs8_pem().unwrap(), text("good/pkcs8.pem"));
}

#[test]
fn debug_shows_nothing_private() {
    let key = load("good/jwk.json", None).unwrap();
    let thumbprint = text("thumbprint");
    assert_eq!(
        format!("{key:?}"),
        format!(
            "DpopKey {{ algorithm: Es256, thumbprint: {:?}, .. }}",
            thumbprint.trim()
        )
    );
}

#[test]
fn errors_are_found_in_a_box() {
    let boxed: BoxError = DpopKey::from_bytes("no key", None).unwrap_err().into();
    assert!(Error::find(&*boxed).is_some_and(Error::is_key));
}

#[test]
fn handles_go_anywhere() {
    fn anywhere<T: Clone + Send + Sync + Unpin + 'static>() {}
    anywhere::<DpopKey>();
}
