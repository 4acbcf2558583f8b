//! Header blocks into fields (RFC 7541 sections 3, 5 and 6).
//!
//! A block is read to its end whatever the fields are worth, so that the dynamic table stays that of the peer. What a
//! field costs is bounded by its bytes on the wire; what all of a block cost is for the receiver of the fields to bound.

use bytes::Bytes;

use super::{
    huffman,
    table::{DynamicTable, ENTRY_OVERHEAD, Field, STATIC},
};

pub struct Decoder {
    table: DynamicTable,
    /// What our SETTINGS allow the peer's encoder.
    size_allowed: usize,
    /// Of a name or value on the wire.
    string_bytes_max: usize,
    /// For strings that are Huffman coded.
    text: Vec<u8>,
    /// RFC 7541 section 4.2: the peer has seen a lowered limit, and the next block has to say that it is followed.
    must_shrink: bool,
}

/// Every one ends the connection: the tables of the two ends may differ (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the block ends within a field")]
    Truncated,
    #[error("an integer is too large")]
    IntegerOverflow,
    #[error("an index is outside of the tables")]
    UnknownIndex,
    #[error("a name or value is too long")]
    StringTooLong,
    #[error("a string is no Huffman code")]
    Huffman,
    #[error("the table grows beyond its limit")]
    TableTooLarge,
    #[error("the table is resized after a field")]
    LateResize,
    #[error("the table was not resized")]
    MissingResize,
}

/// RFC 7541 section 5.1 leaves the limit of integers open; lengths above this are refused at once.
const INTEGER_MAX: usize = 1 << 24;
/// Of a Huffman buffer that is kept between blocks.
const TEXT_KEPT_MAX: usize = 4096;

impl Decoder {
    /// Longer strings than `string_bytes_max` are an error.
    pub fn new(size_allowed: u32, string_bytes_max: usize) -> Decoder {
        // Until the peer has seen our SETTINGS it may use the default.
        Decoder {
            table: DynamicTable::new(DEFAULT_TABLE_SIZE),
            size_allowed: DEFAULT_TABLE_SIZE.max(size_allowed as usize),
            string_bytes_max,
            text: Vec::new(),
            must_shrink: false,
        }
    }

    /// The peer has acknowledged the SETTINGS that say so.
    pub fn limit(&mut self, size_allowed: u32) {
        self.size_allowed = size_allowed as usize;
        self.must_shrink = self.size_allowed < self.table.size_max();
    }

    /// Hands on each field with its size as RFC 7541 section 4.1 counts it.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(Field, usize)) -> Result<(), DecodeError> {
        let mut input = Input(block);
        let mut begun = false;
        while let Some(&first) = input.0.first() {
            if first & 0xe0 == 0x20 {
                self.resize(input.integer(5)?, begun)?;
                continue;
            }
            if self.must_shrink {
                return Err(DecodeError::MissingResize);
            }
            begun = true;
            let (field, size) = match first {
                0x80.. => self.indexed(input.integer(7)?)?,
                0x40.. => {
                    let (field, size) = self.literal(input.integer(6)?, &mut input)?;
                    self.table.insert(field.clone(), size);
                    (field, size)
                }
                _ => self.literal(input.integer(4)?, &mut input)?,
            };
            each(field, size);
        }
        if self.text.capacity() > TEXT_KEPT_MAX {
            self.text = Vec::new();
        }
        Ok(())
    }

    /// RFC 7541 sections 4.2 and 6.3: only ahead of the fields, and never above what was allowed.
    fn resize(&mut self, size: usize, begun: bool) -> Result<(), DecodeError> {
        if begun {
            return Err(DecodeError::LateResize);
        }
        if size > self.size_allowed {
            return Err(DecodeError::TableTooLarge);
        }
        self.must_shrink = false;
        self.table.resize(size);
        Ok(())
    }

    fn indexed(&self, index: usize) -> Result<(Field, usize), DecodeError> {
        let at = index.checked_sub(1).ok_or(DecodeError::UnknownIndex)?;
        match STATIC.get(at) {
            Some(field) => Ok((field.clone(), size_of(field))),
            None => self.table.find(at - STATIC.len()).cloned().ok_or(DecodeError::UnknownIndex),
        }
    }

    fn literal(&mut self, name_index: usize, input: &mut Input<'_>) -> Result<(Field, usize), DecodeError> {
        if name_index == 0 {
            let name = self.string(input)?;
            let value = self.string(input)?;
            let size = name.len() + value.len() + ENTRY_OVERHEAD;
            return Ok((Field::new(&name, value), size));
        }
        let value = self.string(input)?;
        let at = name_index - 1;
        let named = match STATIC.get(at) {
            Some(field) => field,
            None => self.table.find(at - STATIC.len()).map(|(field, _)| field).ok_or(DecodeError::UnknownIndex)?,
        };
        let size = name_len(named) + value.len() + ENTRY_OVERHEAD;
        Ok((named.with_value(value), size))
    }

    fn string(&mut self, input: &mut Input<'_>) -> Result<Bytes, DecodeError> {
        let huffman = input.0.first().ok_or(DecodeError::Truncated)? & 0x80 != 0;
        let length = input.integer(7)?;
        if length > self.string_bytes_max {
            return Err(DecodeError::StringTooLong);
        }
        let Some((string, rest)) = input.0.split_at_checked(length) else { return Err(DecodeError::Truncated) };
        input.0 = rest;
        if !huffman {
            return Ok(Bytes::copy_from_slice(string));
        }
        self.text.clear();
        huffman::decode(string, &mut self.text).map_err(|_| DecodeError::Huffman)?;
        Ok(Bytes::copy_from_slice(&self.text))
    }
}

