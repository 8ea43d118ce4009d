// The `jti`s that were seen (RFC 9449 section 11.1). A proof is acceptable for 300 s before and after its `iat`, so a
// `jti` is kept for 600 s at least. Two sets take turns: each is filled for 600 s and dropped 600 s later. The time
// is the monotonic one: a jump of the clock must not make the server forget.
const TURN_MS = 600_000;
let current = new Set();
let previous = new Set();
let turned = performance.now();

// Whether this is the first time; notes it.
export function first(jti) {
  if (performance.now() - turned >= TURN_MS) {
    [previous, current, turned] = [current, new Set(), performance.now()];
  }
  if (current.has(jti) || previous.has(jti)) return false;
  current.add(jti);
  return true;
}
