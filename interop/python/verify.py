"""Checks every proof of a record by a library that is not ours: `requests_oauth2client`, with `jwskate`.

    verify.py RECORD...       prints how many proofs there were and what was found; fails if that is anything
    verify.py --self-test     breaks a good line in many ways and fails unless each is found

The library compares `typ`, `jwk`, the signature, `iat`, `jti`, `htm`, `htu` and `ath`, all to the letter. Where it is laxer
than RFC 9449 this program adds the rule (`RULES` below: the library does not compare `alg` with anything, takes a `crit`, an
empty `jti`, and an `ath` without a token), or it is left to the verifier in Rust, which looks at the same record: names that
stand twice, padding, members that nobody asked for, `jti`s that come again, nonces.
"""

import base64
import hashlib
import json
import os
import sys
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from itertools import islice
from urllib.parse import urlsplit

# Nothing is left behind where the program stands.
sys.dont_write_bytecode = True

from requests_oauth2client import dpop  # noqa: E402

# Further than this from the clock is a finding. The library's own bound is exclusive.
LEEWAY_SECONDS = 2.001

# The names that may stand in `alg`, and the library's names of them. It does not read `alg` itself: it tries what it is
# given. So it is given what the proof says.
ALGORITHMS = {name: name for name in ("ES256", "PS256", "RS256", "EdDSA")} | {"Ed25519": "EdDSA"}

DEFAULT_PORTS = {"http": 80, "https": 443}

CHUNK = 200
KEPT = 20


class Clock:
    """Stands where the library looks for `datetime`: proofs are checked long after they were sent."""

    at = None

    @classmethod
    def now(cls, tz=None):
        return cls.at


dpop.datetime = Clock


def part(proof, index):
    """A part of a proof, without any check."""
    text = proof.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def target(url):
    """The `htu` of a request: all but scheme and host byte for byte."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}"


def hashed(token):
    digest = hashlib.sha256(token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def clock_of(sent, iat):
    """This machine's, or the server's: whichever the proof is nearer to."""
    here = sent["sent_ms"] / 1000
    seconds = min(here, here + sent["clock"], key=lambda at: abs(iat - at))
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def rule_alg(sent, header, claims):
    if header.get("alg") not in ALGORITHMS:
        return f"alg is {header.get('alg')}"


def rule_ath(sent, header, claims):
    if ("ath" in claims) != (sent["token"] is not None):
        return "ath without a token, or a token without ath"


def rule_crit(sent, header, claims):
    if "crit" in header:
        return "crit"


def rule_jti(sent, header, claims):
    if claims.get("jti") == "":
        return "jti is empty"


RULES = (rule_alg, rule_ath, rule_crit, rule_jti)


def check(sent):
    """What is wrong with a line, or nothing."""
    try:
        proof, token = sent["proof"], sent["token"]
        header, claims = part(proof, 0), part(proof, 1)
        for rule in RULES:
            if told := rule(sent, header, claims):
                return told
        Clock.at = clock_of(sent, claims["iat"])
        dpop.validate_dpop_proof(
            proof,
            htm=sent["method"],
            htu=target(sent["url"]),
            ath=hashed(token) if token is not None else None,
            leeway=LEEWAY_SECONDS,
            algs=[ALGORITHMS[header["alg"]]],
        )
    except Exception as error:  # Whatever a verifier falls over is no good proof.
        return f"{type(error).__name__}: {error}"
    return None


def check_lines(lines):
    found = []
    for number, line in lines:
        try:
            sent = json.loads(line)
            run = sent["run"]
        except (ValueError, KeyError, TypeError) as error:
            found.append({"line": number, "run": None, "what": f"no line of a record: {error!r}"})
            continue
        if told := check(sent):
            found.append({"line": number, "run": run, "what": told})
    return len(lines), found


def numbered(paths):
    number = 0
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                number += 1
                yield number, line


def verify(paths):
    """All lines of all files, by as many processes as there are processors; few of the lines in memory at once."""
    processes = os.cpu_count() or 2
    lines = numbered(paths)
    proofs, count, findings, waiting = 0, 0, [], deque()
    with ProcessPoolExecutor(processes) as pool:
        while True:
            while len(waiting) < processes * 4 and (chunk := list(islice(lines, CHUNK))):
                waiting.append(pool.submit(check_lines, chunk))
            if not waiting:
                break
            checked, found = waiting.popleft().result()
            proofs += checked
            count += len(found)
            findings += found[: KEPT - len(findings)]
    return {"proofs": proofs, "findings": findings, "finding_count": count}


def main(arguments):
    if arguments == ["--self-test"]:
        import self_test

        return self_test.run()
    if not arguments or any(argument.startswith("-") for argument in arguments):
        sys.exit(__doc__)
    result = verify(arguments)
    print(json.dumps(result))
    # A record of nothing proves nothing.
    return 1 if result["finding_count"] or not result["proofs"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
