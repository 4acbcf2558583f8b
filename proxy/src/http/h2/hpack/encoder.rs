//! Fields into header blocks (RFC 7541 sections 6 and 7.1).
//!
//! Fields that come again and again go into the table that the peer keeps; those that are new every time would only
//! push others out, and those that are secret are never put there, by anybody on the way.

use std::{collections::HashMap, collections::VecDeque, hash::BuildHasherDefault};

use bytes::{BufMut, BytesMut};

use super::{
    decoder::DEFAULT_TABLE_SIZE,
    huffman,
    table::{ENTRY_OVERHEAD, Field, STATIC, static_name},
};

pub struct Encoder {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// How many entries were dropped since the start: the age of the oldest.
    dropped: u64,
    size: usize,
    size_max: usize,
    /// The smallest and the last size that the peer has not been told of.
    resized: Option<(usize, usize)>,
    /// Ages of entries by the hash of name and value, and by that of the name: hints, checked when used.
    fields: Ages,
    names: Ages,
    /// Strings are Huffman coded where that is shorter.
    huffman: Huffman,
}

type Ages = HashMap<u64, u64, BuildHasherDefault<Identity>>;

struct Entry {
    name: Box<str>,
    value: Box<[u8]>,
    name_hash: u64,
    hash: u64,
}

/// Whether a field goes into the peer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    Yes,
    /// It is another one each time.
    No,
    /// Nobody on the way may (RFC 7541 section 7.1.3).
    Never,
}

/// `enable_huffman_encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Huffman {
    Always,
    Never,
    /// What is sent once and then named by its index: coding what differs each time costs more than it saves.
    Indexed,
}

