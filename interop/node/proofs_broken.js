// What can be wrong with a proof, one thing at a time; and what looks wrong and is not.
//
// A change is made to a good proof's parts (`header` and `claims`, which are signed again by the same key), or gives the
// whole text itself. `request` is what the proof was made for. One that does not apply returns false.

import { createHmac, generateKeyPairSync } from 'node:crypto'

export const encode = (data) => Buffer.from(data).toString('base64url')
export const decode = (part) => JSON.parse(Buffer.from(part, 'base64url'))

const ELSEWHERE = 'https://elsewhere.example/other'
const now = () => Math.floor(Date.now() / 1000)

// A JSON text with a member more, before the others or after them.
const before = (object, member) => JSON.stringify(object).replace('{', `{${member},`)
const after = (object, member) => JSON.stringify(object).replace(/}$/, `,${member}}`)

const header = (change) => ({ header, claims }) => {
  header = structuredClone(header)
  return change(header) === false ? false : { header, claims }
}
const claims = (change) => ({ header, claims, request }) => {
  claims = structuredClone(claims)
  return change(claims, request) === false ? false : { header, claims }
}
const text = (change) => ({ proof }) => change(...proof.split('.'))
const set = (name, value) => (object) => { object[name] = value }
const remove = (name) => (object) => { delete object[name] }

// A public key of the same kind, as a JWK.
const another = (alg) => {
  const kinds = { ES256: ['ec', { namedCurve: 'P-256' }], PS256: ['rsa', { modulusLength: 2048 }] }
  kinds.RS256 = kinds.PS256
  const [kind, options] = kinds[alg] ?? ['ed25519']
  return generateKeyPairSync(kind, options).publicKey.export({ format: 'jwk' })
}

