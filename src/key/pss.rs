//! What an RSA key for PSS alone may be used with (RFC 4055, section 3.1).

use pkcs8::der::Tag;

use super::{
    der::{self, Element, algorithm_oid, elements},
    oid, refuse,
};
use crate::error::Error;

/// Bytes of salt that PS256 has: those of the hash (RFC 7518, section 3.5). A key names the least that it wants.
const SALT_LEN: u8 = 32;

/// Whether PS256 is within what the key allows: anything, or SHA-256 for the message and for the mask.
pub(super) fn check(parameters: Option<Element<'_>>) -> Result<(), Error> {
    let allowed = match parameters {
        None => true,
        Some((Tag::Sequence, content)) => elements(content).is_some_and(|fields| {
            let field = |number| der::tagged(&fields, number).and_then(elements);
            let algorithm = |number| match field(number)?.as_slice() {
                [(Tag::Sequence, algorithm)] => Some(*algorithm),
                _ => None,
            };
            let mask = algorithm(1).filter(|mask| algorithm_oid(mask) == Some(oid::MGF1));
            let hash_of_mask = mask.and_then(|mask| match elements(mask)?.get(1)? {
                (Tag::Sequence, hash) => algorithm_oid(hash),
                _ => None,
            });
            let hash = algorithm(0).and_then(algorithm_oid);
            let salt = match field(2).as_deref() {
                None => true, // 20
                Some([(Tag::Integer, [salt])]) => *salt <= SALT_LEN,
                Some(_) => false,
            };
            hash == Some(oid::SHA256) && hash_of_mask == Some(oid::SHA256) && salt
        }),
        Some(_) => false,
    };
    match allowed {
        true => Ok(()),
        false => Err(refuse(
            "an RSA key for PSS alone, and not with SHA-256 and a salt of 32 bytes, as PS256 has it",
        )),
    }
}