impl Encoder {
    pub fn new(huffman: Option<bool>) -> Encoder {
        Encoder {
            entries: VecDeque::new(),
            dropped: 0,
            size: 0,
            size_max: DEFAULT_TABLE_SIZE,
            resized: None,
            fields: Ages::default(),
            names: Ages::default(),
            huffman: match huffman {
                Some(true) => Huffman::Always,
                Some(false) => Huffman::Never,
                None => Huffman::Indexed,
            },
        }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE; of more than the default no use is made.
    pub fn limit(&mut self, size_max: u32) {
        let size_max = DEFAULT_TABLE_SIZE.min(size_max as usize);
        if size_max == self.size_max {
            return;
        }
        let smallest = self.resized.map_or(size_max, |(smallest, _)| smallest.min(size_max));
        self.resized = Some((smallest, size_max));
        self.size_max = size_max;
        self.evict(size_max);
    }

    /// To be called ahead of the fields of each block (RFC 7541 section 4.2).
    pub fn begin(&mut self, out: &mut BytesMut) {
        if let Some((smallest, last)) = self.resized.take() {
            if smallest < last {
                integer(out, 0x20, 5, smallest);
            }
            integer(out, 0x20, 5, last);
        }
    }

    pub fn field(&mut self, out: &mut BytesMut, name: &str, value: &[u8], indexing: Indexing) {
        let static_at = static_name(name);
        if let Some(at) = static_at
            && indexing != Indexing::Never
            && let Some(at) = static_field(at, value)
        {
            return integer(out, 0x80, 7, at);
        }
        match indexing {
            Indexing::Yes => {}
            Indexing::No => return self.literal(out, 0x00, 4, static_at, name, value),
            Indexing::Never => return self.literal(out, 0x10, 4, static_at, name, value),
        }
        let name_hash = hash(FNV_OFFSET, name.as_bytes());
        let hash = hash(name_hash, value);
        if let Some(index) = self.find(self.fields.get(&hash), |entry| *entry.name == *name && *entry.value == *value) {
            return integer(out, 0x80, 7, index);
        }
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        let name_at = static_at.or_else(|| self.find(self.names.get(&name_hash), |entry| *entry.name == *name));
        // What would push out half of the table isn't worth it.
        if size > self.size_max / 2 {
            return self.literal(out, 0x00, 4, name_at, name, value);
        }
        self.literal(out, 0x40, 6, name_at, name, value);
        self.insert(Entry { name: name.into(), value: value.into(), name_hash, hash }, size);
    }

    /// The index of the entry of that age, if it is still there and the right one.
    fn find(&self, age: Option<&u64>, is_it: impl FnOnce(&Entry) -> bool) -> Option<usize> {
        let at = usize::try_from(age?.checked_sub(self.dropped)?).ok()?;
        let entry = self.entries.get(at)?;
        is_it(entry).then(|| STATIC.len() + self.entries.len() - at)
    }

    fn insert(&mut self, entry: Entry, size: usize) {
        self.evict(self.size_max - size);
        let age = self.dropped + self.entries.len() as u64;
        self.fields.insert(entry.hash, age);
        self.names.insert(entry.name_hash, age);
        self.size += size;
        self.entries.push_back(entry);
    }

    fn evict(&mut self, wanted: usize) {
        while self.size > wanted {
            let Some(entry) = self.entries.pop_front() else { return };
            self.size -= entry.name.len() + entry.value.len() + ENTRY_OVERHEAD;
            for (ages, hash) in [(&mut self.fields, entry.hash), (&mut self.names, entry.name_hash)] {
                if ages.get(&hash) == Some(&self.dropped) {
                    ages.remove(&hash);
                }
            }
            self.dropped += 1;
        }
    }

    fn literal(&self, out: &mut BytesMut, kind: u8, prefix: u32, name_at: Option<usize>, name: &str, value: &[u8]) {
        let coded = match self.huffman {
            Huffman::Always => true,
            Huffman::Never => false,
            Huffman::Indexed => kind == 0x40,
        };
        integer(out, kind, prefix, name_at.unwrap_or(0));
        if name_at.is_none() {
            string(out, name.as_bytes(), coded);
        }
        string(out, value, coded);
    }
}

/// A whole entry of the static table whose name starts at `at`.
fn static_field(mut at: usize, value: &[u8]) -> Option<usize> {
    let Field::Pseudo(pseudo, _) = &STATIC[at - 1] else { return None };
    while let Some(Field::Pseudo(other, text)) = STATIC.get(at - 1)
        && other == pseudo
    {
        if text == value {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn integer(out: &mut BytesMut, kind: u8, prefix_bits: u32, value: usize) {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        return out.put_u8(kind | value as u8);
    }
    out.put_u8(kind | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn string(out: &mut BytesMut, text: &[u8], huffman: bool) {
    if huffman {
        let length = huffman::encoded_len(text);
        if length < text.len() {
            integer(out, 0x80, 7, length);
            return huffman::encode(text, out);
        }
    }
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Eight bytes a step. Whoever makes two fields collide only makes them take turns.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let mut words = bytes.chunks_exact(8);
    let mut hash = mix(seed, bytes.len() as u64);
    for word in &mut words {
        hash = mix(hash, u64::from_le_bytes(word.try_into().expect("chunks of eight")));
    }
    let rest = words.remainder().iter().fold(0, |rest, &byte| rest << 8 | u64::from(byte));
    mix(hash, rest)
}

/// The keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(self.0, bytes);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h2::hpack::Decoder;

    fn encode(encoder: &mut Encoder, fields: &[(&str, &str)]) -> BytesMut {
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            encoder.field(&mut out, name, value.as_bytes(), Indexing::Yes);
        }
        out
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let each = |field, _| {
            fields.push(match field {
                Field::Pseudo(pseudo, value) => (pseudo.name().to_owned(), value),
                Field::Header(name, value) => (name.to_string(), bytes::Bytes::copy_from_slice(value.as_bytes())),
                Field::Invalid(name) => panic!("{name:?}"),
            });
        };
        decoder.decode(block, each).unwrap();
        fields.into_iter().map(|(name, value)| (name, String::from_utf8(value.to_vec()).unwrap())).collect()
    }

    #[test]
    fn requests_in_a_row_as_in_the_rfc() {
        // RFC 7541 appendix C.4.
        let mut encoder = Encoder::new(Some(true));
        let mut request =
            vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(
            encode(&mut encoder, &request)[..],
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..]
        );
        request.push(("cache-control", "no-cache"));
        assert_eq!(encode(&mut encoder, &request)[..], b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf"[..]);
    }

    #[test]
    fn whatever_the_table_does_the_peer_reads_the_same() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut encoder = Encoder::new(None);
        let mut decoder = Decoder::new(4096, 1000);
        for round in 0..2000 {
            if round % 100 == 99 {
                encoder.limit(random.u32(0..5000));
            }
            let fields: Vec<(String, String)> = (0..random.usize(1..12))
                .map(|_| {
                    (format!("x-{}", random.u8(0..40)), "v".repeat(random.usize(0..120)) + &random.u8(0..4).to_string())
                })
                .collect();
            let borrowed: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(decode(&mut decoder, &encode(&mut encoder, &borrowed)), fields);
            assert!(encoder.size <= encoder.size_max && encoder.fields.len() <= encoder.entries.len());
        }
    }

    #[test]
    fn secrets_stay_out_of_every_table() {
        let mut out = BytesMut::new();
        let mut encoder = Encoder::new(None);
        encoder.field(&mut out, "authorization", b"secret", Indexing::Never);
        encoder.field(&mut out, "x-request-id", b"1", Indexing::No);
        assert_eq!(out[..], b"\x1f\x08\x06secret\x00\x0cx-request-id\x011"[..]);
        assert!(encoder.entries.is_empty());
    }
}
