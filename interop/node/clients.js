// The clients that the authorization server knows. Everything else reads them here, or asks the running server for
// them at `GET /interop/clients`. The secrets are constants: they guard nothing but a server on loopback.

// Every printable ASCII character that is not a letter or a digit, a space first and last, and things that look as if
// they were encoded already. oidc-provider permits %x20-7E in ids and secrets (RFC 6749 appendix A.1 and A.2) and
// nothing else, so no `é`. Under client_secret_basic all of it is form-encoded first (RFC 6749 section 2.3.1).
const nasty = ' !"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~ %2B+%20%% ';

export const clients = {
  post: {
    client_id: 'post',
    client_secret: 'the secret of post',
    token_endpoint_auth_method: 'client_secret_post',
  },
  basic: {
    client_id: `id with space:+%&=/?"${nasty}`,
    client_secret: `${nasty}secret:with space%3A&client_secret=other`,
    token_endpoint_auth_method: 'client_secret_basic',
  },
  jwt: {
    client_id: 'jwt',
    token_endpoint_auth_method: 'private_key_jwt',
  },
  public: {
    client_id: 'public',
    token_endpoint_auth_method: 'none',
    redirect_uri: 'http://127.0.0.1/callback',
  },
  public_par: {
    client_id: 'public-par',
    token_endpoint_auth_method: 'none',
    redirect_uri: 'http://127.0.0.1/callback',
    require_pushed_authorization_requests: true,
  },
  // The resource server, when it asks whether a token is good (RFC 7662). It gets no tokens.
  resource: {
    client_id: 'resource',
    client_secret: 'the secret of the resource server',
    token_endpoint_auth_method: 'client_secret_post',
  },
};
