//! The conformance suite of the Model Context Protocol, with a client of both layers.

use std::process::Stdio;

use tokio::process::Command;

use crate::{Result, lab::Lab};

const CHAPTER: &str = "Conformance suite of the Model Context Protocol";

/// The scenarios of the short form: those that give tokens bound to a key.
const SHORT: [&str; 2] = ["auth/dpop", "auth/dpop-nonce"];

pub async fn run(lab: &Lab) -> Result<()> {
    let scenarios: &[&str] = if lab.full { &[] } else { &SHORT };
    let what = if lab.full {
        "all scenarios of its authorization".to_owned()
    } else {
        SHORT.join(", ")
    };
    let work = async {
        let output = Command::new(lab.programs.join("mcp/run"))
            .args(scenarios)
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await?;
        let said = String::from_utf8(output.stdout)?;
        match (output.status.success(), said.trim_end().lines().last()) {
            (true, Some(last)) => Ok(last.to_owned()),
            _ => Err(said.into()),
        }
    };
    let server = "@modelcontextprotocol/conformance";
    lab.report.row(CHAPTER, server, &what, work).await;
    Ok(())
}
