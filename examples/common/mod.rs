//! What the examples share: a key, secrets and a URL from the command line, an HTTPS client, a login, answers and errors in
//! one line.
// Each example uses a part of it.
#![allow(dead_code)]

pub(crate) mod https;
pub(crate) mod key;
pub(crate) mod login;
pub(crate) mod output;
mod secret;

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use http::{HeaderMap, StatusCode, Uri, header::LOCATION};
use tower_dpop::{BoxError, Challenge};

pub(crate) use self::secret::secret;

/// As much of a server's own words as is shown on stderr.
const SHOWN_CHARS: usize = 256;

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

/// The command line. What is wrong with it is said in one line, and without any of its values: each may be
/// a piece of a secret that was not quoted.
pub(crate) fn parse<A: Parser>() -> Result<A, BoxError> {
    A::try_parse().or_else(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
        _ => Err(Usage(in_one_line(&error)).into()),
    })
}

fn in_one_line(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    // Of an argument that is known this is its name, of any other what was typed.
    let known =
        text(ContextKind::InvalidArg).filter(|_| error.kind() != ErrorKind::UnknownArgument);
    match (error.kind(), known) {
        (ErrorKind::UnknownArgument, _) => match text(ContextKind::SuggestedArg) {
            Some(suggested) => format!("an argument is not known; is {suggested} meant?"),
            None => {
                "an argument is not known, or one too many: quote values that hold blanks".into()
            }
        },
        (ErrorKind::ArgumentConflict, Some(argument)) => {
            format!("{argument} was given twice, or beside what it does not go with")
        }
        (_, Some(argument)) => match text(ContextKind::ValidValue) {
            Some(values) => format!("{argument} takes one of: {values}"),
            None => format!("{argument}: the value is missing, or none that it takes"),
        },
        (_, None) => "the arguments make no sense".into(),
    }
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

/// What the headers tell of a failure.
pub(crate) fn reason(status: StatusCode, headers: &HeaderMap) -> String {
    let location = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    if let Some(location) = location.filter(|_| status.is_redirection()) {
        // The query of a redirect may hold a secret.
        let location = location.split(['?', '#']).next().unwrap_or_default();
        return format!(
            ", a redirect to {location}: it is not followed, so give that URL if it is right"
        );
    }
    let challenges = Challenge::all(headers);
    let errors = challenges.iter().filter_map(|challenge| {
        let error = challenge.parameter("error")?;
        let description = challenge
            .parameter("error_description")
            .unwrap_or("no description");
        Some(format!(": {error} ({description})"))
    });
    errors
        .collect::<String>()
        .chars()
        .take(SHOWN_CHARS)
        .collect()
}

/// The values of flags that go together: of all, or of none of them.
pub(crate) fn together<'a, const FLAGS: usize>(
    flags: [(&str, &'a Option<String>); FLAGS],
) -> Result<Option<[&'a str; FLAGS]>, Usage> {
    let missing = flags.iter().filter(|(_, value)| value.is_none());
    let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
    if missing.len() == FLAGS {
        return Ok(None);
    }
    if !missing.is_empty() {
        return Err(Usage(format!("missing: {}", missing.join(" and "))));
    }
    Ok(Some(
        flags.map(|(_, value)| value.as_deref().unwrap_or_default()),
    ))
}

/// For a POSIX shell.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
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
    let authority = text.split("://").nth(1).unwrap_or_default();
    if authority.is_empty() || authority.starts_with(['/', '?', '#', ':']) {
        return Err(bad("has no host"));
    }
    let uri: Uri = text
        .parse()
        .map_err(|_| bad("is not a valid one (all but ASCII must be %-encoded)"))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad("has no host"));
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(bad("has user information, the part before `@`"));
    }
    if uri.port_u16().is_none()
        && uri
            .authority()
            .is_some_and(|authority| !authority.as_str().ends_with(authority.host()))
    {
        return Err(bad("has a port that is no number between 0 and 65535"));
    }
    Ok(uri)
}

/// Scheme, host and port of a [`url`].
pub(crate) fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
}
