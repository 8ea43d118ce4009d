//! The same by curl, with variables of the shell in place of whatever is secret. Pure.

use form_urlencoded::byte_serialize;

use crate::{args::Args, common::quoted, servers::Servers};

/// What the variables hold.
pub(crate) const VARIABLES: &str = "\
# KEY_FILE: the private key. CLIENT_SECRET: the client's secret, form-urlencoded. ACCESS_TOKEN, REFRESH_TOKEN:
# of the last answer. CODE: of the redirect. CODE_VERIFIER: 43 random characters. CODE_CHALLENGE: its SHA-256, in
# base64url. STATE: random characters, which come back with the code. While a command runs, other users of this machine
# can see what it was given.";

pub(crate) struct Curl<'a> {
    servers: &'a Servers,
    scope: Option<&'a str>,
    ca: Option<String>,
    thumbprint: &'a str,
}

impl<'a> Curl<'a> {
    pub(crate) fn new(servers: &'a Servers, args: &'a Args, thumbprint: &'a str) -> Self {
        Self {
            servers,
            scope: args.scope.as_deref(),
            ca: args.ca.as_ref().map(|ca| ca.display().to_string()),
            thumbprint,
        }
    }

    pub(crate) fn client_credentials(&self) -> String {
        let scope = self.scope.map(|scope| quoted(&format!("scope={scope}")));
        let form: Vec<String> = scope.into_iter().collect();
        [
            "\n# Client credentials grant".to_owned(),
            self.token_request("client_credentials", &form),
            self.api_call(),
        ]
        .join("\n")
    }

    pub(crate) fn authorization_code(&self, redirect_uri: &str) -> String {
        let form = [
            "\"code=$CODE\"".to_owned(),
            quoted(&format!("redirect_uri={redirect_uri}")),
            "\"code_verifier=$CODE_VERIFIER\"".to_owned(),
        ];
        let refresh = ["\"refresh_token=$REFRESH_TOKEN\"".to_owned()];
        [
            "\n# Authorization code grant, in a browser:".to_owned(),
            format!("# {}", self.authorization_request(redirect_uri)),
            self.token_request("authorization_code", &form),
            self.api_call(),
            "# Refresh".to_owned(),
            self.token_request("refresh_token", &refresh),
            self.api_call(),
        ]
        .join("\n")
    }

    fn authorization_request(&self, redirect_uri: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.servers.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("dpop_jkt", self.thumbprint)
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(self.scope.map(|scope| ("scope", scope)));
        format!(
            "{}?{}&code_challenge=$CODE_CHALLENGE&state=$STATE",
            self.servers.authorization_endpoint,
            query.finish()
        )
    }

    /// `form` is quoted already: what is to be encoded of the body.
    fn token_request(&self, grant_type: &str, form: &[String]) -> String {
        let endpoint = quoted(&self.servers.token_endpoint);
        // Encoded, as RFC 6749, section 2.3.1 asks; curl sends what it is given.
        let client_id: String = byte_serialize(self.servers.client_id.as_bytes()).collect();
        let mut parts = vec![
            "-X POST".to_owned(),
            format!("-u \"{client_id}:$CLIENT_SECRET\""),
            header(&format!("DPoP: {}", proof("POST", &endpoint, ""))),
            format!("-d grant_type={grant_type}"),
        ];
        parts.extend(form.iter().map(|pair| format!("--data-urlencode {pair}")));
        self.curl(&endpoint, &parts)
    }

    fn api_call(&self) -> String {
        let url = quoted(&self.servers.url);
        let proof = proof("GET", &url, " --access-token \"$ACCESS_TOKEN\"");
        let parts = [
            header("Authorization: DPoP $ACCESS_TOKEN"),
            header(&format!("DPoP: {proof}")),
        ];
        self.curl(&url, &parts)
    }

    fn curl(&self, url: &str, parts: &[String]) -> String {
        let ca = self.ca.as_ref();
        let ca = ca.map(|ca| format!(" --cacert {}", quoted(ca)));
        let command = format!("curl --globoff{} {url}", ca.unwrap_or_default());
        let lines = std::iter::once(&command).chain(parts);
        lines
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" \\\n  ")
    }
}

/// What it holds may be for the shell to fill in.
fn header(field: &str) -> String {
    format!("-H \"{field}\"")
}

fn proof(method: &str, url: &str, token: &str) -> String {
    format!(
        "$(cargo run -q --example proof -- --key \"$KEY_FILE\" --method {method} --url {url}{token})"
    )
}
