#!/usr/bin/env python3
"""Prepares the server `glewlwyd`: configuration, database, keys, clients, a user.

    prepare.py '{"port": 4593, "state": "DIR", "client_jwk": {...}}'

Prints one JSON text with all that a driver needs to know. The server does not run when this ends: start it with the
`command` of that text, in the foreground. Run it again and it begins anew; all that the server knew is then gone.

Settings beside `port` and `state`, all optional:
  client_jwk     public JWK of the client that authenticates by `private_key_jwt` (with `kid` and `alg`); none: no such client
  access_token   how long access tokens live, in seconds (1800: a clock may jump by ten minutes)
  iat_duration   how old a proof may be, in seconds (60)
  nonce_counter  how often a nonce is good for the issuer `nonce`, less one (25)
  log_level      NONE, ERROR, WARNING, INFO or DEBUG (WARNING)
"""

import base64
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.parse

SCHEMA = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"
PROGRAM = "/usr/bin/glewlwyd"
MODULES = "/usr/lib/glewlwyd"
ADMIN = ("admin", "password")  # as the package's own SQL has it
START_SECONDS = 30

# (name of the plugin and of the path, nonces wanted, the setting of its counter: a nonce is good once more than that)
ISSUERS = (("plain", False, 1), ("nonce", True, None), ("twice", True, 1))

# Into these the server writes without the lock that it holds while it stores a token. It then asks SQLite for the id
# of the row that was written last, and gets the wrong one: 500, and the refresh token is gone. Rows without row ids
# leave that number alone. With the schema as it comes, one in five token requests in parallel fails.
BESIDE = ("gpo_dpop", "gpo_dpop_client_nonce", "gpo_client_token_request")


def main():
    settings = json.loads(sys.argv[1])
    state = os.path.abspath(settings["state"])
    base = f"http://127.0.0.1:{settings['port']}"
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", settings["port"]))  # fails here, not by filling another server
    shutil.rmtree(state, ignore_errors=True)
    os.makedirs(state, mode=0o700)
    configuration = write_configuration(state, settings, base)
    make_database(os.path.join(state, "glewlwyd.db"))
    command = [PROGRAM, f"--config-file={configuration}"]
    with open(os.path.join(state, "prepare.log"), "wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(server, settings["port"])
            told = fill(base, settings)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    told["command"] = command
    print(json.dumps(told))


def write_configuration(state, settings, base):
    """No page, no log file, no cookie that wants https: the API is all we use."""
    path = os.path.join(state, "glewlwyd.conf")
    lines = [
        f'port={settings["port"]}',
        'bind_address="127.0.0.1"',
        f'external_url="{base}"',
        'login_url="login.html"',
        'api_prefix="api"',
        'log_mode="console"',
        f'log_level="{settings.get("log_level", "WARNING")}"',
        "cookie_secure=0",
        'session_key="GLEWLWYD2_SESSION_ID"',
        'admin_scope="g_admin"',
        'profile_scope="g_profile"',
        'hash_algorithm="SHA512"',
        # A body that is not what its length says would hide other things.
        'response_allowed_compression="none"',
        f'database = {{ type = "sqlite3"; path = "{state}/glewlwyd.db"; }};',
    ]
    for kind in ("user", "client", "plugin"):
        lines.append(f'{kind}_module_path="{MODULES}/{kind}"')
    # The package has none, but the server wants a folder.
    os.mkdir(os.path.join(state, "none"))
    lines.append(f'user_middleware_module_path="{state}/none"')
    lines.append(f'user_auth_scheme_module_path="{MODULES}/scheme"')
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def make_database(path):
    with open(SCHEMA, encoding="utf-8") as file:
        schema = file.read()
    for table in BESIDE:
        schema = without_row_ids(schema, table)
    database = sqlite3.connect(path)
    # Written ahead: a server that is killed in mid-write then starts again without repair, and readers do not wait.
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(schema)
    # The clients' store returns only the properties that it was told of.
    (told,) = database.execute("SELECT gcmi_parameters FROM g_client_module_instance").fetchone()
    parameters = json.loads(told)
    parameters["data-format"]["dpop_bound_access_tokens"] = {"multiple": False, "read": True, "write": True}
    database.execute("UPDATE g_client_module_instance SET gcmi_parameters = ?", (json.dumps(parameters),))
    database.commit()
    database.close()


def without_row_ids(schema, table):
    start = schema.index(f"CREATE TABLE {table} (")
    end = schema.index(");", start)
    made = schema[start:end]
    key = "TEXT PRIMARY KEY DEFAULT (hex(randomblob(16)))"
    changed = made.replace("INTEGER PRIMARY KEY AUTOINCREMENT", key) + ") WITHOUT ROWID;"
    if changed.count(key) != 1:
        sys.exit(f"the schema's table {table} is not as it was")
    return schema[:start] + changed + schema[end + 2 :]


def wait_for(server, port):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode} as it started: see prepare.log")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("the server takes no connections")


