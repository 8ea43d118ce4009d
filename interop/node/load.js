// Load by npm `openid-client`, used as its documentation says: `requests` GETs, `in_flight` at a time. Prints one line.
import * as client from 'openid-client';
import { settings } from './program.js';

const { issuer, client_id, client_secret, api, resource, requests, in_flight } = settings({
  issuer: '',
  client_id: '',
  client_secret: '',
  api: '',
  resource: undefined,
  requests: 1,
  in_flight: 1,
});
const url = new URL(api);

// Every sending passes here, those that the library repeats with a nonce included. Node's `fetch` keeps connections alive.
let sends = 0;
let token_sends = 0;
let token_endpoint;
function counting(to, options) {
  if (to === url.href) sends += 1;
  if (to === token_endpoint) token_sends += 1;
  return fetch(to, options);
}

const config = await client.discovery(new URL(issuer), client_id, undefined, client.ClientSecretPost(client_secret), {
  execute: [client.allowInsecureRequests], // loopback
  [client.customFetch]: counting,
});
({ token_endpoint } = config.serverMetadata());
const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair());

const fetchToken = () => client.clientCredentialsGrant(config, resource ? { resource } : {}, { DPoP });
let tokens = await fetchToken();
let renewal;
// A token is asked for anew when the old one has expired, once for all that wait.
async function token() {
  if (tokens.expiresIn() === 0) {
    renewal ??= fetchToken().then((fresh) => { tokens = fresh; }).finally(() => { renewal = undefined; });
    await renewal;
  }
  return tokens.access_token;
}

// A short name for what went wrong: the status and the challenge's error, or what the connection's error is called.
function named(error) {
  if (error instanceof client.WWWAuthenticateChallengeError) {
    return `${error.status} ${error.cause[0]?.parameters.error ?? ''}`.trim();
  }
  if (error.error) return `${error.status} ${error.error}`;
  const cause = error.cause?.cause ?? error.cause ?? error;
  return cause.code ?? cause.message ?? String(error);
}

let ok = 0;
let begun = 0;
const failures = {};
async function worker() {
  while (begun < requests) {
    begun += 1;
    let failure;
    try {
      const response = await client.fetchProtectedResource(config, await token(), url, 'GET', undefined, undefined, { DPoP });
      await response.arrayBuffer(); // so that the connection can be used again
      if (response.status === 200) ok += 1;
      else failure = String(response.status);
    } catch (error) {
      failure = named(error);
    }
    if (failure) failures[failure] = (failures[failure] ?? 0) + 1;
  }
}

const began = performance.now();
await Promise.all(Array.from({ length: in_flight }, worker));
const seconds = Number(((performance.now() - began) / 1000).toFixed(3));
console.log(JSON.stringify({ requests, sends, token_sends, ok, failures, seconds }));
process.exit(0);
