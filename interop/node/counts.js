// What the authorization server was asked and what it refused, by the provider's own events.

// How `oidc-provider` says that a proof came twice. The token endpoint tells it to its events only: on the wire it is
// `invalid_grant`. For a pushed authorization request it is `invalid_request`, for the user's claims `invalid_token`.
const REPLAY = /DPoP proof JWT Replay detected/;

const zero = () => ({ requests: 0, granted: 0, refused: {}, replayed: 0, elsewhere: {} });

export function count(provider) {
  let counts = zero();
  const add = (of, name) => {
    of[name] = (of[name] ?? 0) + 1;
  };
  const refused = (endpoint) => (ctx, error) => {
    if (REPLAY.test(error.error_detail ?? '') || REPLAY.test(error.error_description ?? '')) {
      counts.replayed += 1;
    } else if (endpoint === 'token') {
      add(counts.refused, error.error);
    } else {
      add(counts.elsewhere, `${endpoint}: ${error.error}`);
    }
    console.error(endpoint, error.error, error.error_description, error.error_detail ?? '');
  };
  provider.on('grant.success', () => {
    counts.granted += 1;
  });
  provider.on('grant.error', refused('token'));
  provider.on('pushed_authorization_request.error', refused('pushed'));
  provider.on('authorization.error', refused('authorization'));
  provider.on('userinfo.error', refused('userinfo'));
  provider.on('introspection.error', refused('introspection'));
  provider.on('revocation.error', refused('revocation'));
  provider.on('server_error', (ctx, error) => {
    add(ctx.path === '/token' ? counts.refused : counts.elsewhere, 'server_error');
    console.error(ctx.path, error);
  });
  return {
    asked: () => {
      counts.requests += 1;
    },
    // What was counted up to now; `reset` begins anew.
    read: (reset) => {
      const was = counts;
      if (reset) counts = zero();
      return was;
    },
  };
}
