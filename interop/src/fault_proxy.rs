//! A proxy that breaks connections in mid-answer.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{Result, process::free_port};

/// Stands between a client and the server at `port`, until it is dropped.
pub struct FaultProxy {
    pub port: u16,
    broken: Arc<AtomicU64>,
    accepts: JoinHandle<()>,
}

impl FaultProxy {
    /// Every `every`th piece of an answer is cut in half there, and its connection reset.
    pub async fn start(port: u16, every: u64) -> Result<Self> {
        let own = free_port()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, own)).await?;
        let (pieces, broken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&broken);
        let accepts = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (pieces, broken) = (Arc::clone(&pieces), Arc::clone(&counted));
                tokio::spawn(async move {
                    // A connection that ends with an error ends: that is what this is for.
                    let _ = pass(client, port, every, &pieces, &broken).await;
                });
            }
        });
        Ok(Self {
            port: own,
            broken,
            accepts,
        })
    }

    /// How many connections were reset.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    port: u16,
    every: u64,
    pieces: &AtomicU64,
    broken: &AtomicU64,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read? {
                0 => return Ok(()),
                length => server.write_all(&up[..length]).await?,
            },
            read = server.read(&mut down) => match read? {
                0 => return Ok(()),
                length if (pieces.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every) => {
                    broken.fetch_add(1, Ordering::Relaxed);
                    client.write_all(&down[..length / 2]).await?;
                    // So that the half arrives before the reset, which would discard it.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    // No time to linger: the close is a reset.
                    client.set_zero_linger()?;
                    return Ok(());
                }
                length => client.write_all(&down[..length]).await?,
            },
        }
    }
}
