//! Secrets that need not stand among the arguments, where every user of the machine can read them.

use std::{fs::File, io::Read as _, path::Path};

use tower_dpop::BoxError;

/// No secret is that long; a wrong path may lead to anything.
const MAX_BYTES: u64 = 64 * 1024;

/// The secret in `file`, if one is named, without the line end that editors put there; else `given`, which
/// is that of an argument or of the environment and counts as left out if it is empty.
pub(crate) fn secret(given: Option<&str>, file: Option<&Path>) -> Result<Option<String>, BoxError> {
    let Some(path) = file else {
        return Ok(given.filter(|given| !given.is_empty()).map(str::to_owned));
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("secret file {} cannot be read: {error}", path.display()))?;
    let text = String::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() as u64 <= MAX_BYTES)
        .ok_or_else(|| {
            format!(
                "secret file {} holds no text, or too much of it",
                path.display()
            )
        })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(format!("secret file {} is empty", path.display()).into());
    }
    Ok(Some(text.to_owned()))
}
