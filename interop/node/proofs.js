// Proofs that other clients make, and each of them broken in many ways: one JSON line for each, for our verifier.
//
//   {"maker","alg","method","url","nonce","token","jkt","proof","variant","broken"}
//
// `broken` says what is wrong with it; it is null for those that a server takes. `jkt` is the thumbprint of the key that
// the access token is bound to, by another library than ours.

import { readFileSync } from 'node:fs'
import { generateKeyPair, generateProof } from 'dpop'
import { calculateJwkThumbprint, exportJWK, SignJWT } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { ALLOWED, BROKEN, decode, encode } from './proofs_broken.js'

const TOKEN = 'Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU'
const NONCE = 'eyJ7S_zG.eyJH0-Z.HX4w-7v~+/='

const URLS = [
  'https://server.example.com/token',
  'https://server.example.com',
  'https://server.example.com/',
  'https://server.example.com/?',
  'https://server.example.com/orders?page=2&x=%2F#top',
  'https://server.example.com:443/a',
  'https://server.example.com:8443/a/b/',
  'http://localhost:80/a',
  'http://127.0.0.1:8080/a',
  'https://[2001:db8::1]:8443/a',
  'https://[::1]/a',
  'https://SERVER.Example.COM/Orders',
  'https://server.example.com/a%20b/%c3%A9/%7Euser',
  'https://server.example.com/a%2Fb/c%3Fd',
  'https://server.example.com/a//b///',
  'https://server.example.com/a/./b/../c',
  "https://server.example.com/a;v=1/b,c/(d)/!$&'*+=:@|^",
  'https://server.example.com/a{b}"c',
  'https://server.example.com/..;/a/...',
  `https://server.example.com/${'long/'.repeat(300)}`,
]

const ROLES = [
  { method: 'POST', token: null, nonce: null },
  { method: 'POST', token: null, nonce: NONCE },
  { method: 'GET', token: TOKEN, nonce: null },
  { method: 'DELETE', token: TOKEN, nonce: NONCE },
]

const version = (name) => {
  const file = new URL(`node_modules/${name}/package.json`, import.meta.url)
  return `${name} ${JSON.parse(readFileSync(file)).version}`
}

