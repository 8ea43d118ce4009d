//! PEM, as lenient as what openssl writes: text around the blocks, several blocks, any line ends.
//!
//! Read here and not by a crate, because those that were looked at keep an unwiped copy of the private key, or
//! refuse files of openssl.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{encrypted, refuse};
use crate::error::Error;

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";

/// The longest label that is taken for one; the longest in use have some 30 characters.
const MAX_LABEL: usize = 48;

/// What stands between a BEGIN and its END line, not decoded yet.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    body: &'a [u8],
}

pub(super) fn is_pem(text: &[u8]) -> bool {
    find(text, BEGIN).is_some()
}

pub(super) fn blocks(mut text: &[u8]) -> Result<Vec<Block<'_>>, Error> {
    let mut blocks = Vec::new();
    while let Some((_, rest)) = split(text, BEGIN) {
        let (label, rest) = split(rest, DASHES)
            .and_then(|(label, rest)| Some((valid_label(label)?, rest)))
            .ok_or_else(|| refuse("PEM with a cut off or damaged BEGIN line"))?;
        let end = format!("-----END {label}-----");
        let (body, rest) = split(rest, end.as_bytes()).ok_or_else(|| {
            refuse(format!(
                "PEM without the line \"{end}\": cut off or damaged"
            ))
        })?;
        blocks.push(Block { label, body });
        text = rest;
    }
    Ok(blocks)
}

impl Block<'_> {
    pub(super) fn decode(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        // A header of RFC 1421: what openssl wrote before there was PKCS#8, and still does if asked to.
        if find(self.body, b"Proc-Type:").is_some() {
            return Err(encrypted::convert("that of old PEM (Proc-Type)", "", ""));
        }
        // Both buffers have all the room they need from the start: growing would leave copies.
        let mut base64 = Zeroizing::new(Vec::with_capacity(self.body.len()));
        base64.extend(self.body.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let mut der = Zeroizing::new(vec![0; base64.len() + 3]);
        // The decoder's error would show a character of the key, so it is dropped.
        let len = STANDARD
            .decode_slice(&*base64, &mut der)
            .map_err(|_| refuse(self.damage()))?;
        der.truncate(len);
        Ok(der)
    }

    fn damage(&self) -> &'static str {
        if find(self.body, br"\n").is_some() {
            "PEM with a backslash and an n where lines should end, as escaped variables have it"
        } else {
            "PEM whose base64 is cut off or damaged"
        }
    }
}

/// A PEM text of one block, in lines of 64 characters (RFC 7468).
pub(super) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let lines = base64.len() / 64 + 1;
    let capacity = base64.len() + lines + 2 * label.len() + 40;
    let mut pem = Zeroizing::new(String::with_capacity(capacity));
    for part in ["-----BEGIN ", label, "-----\n"] {
        pem.push_str(part);
    }
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    for part in ["-----END ", label, "-----\n"] {
        pem.push_str(part);
    }
    pem
}

/// A label as RFC 7468 has them: it is shown in errors, so nothing that could be base64 of a key gets through.
fn valid_label(label: &[u8]) -> Option<&str> {
    let valid = label.len() <= MAX_LABEL
        && label
            .iter()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' '));
    valid.then(|| str::from_utf8(label).ok()).flatten()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn split<'a>(text: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (before, after) = text.split_at_checked(find(text, at)?)?;
    Some((before, after.strip_prefix(at)?))
}
