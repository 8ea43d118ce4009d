//! Servers as processes: started, killed and started again by their process id.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::Result;

/// A server may take this long until it takes connections: a cold start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone)]
pub struct Program {
    pub arguments: Vec<String>,
    pub port: u16,
    pub clock: Option<Clock>,
    /// What it prints goes there.
    pub log: PathBuf,
}

/// A running server. It is killed when this is dropped.
pub struct Process {
    program: Program,
    child: Child,
}

impl Process {
    pub async fn start(program: Program) -> Result<Self> {
        let child = program.spawn().await?;
        Ok(Self { program, child })
    }

    /// Kills it as a crash would (SIGKILL), and waits until it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), with the same settings on the same port.
    pub async fn start_again(&mut self) -> Result<()> {
        self.child = self.program.spawn().await?;
        Ok(())
    }
}

impl Program {
    async fn spawn(&self) -> Result<Child> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut command = Command::new(&self.arguments[0]);
        command
            .args(&self.arguments[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some(clock) = &self.clock {
            command.envs(clock.environment());
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", self.arguments[0]))?;
        let up = timeout(START, async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
                .await
                .is_err()
            {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("ended at once, with {status}").into());
                }
                sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        });
        let up: Result<()> = up.await.unwrap_or_else(|_| Err("took too long".into()));
        up.map_err(|error| format!("{:?}: {error}; see {:?}", self.arguments, self.log))?;
        Ok(child)
    }
}

/// A port that nobody listens on. Below those that the system gives to clients: else a client's own end could take it
/// while the server is down.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 8_000) as u16;
    for _ in 0..1_000 {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 4_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".into())
}

/// A clock for servers that can be set while they run, by libfaketime.
#[derive(Clone)]
pub struct Clock {
    file: PathBuf,
    library: String,
}

impl Clock {
    pub fn new(directory: &Path) -> Result<Self> {
        // Debian puts it into a folder named after the architecture.
        let library = std::fs::read_dir("/usr/lib")?
            .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
            .find(|path| path.exists())
            .ok_or("libfaketime is not installed")?;
        let clock = Self {
            file: directory.join("clock"),
            library: library.display().to_string(),
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// The servers are so many seconds ahead from now on.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // In one step: a server that reads half of it would take another time.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(new, &self.file)?)
    }

    fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}