const hmac = (header, claims, key) => {
  const signed = `${encode(JSON.stringify(header))}.${encode(JSON.stringify(claims))}`
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`
}

// The same bits, written with other bits in the part of the last character that says nothing.
const loose = (part) => {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  if (part.length % 4 === 0) return false
  return part.slice(0, -1) + alphabet[alphabet.indexOf(part.at(-1)) + 1]
}

const HEADER = {
  'typ missing': header(remove('typ')),
  'typ JWT': header(set('typ', 'JWT')),
  'typ null': header(set('typ', null)),
  'typ with more': header(set('typ', 'dpop+jwt;v=1')),
  'alg missing': header(remove('alg')),
  'alg null': header(set('alg', null)),
  'alg in small letters': header((h) => { h.alg = h.alg.toLowerCase() }),
  'alg unknown': header(set('alg', 'XX256')),
  'alg of another kind of key': header((h) => { h.alg = h.alg === 'ES256' ? 'RS256' : 'ES256' }),
  'alg of another padding': header((h) => {
    const other = { PS256: 'RS256', RS256: 'PS256' }[h.alg]
    if (!other) return false
    h.alg = other
  }),
  'alg of a longer hash': header((h) => {
    const other = { ES256: 'ES384', PS256: 'PS384', RS256: 'RS512' }[h.alg]
    if (!other) return false
    h.alg = other
  }),
  'alg none': header(set('alg', 'none')),
  'alg none, unsigned': ({ header, claims }) =>
    `${encode(JSON.stringify({ ...header, alg: 'none' }))}.${encode(JSON.stringify(claims))}.`,
  'alg HS256': header(set('alg', 'HS256')),
  'alg HS256 by the public key': ({ header, claims }) =>
    hmac({ ...header, alg: 'HS256' }, claims, JSON.stringify(header.jwk)),
  'jwk symmetric': ({ header, claims }) =>
    hmac({ ...header, alg: 'HS256', jwk: { kty: 'oct', k: encode('secret') } }, claims, 'secret'),
  'jwk missing': header(remove('jwk')),
  'jwk null': header(set('jwk', null)),
  'jwk empty': header(set('jwk', {})),
  'jwk as text': header((h) => { h.jwk = JSON.stringify(h.jwk) }),
  'jwk in a list': header((h) => { h.jwk = [h.jwk] }),
  'jwk of another key': header((h) => { h.jwk = another(h.alg) }),
  'jwk replaced by kid': header((h) => { delete h.jwk; h.kid = '1' }),
  'jwk with d': header((h) => { h.jwk.d = encode('d') }),
  'jwk with an empty d': header((h) => { h.jwk.d = '' }),
  'jwk with d null': header((h) => { h.jwk.d = null }),
  'jwk with the primes': header((h) => h.jwk.kty === 'RSA' && Object.assign(h.jwk, { p: 'AQ', q: 'AQ' })),
  'jwk with k': header((h) => { h.jwk.k = 'AQ' }),
  'jwk without kty': header((h) => { delete h.jwk.kty }),
  'jwk with another kty': header((h) => { h.jwk.kty = h.jwk.kty === 'EC' ? 'OKP' : 'EC' }),
  'jwk with another crv': header((h) => h.jwk.crv ? set('crv', 'secp256k1')(h.jwk) : false),
  'jwk without y': header((h) => h.jwk.y ? remove('y')(h.jwk) : false),
  'jwk of no point': header((h) => h.jwk.y ? set('y', h.jwk.x)(h.jwk) : false),
  'jwk of zeros': header((h) => { h.jwk[h.jwk.n ? 'n' : 'x'] = encode(Buffer.alloc(h.jwk.n ? 256 : 32)) }),
  'jwk with a leading zero': header((h) => {
    const name = h.jwk.n ? 'n' : 'x'
    h.jwk[name] = encode(Buffer.concat([Buffer.alloc(1), Buffer.from(h.jwk[name], 'base64url')]))
  }),
  'jwk with padding': header((h) => { h.jwk[h.jwk.n ? 'e' : 'x'] += '=' }),
  'jwk with e 3': header((h) => h.jwk.e ? set('e', 'Aw')(h.jwk) : false),
  crit: header((h) => Object.assign(h, { crit: ['exp'], exp: 1 })),
  'crit empty': header(set('crit', [])),
  'b64 false': header((h) => Object.assign(h, { crit: ['b64'], b64: false })),
  'header: typ twice': ({ header, claims }) => ({ header: before(header, '"typ":"JWT"'), claims }),
  'header: alg twice': ({ header, claims }) => ({ header: before(header, '"alg":"none"'), claims }),
  'header: jwk twice': ({ header, claims }) =>
    ({ header: before(header, `"jwk":${JSON.stringify(another(header.alg))}`), claims }),
  'jwk: kty twice': ({ header, claims }) =>
    ({ header: JSON.stringify(header).replace('"kty":', '"kty":"oct","kty":'), claims }),
}

const CLAIMS = {
  'jti missing': claims(remove('jti')),
  'jti empty': claims(set('jti', '')),
  'jti a number': claims(set('jti', 1)),
  'jti null': claims(set('jti', null)),
  'jti in a list': claims((c) => { c.jti = [c.jti] }),
  'jti of 10,000 characters': claims(set('jti', 'j'.repeat(10_000))),
  'htm missing': claims(remove('htm')),
  'htm of another method': claims((c) => { c.htm = c.htm === 'PUT' ? 'POST' : 'PUT' }),
  'htm in small letters': claims((c) => { c.htm = c.htm.toLowerCase() }),
  'htm with a blank': claims((c) => { c.htm += ' ' }),
  'htm with a NUL': claims((c) => { c.htm += '\0' }),
  'htm null': claims(set('htm', null)),
  'htm in a list': claims((c) => { c.htm = [c.htm] }),
  'htu missing': claims(remove('htu')),
  'htu empty': claims(set('htu', '')),
  'htu null': claims(set('htu', null)),
  'htu elsewhere': claims(set('htu', ELSEWHERE)),
  'htu of another path': claims((c) => { c.htu = new URL('/no/such/path', c.htu).href }),
  'htu of the path in capitals': claims((c) => {
    const url = new URL(c.htu)
    if (url.pathname.toUpperCase() === url.pathname) return false
    c.htu = url.origin + url.pathname.toUpperCase()
  }),
  'htu with a longer path': claims((c) => { c.htu += 'x' }),
  'htu with a slash more': claims((c) => { c.htu += new URL(c.htu).pathname === '/' ? '/x' : '/' }),
  'htu of another scheme': claims((c) => {
    c.htu = c.htu.startsWith('https') ? c.htu.replace('https', 'http') : c.htu.replace('http', 'https')
  }),
  'htu of another port': claims((c) => {
    const url = new URL(c.htu)
    url.port = 9
    c.htu = url.href
  }),
  'htu of another host': claims((c) => { c.htu = c.htu.replace('://', '://x.') }),
  'htu with user information': claims((c) => { c.htu = c.htu.replace('://', '://user:secret@') }),
  'htu without a host': claims((c) => { c.htu = new URL(c.htu).pathname }),
  'htu with a NUL': claims((c) => { c.htu += '\0' }),
  'htu with a blank before': claims((c) => { c.htu = ` ${c.htu}` }),
  'iat missing': claims(remove('iat')),
  'iat null': claims(set('iat', null)),
  'iat as text': claims((c) => { c.iat = String(c.iat) }),
  'iat true': claims(set('iat', true)),
  'iat 10 minutes ago': claims((c) => { c.iat = now() - 600 }),
  'iat in 10 minutes': claims((c) => { c.iat = now() + 600 }),
  'iat in milliseconds': claims((c) => { c.iat = Date.now() }),
  'iat negative': claims((c) => { c.iat = -c.iat }),
  'claims with an iat out of all bounds': ({ header, claims }) =>
    ({ header, claims: JSON.stringify(claims).replace(/"iat":\d+/, '"iat":1e999') }),
  'ath missing': claims((c, { token }) => token ? remove('ath')(c) : false),
  'ath of another token': claims((c, { token }) => token ? set('ath', encode(Buffer.alloc(32)))(c) : false),
  'ath is the token': claims((c, { token }) => token ? set('ath', token)(c) : false),
  'ath in hexadecimal': claims((c, { token }) =>
    token ? set('ath', Buffer.from(c.ath, 'base64url').toString('hex'))(c) : false),
  'ath with padding': claims((c, { token }) => token ? set('ath', `${c.ath}=`)(c) : false),
  'ath null': claims((c, { token }) => token ? set('ath', null)(c) : false),
  'nonce missing': claims((c, { nonce }) => nonce ? remove('nonce')(c) : false),
  'nonce of another': claims((c, { nonce }) => nonce ? set('nonce', 'other')(c) : false),
  'nonce cut off': claims((c, { nonce }) => nonce ? set('nonce', nonce.slice(1))(c) : false),
  'nonce null': claims(set('nonce', null)),
  'nonce a number': claims(set('nonce', 1)),
  'nonce in a list': claims((c, { nonce }) => set('nonce', [nonce])(c)),
  'claims: htm twice': ({ header, claims }) => ({ header, claims: before(claims, '"htm":"PUT"') }),
  'claims: htu twice': ({ header, claims }) => ({ header, claims: before(claims, `"htu":"${ELSEWHERE}"`) }),
  'claims: iat twice': ({ header, claims }) => ({ header, claims: after(claims, '"iat":1') }),
  'claims: jti twice': ({ header, claims }) => ({ header, claims: after(claims, '"jti":"other"') }),
  'claims in a list': ({ header, claims }) => ({ header, claims: JSON.stringify([claims]) }),
  'claims with more after them': ({ header, claims }) => ({ header, claims: `${JSON.stringify(claims)}{}` }),
  'claims cut off': ({ header, claims }) => ({ header, claims: JSON.stringify(claims).slice(0, -1) }),
  'claims with a byte order mark': ({ header, claims }) => ({ header, claims: `\uFEFF${JSON.stringify(claims)}` }),
  'claims that are no UTF-8': ({ header, claims }) =>
    ({ header, claims: Buffer.concat([Buffer.from('{"x":"'), Buffer.from([0xff]), Buffer.from(`",${JSON.stringify(claims).slice(1)}`)]) }),
  'claims with a NUL in them': ({ header, claims }) => ({ header, claims: before(claims, '"x":"\0"') }),
  'claims empty': ({ header }) => ({ header, claims: '' }),
  'header in a list': ({ header, claims }) => ({ header: JSON.stringify([header]), claims }),
}

