//! The key that the flags name.

use std::path::PathBuf;

use tower_dpop::{BoxError, DpopKey, Error};

use super::secret;

#[derive(clap::Args)]
pub(crate) struct KeyArgs {
    /// File of the private key (P-256): PKCS#8, encrypted or not, SEC1, or a JWK; without it, a key is
    /// made for this run
    #[arg(long, value_name = "FILE", help_heading = "Key")]
    pub(crate) key: Option<PathBuf>,

    /// Password of an encrypted key; as an argument it can be seen by every user of this machine
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "DPOP_KEY_PASSWORD",
        hide_env_values = true
    )]
    #[arg(allow_hyphen_values = true, help_heading = "Key")]
    key_password: Option<String>,

    /// File of the password, in place of --key-password
    #[arg(long, value_name = "FILE", help_heading = "Key")]
    key_password_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The key in the file, or a new one.
    pub(crate) fn load(&self) -> Result<DpopKey, BoxError> {
        match self.load_given()? {
            Some(key) => Ok(key),
            None => Ok(DpopKey::generate()?),
        }
    }

    /// The key in the file, if one is named.
    pub(crate) fn load_given(&self) -> Result<Option<DpopKey>, BoxError> {
        let password = secret(
            self.key_password.as_deref(),
            self.key_password_file.as_deref(),
        )?;
        let Some(path) = &self.key else {
            return Ok(None);
        };
        let key = DpopKey::from_file(path, password.as_deref());
        key.map(Some).map_err(|error| {
            if Error::is_password_missing(&error) {
                format!("{error} (--key-password-file FILE gives it)").into()
            } else {
                error.into()
            }
        })
    }
}
