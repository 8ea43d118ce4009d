//! Comparing an `htu` with a request, as a server does. Pure.
//!
//! Both sides are normalised in full (RFC 3986, 6.2.2 and 6.2.3), as RFC 9449, section 4.3 recommends.

use http::Uri;

use crate::origin::Target;

/// Whether a proof's `htu` names the target of a request, "ignoring any query and fragment parts" on both
/// sides and after normalisation (RFC 9449, section 4.3, item 9).
pub(crate) fn same_target(request: &str, htu: &str) -> bool {
    match (normalize(request), normalize(htu)) {
        (Some(request), Some(htu)) => request == htu,
        _ => false,
    }
}

/// The normal form of an http(s) URI without query and fragment, or none if it is no such URI. User
/// information is no part of an `htu` (RFC 9110, 4.2.4), so a URI with it has none.
fn normalize(text: &str) -> Option<String> {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let uri: Uri = text.parse().ok()?;
    if uri.authority()?.as_str().contains('@') {
        return None;
    }
    let target = Target::new(&uri, None).ok()?;
    let path = remove_dot_segments(&normalize_percent(target.path()));
    Some(format!("{}{path}", target.to_origin()))
}

/// Upper-case hexadecimal digits, and no encoding where none is needed (RFC 3986, 6.2.2.1 and 6.2.2.2).
fn normalize_percent(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let byte = rest
            .get(1..3)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => out.push(char::from(b)),
            Some(_) => out.push_str(&rest[..3].to_ascii_uppercase()),
            None => {
                out.push('%');
                rest = &rest[1..];
                continue;
            }
        }
        rest = &rest[3..];
    }
    out.push_str(rest);
    out
}

/// RFC 3986, 5.2.4 for a path that starts with `/`.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                // A dot segment at the end leaves the slash before it.
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}