/// The table's size before any SETTINGS (RFC 9113 section 6.5.2).
pub(super) const DEFAULT_TABLE_SIZE: usize = 4096;

fn name_len(field: &Field) -> usize {
    match field {
        Field::Pseudo(pseudo, _) => pseudo.name().len(),
        Field::Header(name, _) => name.as_str().len(),
        Field::Invalid(name) => name.len(),
    }
}

fn size_of(field: &Field) -> usize {
    let value = match field {
        Field::Pseudo(_, value) | Field::Invalid(value) => value.len(),
        Field::Header(_, value) => value.len(),
    };
    name_len(field) + value + ENTRY_OVERHEAD
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    /// RFC 7541 section 5.1. There is a first byte.
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, DecodeError> {
        let (&first, mut rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        let mask = (1usize << prefix_bits) - 1;
        let mut value = usize::from(first) & mask;
        if value == mask {
            let mut shift = 0;
            loop {
                let (&byte, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
                rest = after;
                value += usize::from(byte & 0x7f) << shift;
                if value > INTEGER_MAX || shift > 28 {
                    return Err(DecodeError::IntegerOverflow);
                }
                if byte & 0x80 == 0 {
                    break;
                }
                shift += 7;
            }
        }
        self.0 = rest;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, DecodeError> {
        let mut fields = Vec::new();
        decoder.decode(block, |field, _| {
            fields.push(match field {
                Field::Pseudo(pseudo, value) => format!("{}={}", pseudo.name(), String::from_utf8_lossy(&value)),
                Field::Header(name, value) => format!("{name}={}", String::from_utf8_lossy(value.as_bytes())),
                Field::Invalid(name) => format!("invalid {}", String::from_utf8_lossy(&name)),
            });
        })?;
        Ok(fields)
    }

    #[test]
    fn requests_in_a_row_as_in_the_rfc() {
        // RFC 7541 appendix C.4: Huffman coded, each uses what the ones before put into the table.
        let mut decoder = Decoder::new(4096, 100);
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let fields = [":method=GET", ":scheme=http", ":path=/", ":authority=www.example.com"];
        assert_eq!(decode(&mut decoder, first).unwrap(), fields);
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        assert_eq!(
            decode(&mut decoder, second).unwrap()[3..],
            [":authority=www.example.com", "cache-control=no-cache"]
        );
        let third = b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        assert_eq!(
            decode(&mut decoder, third).unwrap()[2..],
            [":path=/index.html", ":authority=www.example.com", "custom-key=custom-value"]
        );
    }

    #[test]
    fn an_invalid_field_takes_its_place_in_the_table() {
        let mut decoder = Decoder::new(4096, 100);
        assert_eq!(decode(&mut decoder, b"\x40\x01A\x01x\x40\x01b\x01y").unwrap(), ["invalid A", "b=y"]);
        assert_eq!(decode(&mut decoder, b"\xbe\xbf").unwrap(), ["b=y", "invalid A"]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let errors: [(&[u8], DecodeError); 9] = [
            (b"\x80", DecodeError::UnknownIndex),
            (b"\xbe", DecodeError::UnknownIndex),
            (b"\x7f\x00", DecodeError::Truncated),
            (b"\x00\x05a", DecodeError::Truncated),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", DecodeError::IntegerOverflow),
            (b"\x3f\xe2\x1f", DecodeError::TableTooLarge),
            (b"\x82\x20", DecodeError::LateResize),
            (b"\x00\x01a\x81\x18", DecodeError::Huffman),
            (b"\x00\x65a", DecodeError::StringTooLong),
        ];
        for (block, error) in errors {
            assert_eq!(decode(&mut Decoder::new(4096, 100), block), Err(error), "{block:?}");
        }
    }

    #[test]
    fn a_lowered_limit_has_to_be_followed() {
        let mut decoder = Decoder::new(0, 100);
        assert_eq!(decode(&mut decoder, b"\x40\x01a\x01x").unwrap(), ["a=x"], "not seen by the peer yet");
        decoder.limit(0);
        assert_eq!(decode(&mut decoder, b"\x82"), Err(DecodeError::MissingResize));
        assert_eq!(decode(&mut decoder, b"\x20\x82").unwrap(), [":method=GET"]);
        assert_eq!(decode(&mut decoder, b"\xbe"), Err(DecodeError::UnknownIndex), "the table is empty now");
    }

    #[test]
    fn sizes_are_those_of_the_rfc() {
        let mut sizes = Vec::new();
        Decoder::new(4096, 100).decode(b"\x82\x00\x01a\x02xy", |_, size| sizes.push(size)).unwrap();
        assert_eq!(sizes, [7 + 3 + 32, 1 + 2 + 32]);
    }
}