const TEXT = {
  'another key': ({ proof, stranger, request }) => request.token ? stranger : false,
  'claims of another proof': ({ proof, header }) => {
    const [, claims, signature] = proof.split('.')
    return [encode(JSON.stringify({ ...header, kid: '1' })), claims, signature].join('.')
  },
  'claims changed after signing': ({ proof, claims }) => {
    const [header, , signature] = proof.split('.')
    return [header, encode(JSON.stringify({ ...claims, jti: 'other' })), signature].join('.')
  },
  'signature with a bit flipped': text((h, c, s) => {
    const bytes = Buffer.from(s, 'base64url')
    bytes[20] ^= 1
    return `${h}.${c}.${encode(bytes)}`
  }),
  'signature missing': text((h, c) => `${h}.${c}.`),
  'signature of zeros': text((h, c, s) => `${h}.${c}.${encode(Buffer.alloc(Buffer.from(s, 'base64url').length))}`),
  'signature cut off': text((h, c, s) => `${h}.${c}.${s.slice(0, -4)}`),
  'signature with more': text((h, c, s) => `${h}.${c}.${s}AAAA`),
  'signature with padding': text((h, c, s) => `${h}.${c}.${s}==`),
  'signature with loose bits': text((h, c, s) => loose(s) && `${h}.${c}.${loose(s)}`),
  'header with padding': text((h, c, s) => `${h}=.${c}.${s}`),
  'claims with padding': text((h, c, s) => `${h}.${c}=.${s}`),
  'blanks before': text((h, c, s) => ` ${h}.${c}.${s}`),
  'a blank in it': text((h, c, s) => `${h}.${c.slice(0, 8)} ${c.slice(8)}.${s}`),
  'a line end after it': text((h, c, s) => `${h}.${c}.${s}\n`),
  'a NUL after it': text((h, c, s) => `${h}.${c}.${s}\0`),
  'a NUL in it': text((h, c, s) => `${h}.${c}\0.${s}`),
  'a dot more': text((h, c, s) => `${h}.${c}.${s}.`),
  'a dot before': text((h, c, s) => `.${h}.${c}.${s}`),
  'two parts': text((h, c) => `${h}.${c}`),
  'five parts': text((h, c, s) => `${h}.${c}.${s}.${c}.${s}`),
  'two proofs': text((h, c, s) => `${h}.${c}.${s}, ${h}.${c}.${s}`),
  'as JSON': text((h, c, s) => JSON.stringify({ protected: h, payload: c, signature: s })),
  'encoded twice': text((h, c, s) => encode(`${h}.${c}.${s}`)),
  empty: () => '',
}

