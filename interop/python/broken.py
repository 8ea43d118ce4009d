"""What can be wrong with a proof, one thing at a time; and what looks wrong and is not.

A change takes a `Draft` and alters it, or returns the proof's whole text itself. One that does not apply returns `SKIP`.
"""

import base64
import hashlib
import hmac
import json

import jwskate

SKIP = object()
ELSEWHERE = "https://elsewhere.example/other"


def encode(data):
    data = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Draft:
    """A proof taken apart. `header` and `claims` are signed again: objects, or whatever text or bytes stand there."""

    def __init__(self, proof, key, alg, token=None, nonce=None):
        self.proof, self.key, self.alg, self.token, self.nonce = proof, key, alg, token, nonce
        self.header, self.claims = (json.loads(decode(part)) for part in proof.split(".")[:2])

    def parts(self):
        return self.proof.split(".")

    def signed(self):
        def text(part):
            return part if isinstance(part, (str, bytes)) else json.dumps(part)

        signed = f"{encode(text(self.header))}.{encode(text(self.claims))}"
        name = "EdDSA" if self.alg == "Ed25519" else self.alg
        return f"{signed}.{encode(bytes(self.key.sign(signed.encode(), alg=name)))}"

    def broken(self, change):
        """The proof's text after a change, or `SKIP`."""
        draft = Draft(self.proof, self.key, self.alg, self.token, self.nonce)
        told = change(draft)
        return draft.signed() if told is None else told


def header(**members):
    def change(draft):
        draft.header.update(members)

    return change


def claims(**members):
    def change(draft):
        draft.claims.update(members)

    return change


def without_header(name):
    return lambda draft: draft.header.pop(name) and None


def without_claim(name):
    return lambda draft: SKIP if draft.claims.pop(name, SKIP) is SKIP else None


def jwk(**members):
    def change(draft):
        draft.header["jwk"].update(members)

    return change


def for_jwk(member, change):
    """Only for keys that have this member."""
    return lambda draft: change(draft) if member in draft.header["jwk"] else SKIP


def with_token(change):
    return lambda draft: change(draft) if draft.token else SKIP


def with_nonce(change):
    return lambda draft: change(draft) if draft.nonce else SKIP


def claim(name, change):
    def whole(draft):
        draft.claims[name] = change(draft.claims[name])

    return whole


def text(change):
    return lambda draft: change(*draft.parts())


def twice_in_header(name, value):
    def change(draft):
        draft.header = json.dumps(draft.header).replace("{", f'{{"{name}":{value},', 1)

    return change


def twice_in_claims(name, value):
    def change(draft):
        draft.claims = json.dumps(draft.claims)[:-1] + f',"{name}":{value}}}'

    return change


def by_hmac(draft, secret, **members):
    signed = f"{encode(json.dumps(draft.header | members))}.{encode(json.dumps(draft.claims))}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256'))}"


def unsigned(draft):
    return f"{encode(json.dumps(draft.header | {'alg': 'none'}))}.{draft.parts()[1]}."


def flipped(head, body, signature):
    raw = bytearray(decode(signature))
    raw[20] ^= 1
    return f"{head}.{body}.{encode(bytes(raw))}"


def of_another_key(draft):
    kind = {"ES256": {"crv": "P-256"}, "EdDSA": {"crv": "Ed25519"}, "Ed25519": {"crv": "Ed25519"}}.get(draft.alg)
    new = jwskate.Jwk.generate(alg=draft.alg) if kind is None else jwskate.Jwk.generate(kty=draft.key.kty, **kind)
    draft.header["jwk"] = dict(new.public_jwk())



