// A protected API. `/jwt/…` takes JWT access tokens, `/opaque/…` opaque ones; both only with a DPoP proof (RFC 9449
// section 7), which libraries from npm check. What they leave to their caller is here: repeated `jti`s, nonces, and how a
// refusal looks on the wire.
import { createHash, randomBytes } from 'node:crypto';
import { decodeJwt } from 'jose';
import * as oauth from 'oauth4webapi';
import { clients } from './clients.js';
import { jwtTokens } from './jwt_tokens.js';
import { nonces as noncesOf } from './nonces.js';
import { opaqueTokens } from './opaque_tokens.js';
import { json, kept, serve, settings } from './program.js';
import { Refused } from './refused.js';
import { first } from './replays.js';

const { port, issuer, nonces: kind, rotate_ms, state } = settings({
  port: 0,
  issuer: '',
  nonces: 'off', // 'rotating', 'one-time'
  rotate_ms: 1000,
  state: '',
});
const origin = `http://127.0.0.1:${port}`;
const ALGS = 'ES256';

const { nonce: secret } = await kept(state, 'resource_server.json', () => ({ nonce: randomBytes(32).toString('hex') }));
const nonces = noncesOf(kind, rotate_ms, secret);

const zero = () => ({ requests: 0, served: 0, replayed: 0, challenged: 0, refused: {} });
let counts = zero();

// The issuer's metadata (RFC 8414), asked for when it is needed first: the issuer may start later, or be down.
let found;
async function discover() {
  const asked = await oauth.discoveryRequest(new URL(issuer), { [oauth.allowInsecureRequests]: true });
  return oauth.processDiscoveryResponse(new URL(issuer), asked);
}
async function metadata() {
  try {
    return await (found ??= discover());
  } catch {
    found = undefined; // the next request tries again
    throw new Refused(503, 'temporarily_unavailable', 'the issuer does not answer');
  }
}

const verifiers = {
  jwt: jwtTokens(metadata, `${origin}/jwt`),
  opaque: opaqueTokens(metadata, `${origin}/opaque`, clients.resource),
};

// Everything that must hold before the body is read. Gives the token's claims or throws a `Refused`.
async function check(incoming, url) {
  const verify = verifiers[url.pathname.split('/')[1]];
  if (!verify) throw new Refused(404, 'not_found', 'there is /jwt/… and /opaque/…');
  const [scheme, token, more] = (incoming.headers.authorization ?? '').split(' ');
  // Nothing that could be wrong was sent, so no error code (RFC 6750 section 3.1).
  if (scheme.toLowerCase() !== 'dpop' || !token || more) throw new Refused(401, undefined, 'a DPoP token is wanted');
  // Node joins the values of a repeated header by a comma; no JWT has one (RFC 9449 section 4.3, check 1).
  const proof = incoming.headers.dpop;
  if (!proof || proof.includes(',')) throw new Refused(401, 'invalid_dpop_proof', 'exactly one header DPoP is wanted');

  let request;
  try {
    request = new Request(url, { method: incoming.method, headers: { authorization: incoming.headers.authorization, dpop: proof } });
  } catch {
    throw new Refused(405, 'method_not_allowed', 'the verifier cannot take this method');
  }
  const claims = await verify(request, token);

  // The signature is good. From here on the `jti` is used up, even if the nonce is not the wanted one: a proof that
  // is sent again with another nonce has to have a `jti` of its own, too.
  const { jti, nonce } = decodeJwt(proof);
  if (!first(jti)) throw new Refused(401, 'replayed', 'the jti was seen before');
  if (nonces) {
    if (nonce === undefined) throw new Refused(401, 'use_dpop_nonce', 'a nonce is wanted in the proof');
    if (!nonces.accept(nonce)) throw new Refused(401, 'use_dpop_nonce', 'the nonce is none that is wanted now');
  }
  return claims;
}

function refuse(response, refused) {
  let { status, error } = refused;
  if (error === 'use_dpop_nonce') {
    counts.challenged += 1;
  } else if (error === 'replayed') {
    counts.replayed += 1;
    error = 'invalid_dpop_proof';
  } else {
    counts.refused[error ?? 'none'] = (counts.refused[error ?? 'none'] ?? 0) + 1;
  }
  // A header's quoted text is ASCII without quotes and backslashes (RFC 9449 section 7.1, RFC 6750 section 3).
  const words = refused.message.replace(/["\\]/g, "'").replace(/[^\x20-\x7e]+/g, ' ');
  const headers = {};
  if (nonces) headers['dpop-nonce'] = nonces.next();
  if (status === 401) {
    const said = error ? [`error="${error}"`, `error_description="${words}"`] : [];
    headers['www-authenticate'] = `DPoP ${[...said, `algs="${ALGS}"`].join(', ')}`;
  }
  json(response, status, { error, error_description: words }, headers);
}

async function answer(incoming, response) {
  counts.requests += 1;
  try {
    const url = URL.parse(incoming.url, origin);
    if (!url) throw new Refused(400, 'invalid_request', 'the target is no URL');
    const claims = await check(incoming, url);
    const hash = createHash('sha256');
    let length = 0;
    for await (const part of incoming) {
      hash.update(part);
      length += part.length;
    }
    counts.served += 1;
    json(
      response, 200,
      { method: incoming.method, path: incoming.url, client_id: claims.client_id, length, sha256: hash.digest('hex') },
      nonces ? { 'dpop-nonce': nonces.next() } : {},
    );
  } catch (error) {
    if (error instanceof Refused) return refuse(response, error);
    if (error.code === 'ECONNRESET') return; // the client went away in the middle of its body
    console.error(error);
    refuse(response, new Refused(500, 'server_error', 'see the log'));
  }
}

serve(port, (incoming, response) => {
  if (incoming.url === '/interop/counts') {
    const was = counts;
    if (incoming.method === 'POST') counts = zero();
    return json(response, 200, was);
  }
  return answer(incoming, response);
});
