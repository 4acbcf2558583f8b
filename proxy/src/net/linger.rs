//! Closing without taking back what was said: after our end of the stream is closed, what the peer still sends is read and
//! dropped for a while. Closed at once with bytes unread, the kernel would send a reset, which may overtake the last
//! response (RFC 9112 section 9.6).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A peer that sends more than this after it was answered does not listen.
const DROPPED_BYTES_MAX: usize = 4 << 20;

/// Says that nothing more comes, and waits for the peer to close, at most for `patience`.
pub async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin, patience: Duration) {
    // Err: the peer is gone already.
    if stream.shutdown().await.is_err() || patience.is_zero() {
        return;
    }
    let peer_closes = async {
        let mut dropped_bytes = 0;
        // Small: it lives as long as the connection's task.
        let mut space = [0; 512];
        while let Ok(read) = stream.read(&mut space).await
            && read > 0
            && dropped_bytes < DROPPED_BYTES_MAX
        {
            dropped_bytes += read;
        }
    };
    let _ = tokio::time::timeout(patience, peer_closes).await; // Err: it had its time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closing_waits_for_the_peer_but_not_for_ever() {
        let short = Duration::from_millis(20);
        let (ours, mut theirs) = tokio::io::duplex(64);
        let begun = tokio::time::Instant::now();
        theirs.write_all(b"unread").await.unwrap();
        linger(ours, short).await;
        assert!(begun.elapsed() >= short, "the peer never closed");
    }

    #[tokio::test]
    async fn closing_is_over_when_the_peer_has_closed() {
        let (ours, theirs) = tokio::io::duplex(64);
        drop(theirs);
        linger(ours, Duration::from_secs(3600)).await;
    }
}
