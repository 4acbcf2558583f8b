//! The Huffman code of header strings (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical, so the length of each symbol's code is all there is to know: both directions' tables are
//! derived from the lengths at compile time.

/// Bits of each symbol's code; the last is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
const LENGTH_MAX: usize = 30;
const EOS: u16 = 256;
/// Codes up to this length, which are those of nearly all text, are found by one look.
const FAST_BITS: u32 = 8;

/// What codes of one length look like: `first` and those that follow it, `count` in all, stand for
/// `SYMBOLS[offset..]`.
#[derive(Clone, Copy)]
struct Row {
    first: u32,
    count: u32,
    offset: u32,
}

struct Tables {
    /// (code, bits) by symbol.
    codes: [(u32, u8); 257],
    /// Symbols by code.
    symbols: [u16; 257],
    /// By length.
    rows: [Row; LENGTH_MAX + 1],
    /// (symbol, bits) by the next `FAST_BITS` bits; no bits: the code is longer.
    fast: [(u8, u8); 1 << FAST_BITS],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut codes = [(0u32, 0u8); 257];
    let mut symbols = [0u16; 257];
    let mut rows = [Row { first: 0, count: 0, offset: 0 }; LENGTH_MAX + 1];
    let mut fast = [(0u8, 0u8); 1 << FAST_BITS];
    let mut code = 0u32;
    let mut at = 0;
    let mut bits = 1;
    while bits <= LENGTH_MAX {
        code <<= 1;
        rows[bits].first = code;
        rows[bits].offset = at as u32;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == bits {
                codes[symbol] = (code, bits as u8);
                symbols[at] = symbol as u16;
                if bits as u32 <= FAST_BITS {
                    let spread = FAST_BITS - bits as u32;
                    let mut low = 0;
                    while low < 1 << spread {
                        fast[((code << spread) + low) as usize] = (symbol as u8, bits as u8);
                        low += 1;
                    }
                }
                code += 1;
                at += 1;
            }
            symbol += 1;
        }
        rows[bits].count = at as u32 - rows[bits].offset;
        bits += 1;
    }
    Tables { codes, symbols, rows, fast }
}

/// The string is no Huffman code: it holds EOS, or its padding is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCode;

/// Appends what `coded` stands for.
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidCode> {
    out.reserve(coded.len() * 8 / 5 + 1);
    // The next bits, left-aligned; `held` of them are real and the rest are zero.
    let mut window = 0u64;
    let mut held = 0u32;
    let mut input = coded.iter();
    loop {
        while held <= 56 {
            let Some(&byte) = input.next() else { break };
            window |= u64::from(byte) << (56 - held);
            held += 8;
        }
        let (symbol, bits) = TABLES.fast[(window >> (64 - FAST_BITS)) as usize];
        let (symbol, bits) = match bits {
            0 => match long_code(window) {
                Some((EOS, _)) | None => return ends_well(window, held),
                Some((symbol, bits)) => (symbol as u8, bits),
            },
            bits => (symbol, u32::from(bits)),
        };
        if bits > held {
            return ends_well(window, held);
        }
        out.push(symbol);
        window <<= bits;
        held -= bits;
    }
}

fn long_code(window: u64) -> Option<(u16, u32)> {
    (FAST_BITS + 1..=LENGTH_MAX as u32).find_map(|bits| {
        let row = TABLES.rows[bits as usize];
        let at = ((window >> (64 - bits)) as u32).wrapping_sub(row.first);
        (at < row.count).then(|| (TABLES.symbols[(row.offset + at) as usize], bits))
    })
}

/// RFC 7541 section 5.2: what is left must be padding, fewer than eight bits, all of them ones.
fn ends_well(window: u64, held: u32) -> Result<(), InvalidCode> {
    let ones = !(u64::MAX.checked_shr(held).unwrap_or(0));
    if held < 8 && window == ones { Ok(()) } else { Err(InvalidCode) }
}

/// Bytes that `encode` would write.
pub fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(TABLES.codes[usize::from(byte)].1)).sum();
    bits.div_ceil(8)
}

pub fn encode(text: &[u8], out: &mut impl Extend<u8>) {
    let mut window = 0u64;
    let mut held = 0u32;
    for &byte in text {
        let (code, bits) = TABLES.codes[usize::from(byte)];
        held += u32::from(bits);
        window |= u64::from(code) << (64 - held);
        if held >= 32 {
            out.extend(window.to_be_bytes()[..4].iter().copied());
            window <<= 32;
            held -= 32;
        }
    }
    window |= u64::MAX.checked_shr(held).unwrap_or(0);
    out.extend(window.to_be_bytes()[..held.div_ceil(8) as usize].iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, InvalidCode> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 appendix C.4 and C.6.
        for (text, coded) in [
            ("www.example.com", &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..]),
            ("no-cache", b"\xa8\xeb\x10\x64\x9c\xbf"),
            ("302", b"\x64\x02"),
            ("private", b"\xae\xc3\x77\x1a\x4b"),
        ] {
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            assert_eq!((out.as_slice(), encoded_len(text.as_bytes())), (coded, coded.len()), "{text}");
            assert_eq!(decoded(coded).as_deref(), Ok(text.as_bytes()));
        }
    }

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        for length in 0..all.len() {
            let mut coded = Vec::new();
            encode(&all[..length], &mut coded);
            assert_eq!(decoded(&coded).as_deref(), Ok(&all[..length]));
        }
    }

    #[test]
    fn padding_is_short_and_all_ones_and_eos_is_refused() {
        assert_eq!(decoded(b"\x1f"), Ok(b"a".to_vec()));
        assert_eq!(decoded(b"\x18"), Err(InvalidCode), "zeros");
        assert_eq!(decoded(b"\x1f\xff"), Err(InvalidCode), "more than seven bits");
        assert_eq!(decoded(b"\xff\xff\xff\xff"), Err(InvalidCode), "EOS");
        assert_eq!(decoded(b""), Ok(Vec::new()));
    }
}