def fill(base, settings):
    api = Api(base)
    api.log_in(*ADMIN)
    redirect = "http://127.0.0.1/callback"
    for scope in ("api", "more"):
        api.send("POST", "/api/scope/", {"name": scope, "display_name": scope, "password_required": True, "scheme": {}})
    user = {"username": "anna", "password": secrets.token_urlsafe(18)}
    api.send("POST", "/api/user/", user | {"name": "Anna", "enabled": True, "scope": ["openid", "api", "more"]})
    issuers = {}
    for name, nonces, times in ISSUERS:
        times = times or settings.get("nonce_counter", 25)
        issuer = f"{base}/api/{name}"
        api.send("POST", "/api/mod/plugin/", plugin(name, issuer, nonces, times, settings))
        issuers[name] = endpoints(issuer, nonces, times)
        # Clients of its own: the server keeps one nonce for each client, whichever issuer it came by.
        clients = make_clients(name, redirect, settings.get("client_jwk"))
        for client in clients.values():
            api.send("POST", "/api/client/", client)
        issuers[name]["clients"] = {kind: shown(client) for kind, client in clients.items()}
    return {
        "server": "glewlwyd",
        "base": base,
        "issuers": issuers,
        "user": user,
        "redirect_uri": redirect,
        "iat_duration": settings.get("iat_duration", 60),
        "access_token": settings.get("access_token", 1800),
        "login": login(base, user),
    }


# None has characters that need encoding in `Basic`: the server compares what it gets without decoding it.
def make_clients(issuer, redirect, jwk):
    def client(kind, **more):
        return {
            "client_id": f"{issuer}.{kind}",
            "name": f"{issuer} {kind}",
            "enabled": True,
            "confidential": True,
            "scope": ["api", "more"],
            "redirect_uri": [redirect],
            "authorization_type": ["code", "client_credentials", "refresh_token"],
            "dpop_bound_access_tokens": "1",
        } | more

    clients = {
        "secret_post": client(
            "post", token_endpoint_auth_method=["client_secret_post"], client_secret=secrets.token_urlsafe(24)
        ),
        "secret_basic": client(
            "basic", token_endpoint_auth_method=["client_secret_basic"], client_secret=secrets.token_urlsafe(24)
        ),
        "public": client(
            "public",
            confidential=False,
            token_endpoint_auth_method=["none"],
            authorization_type=["code", "refresh_token"],
        ),
    }
    if jwk:
        clients["private_key_jwt"] = client(
            "key",
            token_endpoint_auth_method=["private_key_jwt"],
            token_endpoint_signing_alg=jwk.get("alg", "ES256"),
            jwks={"keys": [jwk]},
        )
    return clients


def shown(client):
    keys = ("client_id", "client_secret", "token_endpoint_auth_method", "authorization_type", "scope")
    return {key: client[key] for key in keys if key in client}


