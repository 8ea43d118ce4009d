//! Others' verifiers over every proof that was sent, and our verifier over others' proofs.

use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::{Result, lab::Lab, proofs, verify};

const OURS: &str = "Every proof of all runs, by others' verifiers";
const THEIRS: &str = "Others' proofs, by our verifier";

/// To be run when all else is over: what is sent later is in no record.
pub async fn record(lab: &Lab) -> Result<()> {
    let record = lab.record.finish()?.to_owned();
    let libraries = "dpop-verifier 4.4, huskarl-resource-server 0.11";
    let path = record.clone();
    let work = async {
        let findings = spawn_blocking(move || verify::verify_files(&[path])).await??;
        if !findings.is_clean() {
            return Err(serde_json::to_string(&findings)?.into());
        }
        let checked: Vec<String> = findings
            .checked
            .iter()
            .map(|(library, count)| format!("{library} {count}"))
            .collect();
        Ok(format!(
            "{} proofs, no finding ({}); no `jti` twice, every nonce one that the server had offered",
            findings.proofs,
            checked.join(", "),
        ))
    };
    lab.report.row(OURS, libraries, "in Rust", work).await;

    let library = "requests_oauth2client 1.8.0";
    let work = async {
        python(lab, &["verify.py", "--self-test"]).await?;
        let said = python(lab, &["verify.py", &record.display().to_string()]).await?;
        let said: Value = serde_json::from_str(&said)?;
        match (said["proofs"].as_u64(), said["finding_count"].as_u64()) {
            (Some(proofs), Some(0)) if proofs > 0 => Ok(format!("{proofs} proofs, no finding")),
            _ => Err(said.to_string().into()),
        }
    };
    lab.report.row(OURS, library, "in Python", work).await;
    Ok(())
}

pub async fn others(lab: &Lab) -> Result<()> {
    let programs = lab.programs.clone();
    let python = lab.python.clone();
    let work = async {
        let makers = move || {
            let mut node = Command::new(programs.join("node/node_modules/.bin/node"));
            node.arg(programs.join("node/proofs.js"));
            let mut python = Command::new(python);
            python.arg(programs.join("python/proofs.py"));
            proofs::run([node, python])
        };
        let summary = spawn_blocking(makers).await??;
        if !summary.is_clean() {
            return Err(serde_json::to_string(&summary)?.into());
        }
        let makers: Vec<String> = summary
            .by_maker
            .iter()
            .map(|(maker, counts)| {
                let proofs::Counts { accepted, refused } = counts;
                format!("{maker}: {accepted} accepted, {refused} broken ones refused")
            })
            .collect();
        Ok(makers.join("; "))
    };
    let row = lab
        .report
        .row(THEIRS, "tower-dpop", "as made, and broken", work);
    row.await;
    Ok(())
}

/// What one of the Python programs prints.
async fn python(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new(&lab.python)
        .args(arguments)
        .current_dir(lab.programs.join("python"))
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8(output.stdout)?;
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{arguments:?}: {} {said}", output.status).into()),
    }
}
