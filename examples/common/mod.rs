//! What the examples share: a key and secrets from the command line, an HTTPS client, errors in one line.
// Each example uses a part of it.
#![allow(dead_code)]

mod https;
mod key;
mod secret;

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use tower_dpop::BoxError;

pub(crate) use self::{
    https::{HttpsClient, https_client, is_untrusted},
    key::KeyArgs,
    secret::secret,
};

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
