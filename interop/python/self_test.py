"""Good lines have no finding; one with anything broken has. By the same breaks that our own verifier is asked about."""

import hashlib
import json
import tempfile
from pathlib import Path

import jwskate

import verify
from broken import BROKEN, SKIP, Draft, encode

AT = 1_700_000_000
TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
HTU = "https://api.example.com/a//b/../%7e"

# Seen by the verifier in Rust alone: this one takes the last of two members, lets go of what stands around a signature, and
# does not know which nonces were offered.
LAXER = {
    "header: alg twice",
    "header: typ twice",
    "claims: jti twice",
    "signature with padding",
    "a line end after it",
    "nonce missing",
    "nonce of another",
    "nonce a number",
}

# What is wrong with a line and not with its proof.
LINES = {
    "another method": {"method": "POST"},
    "another URL": {"url": "https://api.example.com/other"},
    "another token": {"token": "other"},
    "no token": {"token": None},
    "sent 3 s before": {"sent_ms": AT * 1000 - 3000},
    "sent 3 s later": {"sent_ms": AT * 1000 + 3000},
    "the server's clock in between": {"sent_ms": AT * 1000 - 3000, "clock": 400},
}


def draft(alg, token, nonce="nonce"):
    key = jwskate.Jwk.generate(alg="EdDSA" if alg == "Ed25519" else alg)
    public = {name: value for name, value in key.public_jwk().items() if name != "alg"}
    header = {"typ": "dpop+jwt", "alg": alg, "jwk": public}
    claims = {"jti": "one", "htm": "GET", "htu": HTU, "iat": AT, "nonce": nonce}
    if token:
        claims["ath"] = encode(hashlib.sha256(token.encode()).digest())
    new = Draft(f"{encode(json.dumps(header))}.{encode(json.dumps(claims))}.", key, alg, token, nonce)
    new.proof = new.signed()
    return new


def line(proof, token, **more):
    sent = {
        "run": "self-test",
        "sent_ms": AT * 1000 + 400,
        "method": "GET",
        "url": "https://API.example.com:443/a//b/../%7e?x=1#y",
        "proof": proof,
        "token": token,
        "clock": 0,
        "status": 200,
        "offered": None,
    }
    return sent | more


def cases():
    """What it is, the line, and whether it is to be found."""
    for alg in verify.ALGORITHMS:
        for token in (TOKEN, None):
            good = draft(alg, token)
            yield f"{alg}: good", line(good.proof, token), False
            for clock in (-400, 400):
                sent = line(good.proof, token, sent_ms=(AT - clock) * 1000, clock=clock)
                yield f"{alg}: good by the server's clock", sent, False
            for what, change in BROKEN.items():
                proof = good.broken(change)
                if proof is not SKIP:
                    yield f"{alg}: {what}", line(proof, token), what not in LAXER
            for what, more in LINES.items():
                if token or what not in ("another token", "no token"):
                    yield f"{alg}: {what}", line(good.proof, token) | more, True


def run():
    wrong = checked = 0
    for what, sent, to_be_found in cases():
        told = verify.check(sent)
        checked += 1
        if (told is not None) != to_be_found:
            wrong += 1
            print(f"{what}: {told or 'not found'}")

    # The whole of it: several processes, in the lines' order, and nothing that is no line.
    good = json.dumps(line(draft("ES256", TOKEN).proof, TOKEN))
    bad = json.dumps(line(draft("ES256", TOKEN).proof, "other"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.jsonl"
        path.write_text("\n".join([good] * 999 + [bad] + [good] * 999 + ["{}"]) + "\n")
        result = verify.verify([path])
        lines = [finding["line"] for finding in result["findings"]]
        checked += 1
        if (result["proofs"], result["finding_count"], lines) != (2000, 2, [1000, 2000]):
            wrong += 1
            print(f"a whole record: {result}")
    print(f"{checked} cases, {wrong} wrong")
    return 1 if wrong else 0
