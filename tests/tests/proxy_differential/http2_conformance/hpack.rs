//! Header compression: RFC 7541, and RFC 9113 section 4.3.

use super::*;
use crate::frames::{END_HEADERS, END_STREAM, HEADERS, frame};

/// GET and then this, as a block.
fn with(more: &[u8]) -> Vec<u8> {
    whole([&frames::block(GET)[..], more].concat())
}

fn whole(block: impl AsRef<[u8]>) -> Vec<u8> {
    on(1, block)
}

fn on(stream: u32, block: impl AsRef<[u8]>) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block.as_ref())
}

pub(super) fn checks() -> Vec<Check> {
    [representations(), tables(), strings()].into_iter().flatten().collect()
}

fn broken() -> Wants {
    Wants::ConnectionError(&[COMPRESSION_ERROR])
}

fn ok() -> Wants {
    Wants::Answer(1, 200)
}

/// `:path: /bytes/5` and `:authority: any.test`, the latter by its index and kept.
const PATH: &[u8] = b"\x04\x08/bytes/5";
const AUTHORITY: &[u8] = b"\x41\x08any.test";

fn representations() -> Vec<Check> {
    vec![
        check("7541 6.1 indexed fields", whole([b"\x82\x86", PATH, AUTHORITY].concat()), ok()),
        check("7541 6.1 index nothing", with(b"\x80"), broken()),
        check("7541 6.1 an index beyond the tables", with(b"\xc6"), broken()),
        check("7541 6.2.1 a literal that is kept", with(b"\x40\x01a\x01b"), ok()),
        check("7541 6.2.1 a literal with a name from the table", with(b"\x53\x01b"), ok()),
        check("7541 6.2.1 a name beyond the tables", with(b"\x7f\x07\x01b"), broken()),
        check("7541 6.2.2 a literal that is not kept", with(b"\x00\x01a\x01b"), ok()),
        check("7541 6.2.2 a name beyond the tables, not kept", with(b"\x0f\x37\x01b"), broken()),
        check("7541 6.2.3 a literal that nobody keeps", with(b"\x10\x01a\x01b"), ok()),
        check("7541 6.2.3 a name beyond the tables, never kept", with(b"\x1f\x37\x01b"), broken()),
        check("7541 5.1 an integer without an end", with(b"\xff\xff\xff\xff\xff\xff\xff\xff"), broken()),
        check("7541 5.1 an integer cut off", with(b"\xff\x80"), broken()),
    ]
}

fn tables() -> Vec<Check> {
    vec![
        check("7541 2.3.3 an entry made and used in one block", with(b"\x40\x01a\x01b\xbe"), ok()),
        check(
            "7541 2.3.3 an entry of an earlier block",
            [on(1, [b"\x82\x86", PATH, AUTHORITY].concat()), on(3, [b"\x82\x86", PATH, b"\xbe"].concat())].concat(),
            Wants::Answer(3, 200),
        ),
        check("7541 4.2 a resize ahead of the fields", whole([b"\x20", &frames::block(GET)[..]].concat()), ok()),
        check("7541 4.2 two resizes", whole([b"\x20\x3f\xe1\x1f", &frames::block(GET)[..]].concat()), ok()),
        check("7541 4.2 a resize after a field", with(b"\x20"), broken()),
        check(
            "7541 6.3 a resize beyond what was allowed",
            whole([b"\x3f\xe2\x1f", &frames::block(GET)[..]].concat()),
            broken(),
        ),
        check(
            "7541 4.3 an entry that a resize has pushed out",
            [on(1, [b"\x82\x86", PATH, AUTHORITY].concat()), on(3, [b"\x20\x82\x86", PATH, b"\xbe"].concat())].concat(),
            broken(),
        ),
        check(
            "7541 4.4 an entry larger than the table",
            with(&[&b"\x40\x01a\x7f\xa1\x1f"[..], &[b'x'; 4128]].concat()),
            ok(),
        ),
    ]
}

fn strings() -> Vec<Check> {
    vec![
        check("7541 5.2 a Huffman coded value", with(b"\x00\x01a\x81\x1f"), ok()),
        check("7541 5.2 padding of more than seven bits", with(b"\x00\x01a\x82\x1f\xff"), broken()),
        check("7541 5.2 padding of zeros", with(b"\x00\x01a\x81\x18"), broken()),
        check("7541 5.2 the end of string symbol", with(b"\x00\x01a\x84\xff\xff\xff\xff"), broken()),
        check("7541 5.2 a string cut off", with(b"\x00\x05a"), broken()),
        check("7541 5.2 a field without a value", with(b"\x00\x01a"), broken()),
        check("7541 5.2 a Huffman coded name", with(b"\x00\x81\x1f\x01b"), ok()),
        check("7541 5.2 an empty Huffman string", with(b"\x00\x01a\x80"), ok()),
    ]
}
