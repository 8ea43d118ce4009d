//! The endpoints beside the token endpoint: one file for each.

pub(super) mod authorize;
pub(super) mod device;
pub(super) mod introspect;
pub(super) mod keys;
pub(super) mod metadata;
pub(super) mod par;
pub(super) mod revoke;
