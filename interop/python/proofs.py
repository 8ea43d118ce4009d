"""Proofs of `requests_oauth2client`, and each of them broken in many ways: one JSON line for each, for our verifier.

The lines are those that `node/proofs.js` describes.
"""

import hashlib
import json
import sys
from importlib.metadata import version

sys.dont_write_bytecode = True

import requests  # noqa: E402
from requests.adapters import BaseAdapter  # noqa: E402
from requests_oauth2client import DPoPKey, DPoPToken, OAuth2Client  # noqa: E402

from broken import ALLOWED, BROKEN, SKIP, Draft, encode  # noqa: E402

MAKER = f"requests_oauth2client {version('requests_oauth2client')}"
ALGORITHMS = ("ES256", "PS256", "RS256", "EdDSA")
TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
NONCE = "eyJ7S_zG.eyJH0-Z.HX4w-7v~+/="

URLS = (
    "https://server.example.com/token",
    "https://server.example.com",
    "https://server.example.com/",
    "https://server.example.com/?",
    "https://server.example.com/orders?page=2&x=%2F",
    "https://server.example.com:443/a",
    "https://server.example.com:8443/a/b/",
    "http://localhost:80/a",
    "http://127.0.0.1:8080/a",
    "https://[2001:db8::1]:8443/a",
    "https://SERVER.Example.COM/Orders",
    "https://server.example.com/a%20b/%c3%A9/%7Euser",
    "https://server.example.com/a%2Fb/c%3Fd",
    "https://server.example.com/a//b///",
    "https://server.example.com/a/./b/../c",
    "https://server.example.com/a;v=1/b,c/(d)/!$&'*+=:@",
    "https://server.example.com/..;/a/...",
    f"https://server.example.com/{'long/' * 300}",
)

ROLES = (("POST", None, None), ("POST", None, NONCE), ("GET", TOKEN, None), ("DELETE", TOKEN, NONCE))


def directly(key, method, url, nonce, token):
    """By the function that makes one proof."""
    ath = encode(hashlib.sha256(token.encode()).digest()) if token else None
    return url, str(key.proof(htm=method, htu=url, ath=ath, nonce=nonce))


class Remembering(BaseAdapter):
    """In place of the network: keeps what was to be sent, and asks for a nonce once, if there is to be one."""

    def __init__(self, nonce):
        super().__init__()
        self.sent, self.nonce = [], nonce

    def send(self, request, **_):
        self.sent.append((request.method, request.url, request.headers))
        response = requests.Response()
        response.request, response.connection, response.url = request, self, request.url
        response.headers["Content-Type"] = "application/json"
        if self.nonce and len(self.sent) == 1:
            with_token = "Authorization" in request.headers
            response.status_code = 401 if with_token else 400
            response.headers["DPoP-Nonce"] = self.nonce
            if with_token:
                response.headers["WWW-Authenticate"] = 'DPoP error="use_dpop_nonce"'
            response._content = b'{"error": "use_dpop_nonce"}'
        else:
            response.status_code = 200
            response._content = json.dumps({"access_token": TOKEN, "token_type": "DPoP"}).encode()
        return response

    def close(self):
        pass


def as_sent(key, method, url, nonce, token):
    """By its client, or its authentication for `requests`; the second time, if there is a nonce."""
    adapter = Remembering(nonce)
    session = requests.Session()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # A key that has seen no nonce yet.
    key = DPoPKey(key.private_key, alg=key.alg)
    if token:
        session.request(method, url, auth=DPoPToken(access_token=token, _dpop_key=key))
    else:
        client = OAuth2Client(url, client_id="client", client_secret="secret", session=session, testing=True)
        client.client_credentials(dpop=True, dpop_key=key)
    method_sent, url, headers = adapter.sent[-1]
    if method_sent != method or len(adapter.sent) != (2 if nonce else 1):
        raise RuntimeError(f"{len(adapter.sent)} requests, the last by {method_sent}")
    proof = headers["DPoP"]
    return url, proof.decode() if isinstance(proof, bytes) else proof


def lines(alg, maker, make):
    key, stranger = DPoPKey.generate(alg), DPoPKey.generate(alg)
    for method, token, nonce in ROLES:

        def line(url, by=key):
            url, proof = make(by, method, url, nonce, token)
            made = {"maker": maker, "alg": alg, "method": method, "url": url, "nonce": nonce, "token": token}
            return made | {"jkt": key.dpop_jkt, "proof": proof, "variant": "as it is", "broken": None}

        for url in URLS:
            yield line(url)
        if token:
            name = "another key"
            yield line(URLS[0], stranger) | {"variant": name, "broken": name}
        for changes, is_broken in ((ALLOWED, False), (BROKEN, True)):
            for name, change in changes.items():
                good = line(URLS[0])
                proof = Draft(good["proof"], key.private_key, alg, token, nonce).broken(change)
                if proof is not SKIP:
                    yield good | {"proof": proof, "variant": name, "broken": name if is_broken else None}


def main():
    for alg in ALGORITHMS:
        for maker, make in ((MAKER, directly), (f"{MAKER}, as sent", as_sent)):
            for line in lines(alg, maker, make):
                print(json.dumps(line))


if __name__ == "__main__":
    main()
