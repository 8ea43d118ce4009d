//! What the examples share: a key, secrets and a URL from the command line, an HTTPS client, errors in
//! one line.
// Each example uses a part of it.
#![allow(dead_code)]

pub(crate) mod https;
pub(crate) mod key;
mod secret;

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{
    Parser,
    error::{ContextKind, ContextValue},
};
use http::Uri;
use tower_dpop::BoxError;

pub(crate) use self::secret::secret;

/// The command line does not make sense: exit status 2, as for what clap finds itself. The text shows no
/// values, since any of them may be a secret.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; --help tells all", self.0)
    }
}

impl Error for Usage {}

/// The command line, or clap's own error, unless that shows an argument too many: it may be a piece of a
/// secret that was not quoted.
pub(crate) fn parse<A: Parser>() -> Result<A, BoxError> {
    A::try_parse().or_else(|error| match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) if !argument.starts_with('-') => {
            Err(Usage("an argument too many: quote values that hold blanks".to_owned()).into())
        }
        _ => error.exit(),
    })
}

/// The end of `main`: an error goes to stderr, in one line.
pub(crate) fn exit(result: Result<(), BoxError>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    tell(&format!("error: {}", one_line(&*error)));
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

/// A line on stderr. `eprintln!` would panic where nobody listens.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// An error and its sources in one line, none of them twice.
pub(crate) fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        next = source.source();
    }
    line.replace(char::is_control, " ")
}

/// A URL that a request can be sent to. The error does not show it: it may hold a password.
pub(crate) fn url(text: &str) -> Result<Uri, Usage> {
    let bad = |what: &str| {
        Usage(format!(
            "the URL {what}: expected something like https://api.example.com/orders"
        ))
    };
    let scheme = text.split("://").next().unwrap_or_default();
    if !["https", "http"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err(bad("does not begin with https:// or http://"));
    }
    let uri: Uri = text
        .parse()
        .map_err(|_| bad("is none (all but ASCII must be %-encoded)"))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad("has no host"));
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(bad("has user information, the part before `@`"));
    }
    Ok(uri)
}

/// Scheme, host and port of a [`url`].
pub(crate) fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
}
