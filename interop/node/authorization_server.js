// An authorization server: npm `oidc-provider`, certified by the OpenID Foundation, with DPoP (RFC 9449), and
// nothing of its own in the protocol. What stands here is its configuration, a user that agrees to everything, and
// counts of what was asked and refused.
//
// What it does about DPoP, read in its source and seen:
// - `iat` may be 300 s off, to either side; with a nonce in the proof, `iat` is not looked at.
// - Nonces are made of a secret and the minute. The one of the next minute is given out, those of two minutes before
//   and after the current one are accepted: one lives for 3 to 4 minutes.
// - `DPoP-Nonce` comes with every challenge, and with a success only if the proof's nonce was not the newest.
// - A proof whose `iat` is off is answered by `use_dpop_nonce` if there are nonces, by `invalid_dpop_proof` if not.
//   Any other fault is `invalid_dpop_proof`, without a nonce; no proof at all is `invalid_grant`.
// - The client is authenticated first, so a challenge uses up a client assertion. It uses up no code and no refresh token.
// - A `jti` is remembered for 300 s for each client, once the rest of the proof was good. A repeated one is answered
//   by `invalid_grant`, for a pushed authorization request by `invalid_request`.
import { randomBytes } from 'node:crypto';
import { exportJWK, generateKeyPair } from 'jose';
import { errors, Provider } from 'oidc-provider';
import { clients } from './clients.js';
import { count } from './counts.js';
import { json, kept, serve, settings } from './program.js';
import { store } from './store.js';

const { port, nonces, state, resource, token_seconds, client_jwk } = settings({
  port: 0,
  nonces: 'off', // 'offered': given out, not asked for; 'required'
  state: '', // a directory
  resource: '', // the resource server's origin
  token_seconds: 600,
  client_jwk: undefined, // the public key of the client `jwt`
});
if (!['off', 'offered', 'required'].includes(nonces)) throw new Error(`there are no nonces of the kind ${nonces}`);
const issuer = `http://127.0.0.1:${port}`;

const secrets = await kept(state, 'authorization_server.json', async () => {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  return {
    key: { ...(await exportJWK(privateKey)), kid: randomBytes(8).toString('hex'), alg: 'ES256', use: 'sig' },
    nonce: randomBytes(32).toString('hex'),
    cookie: randomBytes(32).toString('hex'),
  };
});

// A client as the provider's configuration has it (the names are those of RFC 7591).
function registration(name) {
  const { redirect_uri, ...client } = clients[name];
  if (redirect_uri) {
    return {
      ...client,
      application_type: 'native', // so the port of the loopback redirect is free (RFC 8252 section 7.3)
      redirect_uris: [redirect_uri],
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'],
      id_token_signed_response_alg: 'ES256',
      dpop_bound_access_tokens: true,
    };
  }
  const machine = { ...client, redirect_uris: [], response_types: [], id_token_signed_response_alg: 'ES256' };
  if (name === 'resource') return { ...machine, grant_types: [] };
  if (name === 'jwt') {
    if (!client_jwk) return undefined;
    machine.jwks = { keys: [client_jwk] };
    machine.token_endpoint_auth_signing_alg = 'ES256';
  }
  return { ...machine, grant_types: ['client_credentials'], dpop_bound_access_tokens: true };
}

// Resource indicators (RFC 8707): one resource for each format of token.
const formats = { [`${resource}/jwt`]: 'jwt', [`${resource}/opaque`]: 'opaque' };
const scope = 'read write';

const provider = new Provider(issuer, {
  adapter: store(),
  clients: Object.keys(clients).map(registration).filter(Boolean),
  jwks: { keys: [secrets.key] },
  cookies: { keys: [secrets.cookie] },
  scopes: ['openid', 'offline_access', ...scope.split(' ')],
  pkce: { required: () => true },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  // Every user that logs in gets a refresh token; it is good once, and a second use revokes the grant (RFC 9700
  // section 4.14.2).
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: () => true,
  ttl: { AccessToken: token_seconds, ClientCredentials: token_seconds, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 600 },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === clients.resource.client_id },
    revocation: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
    pushedAuthorizationRequests: { enabled: true },
    dPoP: {
      enabled: true,
      nonceSecret: nonces === 'off' ? undefined : Buffer.from(secrets.nonce, 'hex'),
      requireNonce: () => nonces === 'required',
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => `${resource}/opaque`,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, indicator) => {
        const accessTokenFormat = formats[indicator];
        if (!accessTokenFormat) throw new errors.InvalidTarget();
        return { scope, audience: indicator, accessTokenTTL: token_seconds, accessTokenFormat, jwt: { sign: { alg: 'ES256' } } };
      },
    },
  },
});

// The user, who is always the same, logs in and consents to whatever is asked for, in one step.
async function agree(request, response) {
  const { params, grantId } = await provider.interactionDetails(request, response);
  const accountId = 'the-user';
  const grant = (grantId && await provider.Grant.find(grantId)) || new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope ?? '');
  for (const indicator of Object.keys(formats)) grant.addResourceScope(indicator, scope);
  const consent = { grantId: await grant.save() };
  return provider.interactionFinished(request, response, { login: { accountId }, consent });
}

const counts = count(provider);
const protocol = provider.callback();

serve(port, (request, response) => {
  const { pathname } = new URL(request.url, issuer);
  if (pathname === '/interop/clients') return json(response, 200, clients);
  if (pathname === '/interop/counts') return json(response, 200, counts.read(request.method === 'POST'));
  if (pathname.startsWith('/interaction/')) return agree(request, response);
  if (pathname === '/token' && request.method === 'POST') counts.asked();
  return protocol(request, response);
});
