// JWT access tokens (RFC 9068), and the proofs sent with them, checked by npm `oauth4webapi`.
//
// What its `validateJwtAccessToken` does about proofs, read in its source and seen:
// - `htu`: the claim and the request's URL go through the WHATWG URL parser, lose query and fragment, and must then be
//   the same text. So the scheme's and host's case, a default port, an empty path and dot segments are evened out, and
//   percent-encoding is not: `%7e`, `%7E` and `~` are three paths. `htm` must be the same text.
// - `iat`: 300 s to either side at the most, whether or not there is a nonce; neither more nor less can be set.
// - `jti` must be a string. It is not remembered: that is the caller's.
// - `nonce` is not looked at: that is the caller's, too.
// - `ath` must be there and right, and the key's thumbprint must be the token's `cnf.jkt`.
// - The issuer's keys are fetched once and kept for 300 s by the clock; for an unknown `kid` they are fetched again, but
//   only if they are 60 s old.
import * as oauth from 'oauth4webapi';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { Refused } from './refused.js';

export function jwtTokens(metadata, audience) {
  const kept = {}; // what the library keeps of the issuer's JWKS
  const options = { [oauth.allowInsecureRequests]: true, [oauth.jwksCache]: kept, requireDPoP: true };

  // The library says what is wrong, but not with which of the two JWTs. The token alone is verified once more, then,
  // with the tolerance that the library has by default.
  async function blame(token, error) {
    if (error.cause?.claim === 'cnf.jkt') return 'invalid_token';
    try {
      const expected = { issuer: (await metadata()).issuer, audience, typ: 'at+jwt', clockTolerance: 30 };
      await jwtVerify(token, createLocalJWKSet(kept.jwks), expected);
      return 'invalid_dpop_proof';
    } catch {
      return 'invalid_token';
    }
  }

  return async (request, token) => {
    const issuer = await metadata();
    try {
      return await oauth.validateJwtAccessToken(issuer, request, audience, options);
    } catch (error) {
      // No keys at hand and the issuer does not answer: neither the token nor the proof is to blame.
      if (!kept.jwks) throw new Refused(503, 'temporarily_unavailable', 'the issuer does not answer');
      throw new Refused(401, await blame(token, error), error.message);
    }
  };
}
