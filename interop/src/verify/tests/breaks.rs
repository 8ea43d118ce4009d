//! One line, one thing broken.

use super::*;

type Break = fn(&mut Draft);

/// What is broken, how, and who finds it.
type Case = (&'static str, Break, &'static [&'static str]);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // The header.
    ("typ missing", |d| d.remove_header("typ"), &[OTHER, HUSKARL, "header"]),
    ("typ JWT", |d| d.header["typ"] = "JWT".into(), &[OTHER, HUSKARL, "header"]),
    ("typ in full", |d| d.header["typ"] = "application/dpop+jwt".into(), &[OTHER, "header"]),
    ("typ in capitals", |d| d.header["typ"] = "DPoP+JWT".into(), &[OTHER, "header"]),
    ("alg missing", |d| d.remove_header("alg"), &[OTHER, HUSKARL, "header"]),
    ("alg none", |d| d.header["alg"] = "none".into(), &[OTHER, HUSKARL, "header"]),
    ("alg HS256", |d| d.header["alg"] = "HS256".into(), &[OTHER, HUSKARL, "header"]),
    ("alg of another key", |d| d.header["alg"] = "EdDSA".into(), &[OTHER, HUSKARL, "header"]),
    ("alg of no library but one", |d| d.header["alg"] = "PS256".into(), &[HUSKARL, "header"]),
    ("jwk missing", |d| d.remove_header("jwk"), &[OTHER, HUSKARL, "header"]),
    ("jwk with d", |d| d.header["jwk"]["d"] = "AA".into(), &[OTHER, HUSKARL, "header"]),
    ("jwk with kid", |d| d.header["jwk"]["kid"] = "1".into(), &["header"]),
    ("jwk without y", |d| d.header["jwk"]["y"] = Value::Null, &[OTHER, HUSKARL, "header"]),
    ("jwk symmetric", |d| d.header["jwk"] = json!({"kty": "oct", "k": "AA"}), &[OTHER, HUSKARL, "header"]),
    ("jwk of another curve", |d| d.header["jwk"]["crv"] = "P-384".into(), &[OTHER, HUSKARL, "header"]),
    ("kid", |d| d.header["kid"] = "1".into(), &["header"]),
    ("crit", |d| d.header["crit"] = json!(["exp"]), &[HUSKARL, "header"]),
    // The claims.
    ("jti missing", |d| d.remove_claim("jti"), &[OTHER, HUSKARL, "claims"]),
    ("jti empty", |d| d.claim("jti", ""), &["jti"]),
    ("jti a number", |d| d.claim("jti", 1), &[OTHER, HUSKARL, "claims"]),
    ("htm missing", |d| d.remove_claim("htm"), &[OTHER, HUSKARL, "claims"]),
    ("htm POST", |d| d.claim("htm", "POST"), &[OTHER, HUSKARL, "htm"]),
    ("htm in small letters", |d| d.claim("htm", "get"), &[HUSKARL, "htm"]),
    ("htu missing", |d| d.remove_claim("htu"), &[OTHER, HUSKARL, "claims"]),
    ("htu of another path", |d| d.claim("htu", "https://api.example.com/other"), &[OTHER, HUSKARL, "htu"]),
    ("htu of another host", |d| d.claim("htu", "https://example.com/a//b/../%7e"), &[OTHER, HUSKARL, "htu"]),
    ("htu of another port", |d| d.claim("htu", "https://api.example.com:8443/a//b/../%7e"), &[OTHER, HUSKARL, "htu"]),
    ("htu with the query", |d| d.claim("htu", "https://api.example.com/a//b/../%7e?x=1"), &[HUSKARL, "htu"]),
    ("htu with the port", |d| d.claim("htu", "https://api.example.com:443/a//b/../%7e"), &["htu"]),
    ("htu in capitals", |d| d.claim("htu", "https://API.example.com/a//b/../%7e"), &["htu"]),
    ("htu with the path resolved", |d| d.claim("htu", "https://api.example.com/a//%7e"), &["htu"]),
    ("htu with the path decoded", |d| d.claim("htu", "https://api.example.com/a//b/../~"), &[OTHER, "htu"]),
    ("htu with one slash", |d| d.claim("htu", "https://api.example.com/a/b/../%7e"), &[HUSKARL, "htu"]),
    ("iat missing", |d| d.remove_claim("iat"), &[OTHER, HUSKARL, "claims"]),
    ("iat a string", |d| d.claim("iat", "1700000000"), &[OTHER, HUSKARL, "claims"]),
    ("iat with a fraction", |d| d.claim("iat", 1_700_000_000.5), &[OTHER, "claims"]),
    ("iat 3 s ago", |d| d.claim("iat", 1_699_999_997), &[HUSKARL, "iat"]),
    ("iat in 3 s", |d| d.claim("iat", 1_700_000_003), &[HUSKARL, "iat"]),
    ("iat 10 minutes ago", |d| d.claim("iat", 1_699_999_400), &[OTHER, HUSKARL, "iat"]),
    ("iat in 10 minutes", |d| d.claim("iat", 1_700_000_600), &[OTHER, HUSKARL, "iat"]),
    ("ath missing", |d| d.remove_claim("ath"), &[OTHER, HUSKARL, "ath"]),
    ("ath of another token", |d| d.sent.token = Some("other".to_owned()), &[OTHER, HUSKARL]),
    ("ath null", |d| d.claim("ath", Value::Null), &[OTHER, HUSKARL, "claims"]),
    ("ath without a token", |d| d.sent.token = None, &["ath"]),
    ("exp past", |d| d.claim("exp", 1_699_999_000), &[HUSKARL, "claims"]),
    ("exp to come", |d| d.claim("exp", 1_700_009_000), &["claims"]),
    ("nbf", |d| d.claim("nbf", 1_700_000_000), &["claims"]),
    ("sub", |d| d.claim("sub", "me"), &["claims"]),
    ("nonce null", |d| d.claim("nonce", Value::Null), &["claims"]),
    ("nonce a number", |d| d.claim("nonce", 1), &[OTHER, HUSKARL, "claims"]),
    // The key that signs.
    ("signed by another", |d| d.key = Key::es256(), &[OTHER, HUSKARL]),
];

impl Draft {
    fn remove_header(&mut self, name: &str) {
        self.header.as_object_mut().unwrap().remove(name).unwrap();
    }
}

#[test]
fn each_break_is_found() {
    let key = Key::es256();
    for (what, break_it, by) in CASES {
        let mut draft = Draft::new(&key);
        break_it(&mut draft);
        assert_found(what, [draft.signed()], by);
    }
}

#[test]
fn each_break_of_a_token_request_is_found() {
    let key = Key::es256();
    let cases: &[Case] = &[
        ("htm", |d| d.claim("htm", "POST"), &[OTHER, "htm"]),
        (
            "htu",
            |d| d.claim("htu", "https://api.example.com/"),
            &[OTHER, "htu"],
        ),
        ("ath", |d| d.claim("ath", TOKEN_ATH), &["ath"]),
        ("iat", |d| d.claim("iat", 1_700_000_003), &[HUSKARL, "iat"]),
        ("key", |d| d.key = Key::es256(), &[OTHER, HUSKARL]),
    ];
    for (what, break_it, by) in cases {
        let mut draft = Draft::without_token(&key);
        break_it(&mut draft);
        assert_found(what, [draft.signed()], by);
    }
}

#[test]
fn broken_text_is_found() {
    let draft = Draft::new(&Key::es256());
    let good = draft.signed().proof;
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let last = good.len() - 10;
    let flipped = if &good[last..=last] == "A" { "B" } else { "A" };
    let both = &[OTHER, HUSKARL][..];
    let texts = [
        (
            "signature",
            format!("{}{flipped}{}", &good[..last], &good[last + 1..]),
            both,
        ),
        ("no signature", format!("{signed}."), both),
        ("padding", format!("{good}=="), both),
        ("a dot more", format!("{good}."), &[OTHER, HUSKARL, "parts"]),
        ("a part less", signed.to_owned(), &[OTHER, HUSKARL, "parts"]),
        ("a line's end", format!("{good}\n"), both),
        (
            "claims' padding",
            format!("{header}.{claims}=.{signature}"),
            &[OTHER, HUSKARL, "claims"],
        ),
        (
            "nothing",
            String::new(),
            &[OTHER, HUSKARL, "claims", "header", "parts"],
        ),
    ];
    for (what, proof, by) in texts {
        let mut sent = draft.sent.clone();
        sent.proof = proof;
        assert_found(what, [sent], by);
    }
}

#[test]
fn names_that_stand_twice_are_found() {
    let draft = Draft::new(&Key::es256());
    let (header, claims) = (draft.header.to_string(), draft.claims.to_string());
    let twice = |json: &str, more: &str| json.replacen('{', &format!("{{{more},"), 1);

    let typ = twice(&header, r#""typ":"dpop+jwt""#);
    assert_found(
        "typ",
        [draft.signed_text(&typ, &claims)],
        &[HUSKARL, "header"],
    );
    let kty = header.replace(r#""kty":"EC""#, r#""kty":"EC","kty":"EC""#);
    assert_ne!(kty, header);
    assert_found(
        "kty",
        [draft.signed_text(&kty, &claims)],
        &[HUSKARL, "header"],
    );
    let crv = header.replace(r#""crv":"P-256""#, r#""crv":"P-256","crv":"P-256""#);
    assert_found(
        "crv",
        [draft.signed_text(&crv, &claims)],
        &[HUSKARL, "header"],
    );
    let htm = twice(&claims, r#""htm":"GET""#);
    assert_found(
        "htm",
        [draft.signed_text(&header, &htm)],
        &[OTHER, HUSKARL, "claims"],
    );
}

#[test]
fn private_members_of_other_keys_are_found() {
    for (key, name) in [(Key::rsa("PS256"), "p"), (Key::ed25519("Ed25519"), "d")] {
        let mut draft = Draft::new(&key);
        draft.header["jwk"][name] = "AA".into();
        let by: &[_] = if name == "d" {
            &[HUSKARL, "header"]
        } else {
            &["header"]
        };
        assert_found(name, [draft.signed()], by);
    }
}
