// The resource server's nonces (RFC 9449 section 9). A nonce says nothing to a client; each kind is an object with
// `next()`, the nonce for an answer, and `accept(nonce)`, whether a proof's nonce is good.
import { createHmac, randomBytes } from 'node:crypto';

// A new one each `rotate_ms` for everybody; it and the one before it are accepted, however often. They are made of the
// time and a secret, so they outlive a restart, and all are outdated when the clock jumps.
function rotating(rotate_ms, secret) {
  const made = new Map();
  const slot = (n) => {
    if (!made.has(n)) {
      if (made.size > 8) made.clear();
      made.set(n, createHmac('sha256', secret).update(String(n)).digest('base64url'));
    }
    return made.get(n);
  };
  const now = () => Math.floor(Date.now() / rotate_ms);
  return {
    next: () => slot(now()),
    accept: (nonce) => nonce === slot(now()) || nonce === slot(now() - 1),
  };
}

// A fresh one with each answer, good once, within five minutes. A restart forgets them all.
const LIFE_MS = 300_000;
const AT_MOST = 500_000;
function oneTime() {
  const issued = new Map(); // nonce to when it was issued; a Map keeps the order of insertion
  return {
    next: () => {
      if (issued.size >= AT_MOST) issued.delete(issued.keys().next().value);
      const nonce = randomBytes(18).toString('base64url');
      issued.set(nonce, Date.now());
      return nonce;
    },
    accept: (nonce) => {
      const at = issued.get(nonce);
      return issued.delete(nonce) && Math.abs(Date.now() - at) < LIFE_MS;
    },
  };
}

export function nonces(kind, rotate_ms, secret) {
  switch (kind) {
    case 'off': return undefined;
    case 'rotating': return rotating(rotate_ms, secret);
    case 'one-time': return oneTime();
    default: throw new Error(`there are no nonces of the kind ${kind}`);
  }
}
