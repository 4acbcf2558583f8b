//! A check by bytes: connect, send something, wait for something.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::verdict::{CheckResult, Failure, FailureKind};
use crate::{config::cluster::TcpCheck, net::stream::Stream};

/// Of what a host may send before it has said what is waited for.
const RECEIVED_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4096;

pub(super) async fn check(stream: &mut Stream, check: &TcpCheck) -> CheckResult {
    let passed = CheckResult::Passed { degraded: false };
    let network = CheckResult::Failed(Failure::of(FailureKind::Network));
    if !check.send.is_empty() && stream.write_all(&check.send).await.is_err() {
        return network;
    }
    let mut received = BytesMut::with_capacity(READ_BYTES);
    while !check.receive.is_empty() && !holds_in_order(&received, &check.receive) {
        match stream.read_buf(&mut received).await {
            Ok(1..) if received.len() <= RECEIVED_BYTES_MAX => {}
            Ok(_) | Err(_) => return network,
        }
    }
    passed
}

/// Whether it can be used once more: not closed by the other side.
pub(super) fn is_open(stream: &Stream) -> bool {
    let mut byte = [0];
    match rustix::net::recv(stream.tcp(), &mut byte, rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT) {
        Ok((_, received)) => received > 0,
        Err(error) => error == rustix::io::Errno::AGAIN,
    }
}

/// Whether all blocks are there, one behind the other, with anything between.
pub(super) fn holds_in_order(received: &[u8], blocks: &[Bytes]) -> bool {
    let mut rest = received;
    blocks.iter().all(|block| match memchr::memmem::find(rest, block) {
        Some(at) => {
            rest = &rest[at + block.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stand_in_order_with_anything_between() {
        let blocks = ["ab", "cd"].map(Bytes::from);
        assert!(holds_in_order(b"xxabyycdzz", &blocks));
        assert!(!holds_in_order(b"cdab", &blocks) && !holds_in_order(b"abc", &blocks));
        assert!(holds_in_order(b"", &[]));
    }
}
