//! Makes one proof, for curl or for a look at it.
//!
//! ```sh
//! cargo run --example proof
//! cargo run --example proof -- --explain --key key.pem --url https://api.example.com/orders
//! ```

mod common;

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use clap::Parser;
use http::Method;
use tower_dpop::{AccessToken, Audience, BoxError, DpopKey, proof::Proof};

use self::common::{Usage, key::KeyArgs, quoted};

/// The request of RFC 9449, section 7.1.
const SAMPLE: &str = "https://resource.example.org/protectedresource";

/// Prints a DPoP proof (RFC 9449) for one request: the value of its DPoP header.
///
/// A server takes a proof once, and for a minute or so: make a new one for every request.
#[derive(Parser)]
#[command(after_long_help = "\
Example:
  proof --key key.pem --url https://api.example.com/orders --access-token-file token.txt --explain")]
struct Args {
    #[command(flatten)]
    key: KeyArgs,

    /// Keeps the key that was made for this run, as PKCS#8 in PEM; does not overwrite a file
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "key",
        help_heading = "Key"
    )]
    write_key: Option<PathBuf>,

    /// Method of the request
    #[arg(long, default_value = "GET", requires = "url")]
    method: String,

    /// URL of the request; without it, the proof is for a sample
    #[arg(long)]
    url: Option<String>,

    /// Access token of the request, none for one to a token endpoint; as an argument it can be seen by every
    /// user of this machine
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "url",
        allow_hyphen_values = true
    )]
    access_token: Option<String>,

    /// File of the access token, in place of --access-token
    #[arg(long, value_name = "FILE", requires = "url")]
    access_token_file: Option<PathBuf>,

    /// Last nonce that the server gave, in its DPoP-Nonce header
    #[arg(long, requires = "url", allow_hyphen_values = true)]
    nonce: Option<String>,

    /// Shows what the proof says, its key's thumbprint, and the request for curl
    #[arg(long)]
    explain: bool,
}

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let method = Method::from_bytes(args.method.as_bytes())
        .map_err(|_| Usage("--method is no method, such as GET or POST".to_owned()))?;
    let url = args.url.as_deref().unwrap_or(SAMPLE);
    let uri = common::url(url)?;
    let token = common::secret(
        args.access_token.as_deref(),
        args.access_token_file.as_deref(),
    )?;
    let key = args.key.load()?;

    let mut proof = Proof::new(&method, &uri)?;
    if let Some(token) = &token {
        // Says if the token is bound to another key.
        AccessToken::new(token, &key, Audience::origins([common::origin(&uri)])?)?;
        proof = proof.access_token(token);
    }
    if let Some(nonce) = &args.nonce {
        proof = proof.nonce(nonce);
    }
    let proof = proof.sign(&key)?;

    match &args.write_key {
        Some(path) => write_key(&key, path)
            .map_err(|error| format!("key file {} is not written: {error}", path.display()))?,
        None if args.key.key.is_none() => common::tell(
            "note: no --key given, so one was made for this run, and is gone (--write-key FILE keeps it)",
        ),
        None => {}
    }
    let text = if args.explain {
        explain(&proof, &key, &method, url, token.is_some())?
    } else {
        format!("{proof}\n")
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("stdout cannot be written: {error}").into())
}

fn write_key(key: &DpopKey, path: &Path) -> Result<(), BoxError> {
    let pem = key.to_pkcs8_pem()?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(pem.as_bytes())?;
    Ok(())
}

fn explain(
    proof: &str,
    key: &DpopKey,
    method: &Method,
    url: &str,
    with_token: bool,
) -> Result<String, BoxError> {
    let mut parts = proof.split('.');
    let header = pretty(parts.next())?;
    let claims = pretty(parts.next())?;
    // The token itself is for the shell to know.
    let authorization = if with_token {
        "-H \"Authorization: DPoP $TOKEN\" "
    } else {
        ""
    };
    let request = match *method {
        Method::GET => String::new(),
        Method::HEAD => "--head ".to_owned(),
        _ => format!("-X {} ", quoted(method.as_str())),
    };
    Ok(format!(
        "Header:\n{header}\n\n\
         Claims:\n{claims}\n\n\
         Thumbprint of the key (the `jkt` of a token that is bound to it):\n{}\n\n\
         Proof:\n{proof}\n\n\
         Request:\ncurl --globoff {request}{authorization}-H 'DPoP: {proof}' {}\n",
        key.thumbprint(),
        quoted(url),
    ))
}

/// A part of a JWS, decoded.
fn pretty(part: Option<&str>) -> Result<String, BoxError> {
    let json = BASE64URL.decode(part.unwrap_or_default())?;
    let value: serde_json::Value = serde_json::from_slice(&json)?;
    Ok(serde_json::to_string_pretty(&value)?)
}
