// Opaque access tokens: the issuer is asked about each (RFC 7662), and the proofs sent with them are checked. Both by npm
// `@openid4vc/oauth2`, of other authors than `oauth4webapi`, and stricter in one place.
//
// What its `verifyResourceRequest` does, read in its source and seen:
// - The scheme must be written `DPoP`, in these cases.
// - `htu`: the request's URL goes through the WHATWG URL parser and loses query and fragment; the claim must be just that
//   text. So a claim with an upper-case host, a default port or an empty path is refused. `htm` must be the same text,
//   and one of the nine methods of RFC 9110 and RFC 5789.
// - `ath` must be there and right; the key's thumbprint must be the `cnf.jkt` that the issuer told.
// - `iat` must be a number and `jti` a text; that `iat` is recent is not checked. The signature is the caller's, too, so
//   `jose` checks both, below.
// - It goes on with a token that is not active; only the missing `cnf` stops it. It does not check an opaque token's
//   audience. Both are checked below.
// - A failure to reach the issuer looks as a bad token does; so it is noted by the `fetch` given to it.
import { createHash } from 'node:crypto';
import * as oauth2 from '@openid4vc/oauth2';
import { jwtVerify } from 'jose';
import { Refused } from './refused.js';

oauth2.setGlobalConfig({ allowInsecureUrls: true }); // loopback

// A minute for what is on its way, and five seconds for clocks that differ. The other verifier allows 300 s, so a client
// is seen with a wide window and with a narrow one.
const RECENT = { maxTokenAge: 60, clockTolerance: 5 };

async function verifyJwt({ publicJwk, alg }, { compact }) {
  await jwtVerify(compact, publicJwk, { typ: 'dpop+jwt', algorithms: [alg], ...RECENT });
  return { verified: true, signerJwk: publicJwk };
}

export function opaqueTokens(metadata, audience, client) {
  const callbacks = {
    hash: (data, algorithm) => createHash(algorithm.replace('-', '')).update(data).digest(),
    verifyJwt,
    clientAuthentication: oauth2.clientAuthenticationClientSecretPost({
      clientId: client.client_id,
      clientSecret: client.client_secret,
    }),
  };
  return async (request) => {
    const issuer = await metadata();
    let down = false;
    const noting = async (...args) => {
      try {
        const answer = await fetch(...args);
        down = answer.status >= 500;
        return answer;
      } catch (error) {
        down = true;
        throw error;
      }
    };
    try {
      const { tokenPayload } = await oauth2.verifyResourceRequest({
        authorizationServers: [issuer],
        resourceServer: audience,
        request: { url: request.url, method: request.method, headers: request.headers },
        allowedAuthenticationSchemes: ['DPoP'],
        callbacks: { ...callbacks, fetch: noting },
      });
      if (tokenPayload.active !== true) throw new Refused(401, 'invalid_token', 'the token is not active');
      if (![tokenPayload.aud].flat().includes(audience)) throw new Refused(401, 'invalid_token', 'the token is for another resource');
      return tokenPayload;
    } catch (error) {
      if (error instanceof Refused) throw error;
      if (down) throw new Refused(503, 'temporarily_unavailable', 'the issuer does not answer');
      const said = error.wwwAuthenticateHeaders?.[0];
      if (!said) throw error;
      // The library writes the whole error, as JSON, below the sentence.
      throw new Refused(401, said.error, said.error_description?.split('\n')[0]);
    }
  };
}