def plugin(name, issuer, nonces, times, settings):
    """The OpenID Connect plugin, once for each way to deal with nonces."""
    yes, no = True, False
    return {
        "module": "oidc",
        "name": name,
        "display_name": name,
        "enabled": yes,
        "parameters": {
            "iss": issuer,
            "jwks-private": json.dumps({"keys": [signing_key(name)]}),
            "jwks-show": yes,
            "access-token-duration": settings.get("access_token", 1800),
            "refresh-token-duration": 86400,
            "code-duration": 600,
            "refresh-token-rolling": yes,
            "refresh-token-one-use": "always",
            "allow-non-oidc": yes,
            "auth-type-code-enabled": yes,
            "auth-type-code-revoke-replayed": no,
            "auth-type-token-enabled": no,
            "auth-type-id-token-enabled": yes,
            "auth-type-none-enabled": no,
            "auth-type-password-enabled": no,
            "auth-type-client-enabled": yes,
            "auth-type-device-enabled": no,
            "auth-type-refresh-enabled": yes,
            "scope": [],
            "name-claim": "on-demand",
            "email-claim": "no",
            "pkce-allowed": yes,
            "pkce-required": yes,
            "introspection-revocation-allowed": yes,
            "introspection-revocation-allow-target-client": yes,
            "request-parameter-allow": yes,
            "client-jwks-parameter": "jwks",
            "client-pubkey-parameter": "pubkey",
            "subject-type": "public",
            "oauth-par-allowed": yes,
            "oauth-par-required": no,
            "oauth-par-duration": 90,
            "oauth-par-request_uri-prefix": "urn:ietf:params:oauth:request_uri:",
            "oauth-dpop-allowed": yes,
            "oauth-dpop-iat-duration": settings.get("iat_duration", 60),
            "oauth-dpop-iat-gap-duration": 5,
            "oauth-dpop-dpop_bound_access_tokens-property": "dpop_bound_access_tokens",
            "oauth-dpop-nonce-mandatory": nonces,
            "oauth-dpop-nonce-counter": times,
        },
    }


def endpoints(issuer, nonces, times):
    told = {
        "issuer": issuer,
        "discovery": f"{issuer}/.well-known/openid-configuration",
        "token": f"{issuer}/token",
        "authorization": f"{issuer}/auth",
        "par": f"{issuer}/par",
        "userinfo": f"{issuer}/userinfo",
        "introspection": f"{issuer}/introspect",
        "jwks": f"{issuer}/jwks",
        "nonces": nonces,
    }
    if nonces:
        told["nonce_good_for"] = times + 1
    return told


def login(base, user):
    """The requests that stand in for a browser, in their order. Keep the cookie of the first for the others."""
    return {
        "1_password": {
            "method": "POST",
            "url": f"{base}/api/auth/",
            "json": {"username": user["username"], "password": user["password"]},
            "status": 200,
            "keep": "the cookie GLEWLWYD2_SESSION_ID of Set-Cookie",
        },
        "2_consent": {
            "method": "PUT",
            "url": f"{base}/api/auth/grant/CLIENT_ID",
            "json": {"scope": "openid api more"},
            "status": 200,
        },
        "3_authorize": {
            "method": "GET",
            "url": "AUTHORIZATION?response_type=code&g_continue&client_id=..&redirect_uri=..&scope=..&nonce=..&state=.."
            "&code_challenge=..&code_challenge_method=S256",
            "status": 302,
            "keep": "the code of Location",
        },
    }


def signing_key(kid):
    """An EC key on P-256 as a private JWK. By hand, because Python's own library has none."""
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    g = (
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    )

    def add(a, b):
        if a is None or b is None:
            return a or b
        if a[0] == b[0] and (a[1] + b[1]) % p == 0:
            return None
        if a == b:
            slope = 3 * (a[0] * a[0] - 1) * pow(2 * a[1], -1, p) % p
        else:
            slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, p) % p
        x = (slope * slope - a[0] - b[0]) % p
        return x, (slope * (a[0] - x) - a[1]) % p

    d = secrets.randbelow(n - 1) + 1
    point, power = None, g
    for bit in range(256):
        if d >> bit & 1:
            point = add(point, power)
        power = add(power, power)

    def text(number):
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

    return {
        "kty": "EC",
        "crv": "P-256",
        "alg": "ES256",
        "use": "sig",
        "kid": kid,
        "x": text(point[0]),
        "y": text(point[1]),
        "d": text(d),
    }


class Api:
    """The server's API of administration, for one session."""

    def __init__(self, base):
        self.host = urllib.parse.urlsplit(base).netloc
        self.cookie = None

    def log_in(self, name, password):
        answer = self.send("POST", "/api/auth/", {"username": name, "password": password})
        self.cookie = answer.getheader("Set-Cookie").split(";")[0]

    def send(self, method, path, body):
        connection = http.client.HTTPConnection(self.host, timeout=30)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.cookie:
            headers["Cookie"] = self.cookie
        connection.request(method, path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != 200:
            sys.exit(f"{method} {path}: {answer.status} {text}")
        return answer


if __name__ == "__main__":
    main()
