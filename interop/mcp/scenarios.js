// The scenarios of the conformance suite that are run, and how each has to end.
//
// `whole`: a session with a bound token, from its beginning to its end; every check passes.
// `stops`: something is wrong with what the servers tell, and the client goes no further; every check passes.
// `bearer`: every check up to the token passes, and then the client refuses the token, which is bound to no key: no
// request with it reaches the MCP server. The suite itself counts that as a failure, since the client ends with an error.
//
// `ids` are checks that must be among those that passed: with them no scenario passes by checking nothing.

const code = [
  'authorization-request',
  'pkce-code-challenge-sent',
  'pkce-s256-method-used',
  'token-request',
  'pkce-code-verifier-sent',
  'pkce-verifier-matches-challenge',
];
const resource = [
  'resource-parameter-in-authorization',
  'resource-parameter-in-token',
  'resource-parameter-valid-uri',
  'resource-parameter-consistency',
  'resource-parameter-matches-prm',
];
const dpop = [
  ...code,
  'sep-1932-client-token-request-proof',
  'sep-1932-client-dpop-auth-scheme',
  'sep-1932-client-fresh-proof',
];
const nonce = [...dpop, 'sep-1932-client-as-nonce', 'sep-1932-client-rs-nonce'];

const found = ['prm-pathbased-requested', 'authorization-server-metadata'];

/** Name, how it ends, what passed, and the protocol's version if it is not the suite's choice. */
export const scenarios = [
  ['auth/dpop', 'whole', dpop],
  ['auth/dpop', 'whole', dpop, '2026-07-28'],
  ['auth/dpop-nonce', 'whole', nonce],
  ['auth/dpop-nonce', 'whole', nonce, '2026-07-28'],

  ['auth/resource-mismatch', 'stops', ['resource-mismatch-rejected']],
  ['auth/metadata-issuer-mismatch', 'stops', ['sep-2468-client-validate-metadata-issuer']],
  ['auth/iss-supported-missing', 'stops', ['sep-2468-client-reject-missing-iss']],
  ['auth/iss-wrong-issuer', 'stops', ['sep-2468-client-compare-iss-supported']],
  ['auth/iss-unexpected', 'stops', ['sep-2468-client-compare-iss-unadvertised']],
  ['auth/iss-normalized', 'stops', ['sep-2468-client-no-normalization']],

  ['auth/iss-supported', 'bearer', [...code, 'sep-2468-client-compare-iss-supported']],
  ['auth/iss-not-advertised', 'bearer', [...code, 'sep-2468-client-proceed-no-iss']],
  ['auth/metadata-default', 'bearer', [...found, ...code, ...resource]],
  ['auth/metadata-var1', 'bearer', [...found, ...code, ...resource]],
  ['auth/metadata-var2', 'bearer', [...found, ...code, ...resource]],
  ['auth/metadata-var3', 'bearer', [...found, ...code, ...resource]],
  ['auth/basic-cimd', 'bearer', [...code, 'cimd-client-id-used']],
  ['auth/pre-registration', 'bearer', [...code, 'pre-registration-auth']],
  ['auth/scope-from-www-authenticate', 'bearer', [...code, 'scope-from-www-authenticate']],
  ['auth/scope-from-scopes-supported', 'bearer', [...code, 'scope-from-scopes-supported']],
  ['auth/scope-omitted-when-undefined', 'bearer', [...code, 'scope-omitted-when-undefined']],
  ['auth/offline-access-not-supported', 'bearer', [...code, 'sep-2207-offline-access-not-requested']],
  ['auth/token-endpoint-auth-basic', 'bearer', [...code, 'token-endpoint-auth-method']],
  ['auth/token-endpoint-auth-post', 'bearer', [...code, 'token-endpoint-auth-method']],
  ['auth/token-endpoint-auth-none', 'bearer', [...code, 'token-endpoint-auth-method']],
  ['auth/client-credentials-jwt', 'bearer', [...found, 'client-credentials-jwt-verified']],
  ['auth/client-credentials-basic', 'bearer', [...found, 'client-credentials-basic-auth']],
  ['auth/wif-jwt-bearer', 'bearer', [...found, 'wif-assertion-verified']],
];