export const BROKEN = { ...HEADER, ...CLAIMS, ...TEXT }

// What looks wrong and is not, by RFC 9449 and those under it; the times are those of FAPI 2.0 and our default.
export const ALLOWED = {
  'htu with a query': claims((c) => { c.htu += '?x=1' }),
  'htu with a fragment': claims((c) => { c.htu += '#x' }),
  'htu in capitals': claims((c) => { c.htu = c.htu.replace(/^https?:\/\/[^/]*/, (start) => start.toUpperCase()) }),
  'htu with the default port': claims((c) => {
    const port = { 'https:': 443, 'http:': 80 }[new URL(c.htu).protocol]
    c.htu = new URL(c.htu).port ? c.htu : c.htu.replace(/^(https?:\/\/[^/]*)/, `$1:${port}`)
  }),
  'htu with a dot segment': claims((c) => { c.htu = c.htu.replace(/^(https?:\/\/[^/]*)\//, '$1/x/../') }),
  'htu encoded where it need not be': claims((c) => { c.htu = c.htu.replace(/[a-z]$/, (last) => `%${last.charCodeAt().toString(16)}`) }),
  'iat with a fraction': claims((c) => { c.iat += 0.5 }),
  'iat 5 s ahead': claims((c) => { c.iat = now() + 5 }),
  'iat 30 s ago': claims((c) => { c.iat = now() - 30 }),
  'claims nobody knows': claims((c) => Object.assign(c, { sub: 'me', x: [null, { y: 1.5e3 }] })),
  'header members nobody knows': header((h) => Object.assign(h, { kid: '1', x: { y: [] } })),
  'jwk members that say what it is for': header((h) =>
    Object.assign(h.jwk, { kid: '1', use: 'sig', key_ops: ['verify'], alg: h.alg, ext: true })),
  'JSON with blanks': ({ header, claims }) => ({ header: JSON.stringify(header, null, 2), claims: JSON.stringify(claims, null, '\t') }),
  'JSON with escapes': ({ header, claims }) =>
    ({ header, claims: JSON.stringify(claims).replace('"htm"', '"\\u0068tm"').replaceAll('/', '\\/') }),
}
