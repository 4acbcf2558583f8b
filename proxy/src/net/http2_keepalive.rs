//! HTTP/2's PING as a sign of life (RFC 9113 section 6.7), on either side of the proxy.

use h2::{Ping, PingPong};

use crate::config::http_protocol::Http2Keepalive;

/// Ends when a PING was not answered in time; waits for ever without a configuration.
pub async fn until_dead(ping_pong: Option<PingPong>, config: Option<&Http2Keepalive>) {
    let (Some(mut ping_pong), Some(config)) = (ping_pong, config) else { return std::future::pending().await };
    loop {
        tokio::time::sleep(config.interval).await;
        match tokio::time::timeout(config.timeout, ping_pong.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => {}
            // The connection is ending, and its own task learns why.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_elapsed) => return,
        }
    }
}
