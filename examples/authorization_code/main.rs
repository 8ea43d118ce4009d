//! The authorization code grant with DPoP: a user logs in once, and the program calls an API in the user's name, after
//! restarts too.
//!
//! ```sh
//! cargo run --example authorization_code
//! cargo run --example authorization_code -- --help
//! ```
//!
//! What is to be copied is in `app.rs`: logging in, going on after a restart, logging out. The rest is a command line
//! around it, and servers to try it with.

mod app;
mod args;
#[path = "../common/mod.rs"]
mod common;
mod demo;

use std::process::ExitCode;

use http::Request;
use http_body_util::Full;
use tower_dpop::{Audience, BoxError, FileStore};

use self::{
    app::App,
    args::Args,
    common::{https, login, output},
};

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let http = https::client(args.ca.as_deref())?;
    let Some(target) = args.target()? else {
        return demo::run(&args, http).await;
    };
    let url = common::url(target.url)?;
    let server = args.server(&http).await?;
    let app = App {
        registration: args.registration(server.endpoints, target.client_id)?,
        audience: Audience::origins([common::origin(&url)])?,
        scope: args.scope.clone(),
        resources: args.resource.clone(),
        pushes: server.pushes,
        store: args.store.as_ref().map(FileStore::new),
        http,
    };
    if args.logout {
        let note = match app.log_out(args.key.load_given()?).await? {
            true => "note: logged out",
            false => "note: nobody was logged in",
        };
        common::tell(note);
        return Ok(());
    }

    let session = match app.stored().await? {
        Some(stored) => app.resume(&stored, args.key.load_given()?)?,
        None => {
            let login = args.login.listen("/callback").await?;
            app.log_in(args.key.load()?, login).await?
        }
    };
    let request = Request::get(&url).body(Full::default())?;
    let answer = session.call(request).await;
    output::answer(&answer.map_err(|error| login::no_answer(error, &url, args.store.as_deref()))?)
}
