//! What the downstream says before there is an upstream. Unless the filter asks for it, it waits in the kernel.

use tokio::io::AsyncReadExt as _;

use crate::{
    config::tcp_proxy::ConnectOn,
    net::stream::Stream,
    stats::TcpStat,
    tcp_proxy::{TcpSession, connect::Upstream},
};

/// Bytes for the upstream, read ahead.
#[derive(Default)]
pub(super) struct EarlyData {
    pub bytes: Vec<u8>,
    /// The downstream has said all.
    pub is_ended: bool,
}

impl TcpSession {
    /// None: there is no upstream to be had, or the downstream is gone.
    pub(super) async fn connect_with_early_data(&self, downstream: &mut Stream) -> Option<(Upstream, EarlyData)> {
        let Some(bytes_max) = self.active.config.early_data_bytes_max else {
            return Some((self.connect().await?, EarlyData::default()));
        };
        let mut early = EarlyData::default();
        if self.active.config.connect_on == ConnectOn::FirstBytes {
            if bytes_max == 0 {
                downstream.tcp().readable().await.ok()?;
            } else {
                self.read_early(downstream, &mut early, bytes_max).await?;
            }
        }
        let mut connecting = std::pin::pin!(self.connect());
        let upstream = loop {
            if early.is_ended || early.bytes.len() >= bytes_max {
                break connecting.await;
            }
            tokio::select! {
                biased;
                upstream = &mut connecting => break upstream,
                read = self.read_early(downstream, &mut early, bytes_max) => read?,
            }
        };
        Some((upstream?, early))
    }

    /// Cancel-safe. None: the downstream failed.
    async fn read_early(&self, downstream: &mut Stream, early: &mut EarlyData, bytes_max: usize) -> Option<()> {
        let mut buffer = [0; EARLY_READ_BYTES];
        let room = (bytes_max - early.bytes.len()).min(buffer.len());
        let read = downstream.read(&mut buffer[..room]).await.ok()?;
        if early.bytes.is_empty() && read > 0 {
            self.count(TcpStat::EarlyDataReceived);
        }
        early.bytes.extend_from_slice(&buffer[..read]);
        early.is_ended = read == 0;
        self.received(read);
        Some(())
    }
}

const EARLY_READ_BYTES: usize = 4096;
