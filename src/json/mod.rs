//! JSON that holds secrets, read and written without copies that nobody wipes. Pure.

pub(crate) mod unique;

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// How long an escape in a JSON text may be: `\n`, `\u00e9`, `\ud83d\ude00`.
const ESCAPES: [usize; 3] = [2, 6, 12];

/// How much longer a text gets in JSON, at the most: `\u0000` for one byte.
pub(crate) const TEXT_FACTOR: usize = 6;

/// What an object holds, in its own memory: a `serde_json::Value` would copy tokens, and drop the copies unwiped.
pub(crate) type Members<'a> = BTreeMap<String, &'a RawValue>;

/// A member that is a text.
pub(crate) fn text(members: &Members<'_>, name: &str) -> Option<Zeroizing<String>> {
    let raw = members.get(name)?.get();
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?;
    // Escapes are longer than what they mean, so it does not grow: a text that grows leaves copies behind. So does
    // a parser that undoes them, which sees each one alone.
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    while let Some((plain, _)) = rest.split_once('\\') {
        text.push_str(plain);
        rest = &rest[plain.len()..];
        let (character, length) = ESCAPES.iter().find_map(|length| {
            let escape = format!("\"{}\"", rest.get(..*length)?);
            let character = serde_json::from_str::<char>(&escape).ok()?;
            Some((character, *length))
        })?;
        text.push(character);
        rest = &rest[length..];
    }
    text.push_str(rest);
    Some(text)
}

/// A member that is a whole number, or a text of digits, as servers exist that write it.
pub(crate) fn number(members: &Members<'_>, name: &str) -> Option<u64> {
    let raw = members.get(name)?.get();
    if let Ok(number) = serde_json::from_str(raw) {
        return Some(number);
    }
    text(members, name)?.parse().ok()
}

/// Writes a text at the end of `json`, which has the room: [`TEXT_FACTOR`] times its bytes, and two for the quotes.
pub(crate) fn push_text(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\n' => json.push_str("\\n"),
            // A text takes whatever is written to it.
            ..' ' => drop(write!(json, "\\u{:04x}", u32::from(character))),
            _ => json.push(character),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// By a reader that is not ours, and by ours.
        #[test]
        fn any_text_comes_back_from_json(written in any::<String>()) {
            let room = written.len() * TEXT_FACTOR + 2;
            let mut json = String::with_capacity(room);
            push_text(&mut json, &written);
            prop_assert!(json.len() <= room);
            prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &written);
            let object = format!(r#"{{"a":{json}}}"#);
            let members: Members<'_> = serde_json::from_str(&object).unwrap();
            prop_assert_eq!(&**text(&members, "a").unwrap(), &written);
        }
    }
}