BROKEN = {
    "typ missing": without_header("typ"),
    "typ JWT": header(typ="JWT"),
    "typ null": header(typ=None),
    "alg missing": without_header("alg"),
    "alg none": header(alg="none"),
    "alg none, unsigned": unsigned,
    "alg HS256": header(alg="HS256"),
    "alg HS256 by the public key": lambda draft: by_hmac(draft, json.dumps(draft.header["jwk"]).encode(), alg="HS256"),
    "alg in small letters": lambda draft: header(alg=draft.alg.lower())(draft),
    "alg of another kind of key": lambda draft: header(alg="RS256" if draft.alg == "ES256" else "ES256")(draft),
    "alg unknown": header(alg="XX256"),
    "jwk missing": without_header("jwk"),
    "jwk null": header(jwk=None),
    "jwk symmetric": lambda draft: by_hmac(draft, b"secret", alg="HS256", jwk={"kty": "oct", "k": encode(b"secret")}),
    "jwk of another key": of_another_key,
    "jwk with d": lambda draft: jwk(d=dict(draft.key)["d"])(draft),
    "jwk without kty": lambda draft: draft.header["jwk"].pop("kty") and None,
    "jwk without y": for_jwk("y", lambda draft: draft.header["jwk"].pop("y") and None),
    "jwk of no point": for_jwk("y", lambda draft: jwk(y=draft.header["jwk"]["x"])(draft)),
    "jwk with another crv": for_jwk("crv", jwk(crv="P-384")),
    "crit": header(crit=["exp"], exp=1),
    "header: alg twice": twice_in_header("alg", '"none"'),
    "header: typ twice": twice_in_header("typ", '"JWT"'),
    "jti missing": without_claim("jti"),
    "jti empty": claims(jti=""),
    "jti a number": claims(jti=1),
    "htm missing": without_claim("htm"),
    "htm of another method": claims(htm="PATCH"),
    "htm in small letters": claim("htm", str.lower),
    "htm with a NUL": claim("htm", lambda htm: htm + "\0"),
    "htu missing": without_claim("htu"),
    "htu elsewhere": claims(htu=ELSEWHERE),
    "htu with a longer path": claim("htu", lambda htu: htu + "/x"),
    "htu of another scheme": claim("htu", lambda htu: htu.replace("https", "http")),
    "htu of another port": claim("htu", lambda htu: htu.replace(".example.com", ".example.com:9", 1)),
    "htu without a host": claims(htu="/token"),
    "iat missing": without_claim("iat"),
    "iat as text": claim("iat", str),
    "iat null": claims(iat=None),
    "iat 10 minutes ago": lambda draft: claims(iat=draft.claims["iat"] - 600)(draft),
    "iat in 10 minutes": lambda draft: claims(iat=draft.claims["iat"] + 600)(draft),
    "iat in milliseconds": claim("iat", lambda iat: iat * 1000),
    "ath missing": with_token(without_claim("ath")),
    "ath of another token": with_token(claims(ath=encode(hashlib.sha256(b"other").digest()))),
    "ath in hexadecimal": with_token(claim("ath", lambda ath: decode(ath).hex())),
    "ath with padding": with_token(claim("ath", lambda ath: ath + "=")),
    "nonce missing": with_nonce(without_claim("nonce")),
    "nonce of another": with_nonce(claims(nonce="other")),
    "nonce a number": claims(nonce=1),
    "claims: htm twice": twice_in_claims("htm", '"PATCH"'),
    "claims: jti twice": twice_in_claims("jti", '"other"'),
    "claims in a list": lambda draft: setattr(draft, "claims", [draft.claims]),
    "claims with more after them": lambda draft: setattr(draft, "claims", json.dumps(draft.claims) + "{}"),
    "claims changed after signing": lambda draft: ".".join(
        [draft.parts()[0], encode(json.dumps(draft.claims | {"jti": "other"})), draft.parts()[2]]
    ),
    "signature with a bit flipped": text(flipped),
    "signature missing": text(lambda head, body, _: f"{head}.{body}."),
    "signature of zeros": text(lambda head, body, _: f"{head}.{body}.{encode(bytes(64))}"),
    "signature with padding": text(lambda head, body, signature: f"{head}.{body}.{signature}=="),
    "claims with padding": text(lambda head, body, signature: f"{head}.{body}=.{signature}"),
    "a line end after it": text(lambda *parts: ".".join(parts) + "\n"),
    "a NUL in it": text(lambda head, body, signature: f"{head}.{body}\0.{signature}"),
    "a dot more": text(lambda *parts: ".".join(parts) + "."),
    "two parts": text(lambda head, body, _: f"{head}.{body}"),
    "two proofs": text(lambda *parts: ".".join(parts) + ", " + ".".join(parts)),
    "empty": lambda draft: "",
}

# What looks wrong and is not, by RFC 9449 and those under it.
ALLOWED = {
    "htu with a query": claim("htu", lambda htu: htu + "?x=1"),
    "htu with a fragment": claim("htu", lambda htu: htu + "#x"),
    "htu in capitals": claim("htu", lambda htu: htu.replace("https://server", "HTTPS://SERVER")),
    "htu with the default port": claim("htu", lambda htu: htu.replace(".example.com", ".example.com:443")),
    "iat with a fraction": claim("iat", lambda iat: iat + 0.5),
    "claims nobody knows": claims(sub="me", x=[None, {"y": 1.5e3}]),
    "header members nobody knows": header(kid="1", x={"y": []}),
    "jwk members that say what it is for": jwk(use="sig", key_ops=["verify"], kid="1"),
    "JSON with blanks": lambda draft: setattr(draft, "claims", json.dumps(draft.claims, indent=2)),
}
