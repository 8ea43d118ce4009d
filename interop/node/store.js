// Where the authorization server keeps codes, tokens, grants and the `jti`s that it saw: in memory. (What comes with
// `oidc-provider` is a cache of 1,000 entries for all together: under load it would forget tokens.)

const SWEEP = 10_000; // changes between two sweeps of what has expired

export function store() {
  const models = new Map(); // a model's name to its entries: id to { payload, expires }
  const entries = (model) => models.get(model) ?? models.set(model, new Map()).get(model);
  let changes = 0;

  function change(model, id, entry) {
    if (entry) entries(model).set(id, entry);
    else entries(model).delete(id);
    if (++changes % SWEEP === 0) {
      for (const of of models.values()) {
        for (const [known, { expires }] of of) if (expires && expires <= Date.now()) of.delete(known);
      }
    }
  }

  // The interface that `oidc-provider` documents for adapters.
  return class {
    constructor(model) {
      this.model = model;
    }

    async upsert(id, payload, expiresIn) {
      change(this.model, id, { payload, expires: expiresIn ? Date.now() + expiresIn * 1000 : undefined });
    }

    async find(id) {
      const entry = entries(this.model).get(id);
      if (!entry || (entry.expires && entry.expires <= Date.now())) return undefined;
      return { ...entry.payload };
    }

    async findByUid(uid) {
      for (const [id, { payload }] of entries(this.model)) if (payload.uid === uid) return this.find(id);
      return undefined;
    }

    async findByUserCode() {
      return undefined; // there is no device flow here
    }

    async consume(id) {
      const entry = entries(this.model).get(id);
      if (entry) entry.payload.consumed = Math.floor(Date.now() / 1000);
    }

    async destroy(id) {
      change(this.model, id);
    }

    async revokeByGrantId(grantId) {
      for (const [id, { payload }] of entries(this.model)) {
        if (payload.grantId === grantId) change(this.model, id);
      }
    }
  };
}