const withoutQuery = (url) => url.replace(/[?#].*$/, '')

// `npm dpop`: its caller gives it the `htu`.
const byDpop = {
  maker: version('dpop'),
  algorithms: ['ES256', 'PS256', 'RS256', 'Ed25519'],
  make: async (keys, { method, url, nonce, token }) => [
    url,
    await generateProof(keys, withoutQuery(url), method, nonce ?? undefined, token ?? undefined),
  ],
}

// A stand-in for `fetch` that remembers what it was to send. The first answer asks for a nonce, if there is to be one.
const remembering = (request, nonce, sent) => async (url, { headers, method }) => {
  headers = new Headers(headers)
  sent.push({ url: String(url), method, proof: headers.get('dpop'), authorization: headers.get('authorization') })
  const challenge = nonce && sent.length === 1
  const status = challenge ? (request.token ? 401 : 400) : 200
  const answer = challenge ? { error: 'use_dpop_nonce' } : { access_token: TOKEN, token_type: 'DPoP' }
  const more = { 'content-type': 'application/json' }
  if (challenge) more['dpop-nonce'] = nonce
  if (challenge && request.token) more['www-authenticate'] = 'DPoP error="use_dpop_nonce"'
  return new Response(JSON.stringify(answer), { status, headers: more })
}

const lastOf = (sent, request) => {
  const last = sent.at(-1)
  if (sent.length !== (request.nonce ? 2 : 1)) throw new Error(`sent ${sent.length} times`)
  if (last.method !== request.method) throw new Error(`sent by ${last.method}`)
  if (request.token && last.authorization !== `DPoP ${TOKEN}`) throw new Error('no token')
  return [last.url, last.proof]
}

const byOauth4webapi = {
  maker: version('oauth4webapi'),
  algorithms: ['ES256', 'PS256', 'RS256', 'Ed25519'],
  make: async (keys, request) => {
    const sent = []
    const client = { client_id: 'client' }
    const DPoP = oauth.DPoP(client, keys)
    const options = {
      DPoP,
      [oauth.customFetch]: remembering(request, request.nonce, sent),
      [oauth.allowInsecureRequests]: true,
    }
    const send = async () => {
      if (request.token) {
        await oauth.protectedResourceRequest(TOKEN, request.method, new URL(request.url), new Headers(), null, options)
        return
      }
      const server = { issuer: 'https://server.example.com', token_endpoint: request.url }
      const response = await oauth.clientCredentialsGrantRequest(
        server, client, oauth.ClientSecretPost('secret'), new URLSearchParams(), options)
      await oauth.processClientCredentialsResponse(server, client, response)
    }
    await send().catch((error) => {
      if (!oauth.isDPoPNonceError(error)) throw error
      return send()
    })
    return lastOf(sent, request)
  },
}

// It answers the challenge itself.
const byOpenidClient = {
  maker: version('openid-client'),
  algorithms: ['ES256', 'Ed25519'],
  make: async (keys, request) => {
    const sent = []
    const server = { issuer: 'https://server.example.com', token_endpoint: request.url }
    const config = new openid.Configuration(server, 'client', 'secret')
    openid.allowInsecureRequests(config)
    config[openid.customFetch] = remembering(request, request.nonce, sent)
    const options = { DPoP: openid.getDPoPHandle(config, keys) }
    if (request.token) {
      await openid.fetchProtectedResource(config, TOKEN, new URL(request.url), request.method, null, new Headers(), options)
    } else {
      await openid.clientCredentialsGrant(config, {}, options)
    }
    return lastOf(sent, request)
  },
}

// A plain JOSE library with a caller's own claims: how programs do it that have no library for DPoP. It has the old name.
const byJose = {
  maker: version('jose'),
  algorithms: ['ES256', 'PS256', 'RS256', 'Ed25519', 'EdDSA'],
  make: async ({ privateKey, publicKey }, { method, url, nonce, token }, alg) => {
    const hash = async (text) => encode(await crypto.subtle.digest('SHA-256', Buffer.from(text)))
    const claims = { htm: method, htu: withoutQuery(url) }
    if (nonce) claims.nonce = nonce
    if (token) claims.ath = await hash(token)
    const jwt = new SignJWT(claims).setIssuedAt().setJti(crypto.randomUUID())
    return [url, await jwt.setProtectedHeader({ typ: 'dpop+jwt', alg, jwk: await exportJWK(publicKey) }).sign(privateKey)]
  },
}

const SUBTLE = {
  ES256: { name: 'ECDSA', hash: 'SHA-256' },
  PS256: { name: 'RSA-PSS', saltLength: 32 },
  RS256: { name: 'RSASSA-PKCS1-v1_5' },
}

// Signs any bytes as header and claims by the maker's own key.
const sign = async ({ privateKey }, alg, header, claims) => {
  const json = (part) => typeof part === 'string' || Buffer.isBuffer(part) ? part : JSON.stringify(part)
  const signed = `${encode(json(header))}.${encode(json(claims))}`
  const by = SUBTLE[alg] ?? { name: 'Ed25519' }
  return `${signed}.${encode(await crypto.subtle.sign(by, privateKey, Buffer.from(signed)))}`
}

const print = async (line) => {
  if (!process.stdout.write(`${JSON.stringify(line)}\n`)) await new Promise((resolve) => process.stdout.once('drain', resolve))
}

for (const { maker, algorithms, make } of [byDpop, byOauth4webapi, byOpenidClient, byJose]) {
  for (const alg of algorithms) {
    const newKeys = () => generateKeyPair(alg === 'EdDSA' ? 'Ed25519' : alg, { extractable: true })
    const [keys, strangers] = [await newKeys(), await newKeys()]
    const jkt = await calculateJwkThumbprint(await exportJWK(keys.publicKey))
    const made = async (request) => {
      // A client's token endpoint has no fragment: the library refuses it, or leaves it out.
      const [url, proof] = await make(keys, request, alg)
      return { line: { maker, alg, ...request, url, jkt }, proof }
    }
    for (const role of ROLES) {
      for (const url of URLS) {
        const { line, proof } = await made({ ...role, url })
        await print({ ...line, proof, variant: 'as it is', broken: null })
      }
      const request = { ...role, url: URLS[0] }
      const [, stranger] = await make(strangers, request, alg)
      const changes = [[ALLOWED, () => null], [BROKEN, (what) => what]]
      for (const [all, broken] of changes) {
        for (const [what, change] of Object.entries(all)) {
          const { line, proof } = await made(request)
          const [header, claims] = proof.split('.').slice(0, 2).map(decode)
          const changed = change({ header, claims, proof, request, stranger })
          if (changed === false) continue
          const text = typeof changed === 'string' ? changed : await sign(keys, alg, changed.header, changed.claims)
          if (text === proof) throw new Error(`${what} changes nothing`)
          await print({ ...line, proof: text, variant: what, broken: broken(what) })
        }
      }
    }
  }
}
