//! Frames that wait for the socket: small ones in one buffer after another, large payloads as they are.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

use super::limits::OutboundLimits;

pub struct Outbound {
    /// Ahead of `tail`.
    segments: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
    limits: OutboundLimits,
}

/// Payloads up to this are copied: cheaper than a slice of their own in the system call.
const COPIED_BYTES_MAX: usize = 4096;
/// Slices of one write.
pub const SLICES_MAX: usize = 16;
/// Of the buffer that an idle connection keeps.
const KEPT_BYTES_MAX: usize = 1024;

impl Outbound {
    pub fn new(limits: OutboundLimits) -> Outbound {
        Outbound { segments: VecDeque::new(), tail: BytesMut::new(), bytes: 0, limits }
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends a frame. `answers`: see `OutboundLimits::written`.
    pub fn frame(&mut self, answers: bool, write: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        write(&mut self.tail);
        let written = self.tail.len() - before;
        self.bytes += written;
        self.limits.written(written, answers);
    }

    /// Appends a frame of which `write` writes all but the payload.
    pub fn frame_with(&mut self, payload: Bytes, write: impl FnOnce(&mut BytesMut)) {
        let length = payload.len();
        if length <= COPIED_BYTES_MAX {
            return self.frame(false, |out| {
                write(out);
                out.extend_from_slice(&payload);
            });
        }
        let before = self.tail.len();
        write(&mut self.tail);
        let written = self.tail.len() - before + length;
        self.segments.push_back(self.tail.split().freeze());
        self.segments.push_back(payload);
        self.bytes += written;
        self.limits.written(written, false);
    }

    /// What is to be written first. Returns how many slices that are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let parts = self.segments.iter().map(|segment| &segment[..]).chain([&self.tail[..]]);
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        count
    }

    pub fn taken(&mut self, mut bytes: usize) {
        self.limits.taken(bytes);
        self.bytes -= bytes;
        while let Some(first) = self.segments.front_mut() {
            if bytes < first.len() {
                return first.advance(bytes);
            }
            bytes -= first.len();
            self.segments.pop_front();
        }
        if bytes == self.tail.len() {
            self.tail.clear();
        } else {
            self.tail.advance(bytes);
        }
    }

    pub fn limits(&self) -> &OutboundLimits {
        &self.limits
    }

    /// Gives back what an idle connection does not need.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            if self.tail.capacity() > KEPT_BYTES_MAX {
                self.tail = BytesMut::new();
            }
            self.segments = VecDeque::new();
            self.limits.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::http_protocol::Http2FloodLimits;

    fn text(outbound: &Outbound) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbound.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_takes() {
        let mut outbound = Outbound::new(OutboundLimits::new(&Http2FloodLimits::default()));
        let large = Bytes::from(vec![b'x'; COPIED_BYTES_MAX + 1]);
        outbound.frame(false, |out| out.extend_from_slice(b"one"));
        outbound.frame_with(large.clone(), |out| out.extend_from_slice(b"two"));
        outbound.frame_with(Bytes::from_static(b"4"), |out| out.extend_from_slice(b"three"));
        let expected = [b"onetwo", &large[..], b"three4"].concat();
        assert_eq!((text(&outbound), outbound.len()), (expected.clone(), expected.len()));
        for step in [1, 5, 1, COPIED_BYTES_MAX - 1, 1, 3] {
            outbound.taken(step);
        }
        assert_eq!(text(&outbound), b"ee4");
        outbound.taken(3);
        assert!(outbound.is_empty() && text(&outbound).is_empty());
    }
}
