//! The TCP half of the origin: answers each line with who it is and the line, until the other side has said all.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::Identity;

/// Who speaks first on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    ClientFirst,
    /// Greets before the client has said anything, as MySQL and SMTP do.
    ServerFirst,
}

/// A bound port, not yet accepting.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    identity: Identity,
    manners: Manners,
}

impl Server {
    pub async fn bind(port: u16, identity: Identity, manners: Manners) -> Result<Self> {
        Ok(Self { listener: super::listen(port).await?, identity, manners })
    }

    pub fn port(&self) -> Result<u16> {
        super::port_of(&self.listener)
    }

    /// Accepts for ever.
    pub async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let identity = self.identity.clone();
                    // The connection's own end is the task's end; an error is the other side's business.
                    tokio::spawn(async move { answer_lines(stream, &identity, self.manners).await.ok() });
                }
                // Out of file descriptors, most likely: others will end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn answer_lines(stream: TcpStream, identity: &Identity, manners: Manners) -> Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    if manners == Manners::ServerFirst {
        write.write_all(format!("hello from {}\n", identity.pod).as_bytes()).await?;
    }
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        write.write_all(format!("{} {}: {line}\n", identity.pod, identity.version).as_bytes()).await?;
    }
    write.shutdown().await?;
    Ok(())
}
