use super::*;
use proptest::prelude::*;

const LIMITS: TrailerLimits = TrailerLimits { bytes_max: 200, fields_max: 5 };

type Whole = (Vec<u8>, HeaderMap, Vec<u8>);

/// The body, its trailers and what is left, when the input comes in pieces of `piece` bytes.
fn decode(input: &[u8], piece: usize) -> Result<Option<Whole>, Violation> {
    let mut decoder = ChunkedDecoder::new(LIMITS);
    let mut buffer = BytesMut::new();
    let mut body = Vec::new();
    let mut pieces = input.chunks(piece.max(1));
    loop {
        match decoder.decode(&mut buffer)? {
            Decoded::Data(data) => body.extend_from_slice(&data),
            Decoded::End(trailers) => {
                let left = buffer.iter().copied().chain(pieces.flatten().copied()).collect();
                return Ok(Some((body, trailers, left)));
            }
            Decoded::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    }
}

/// What RFC 9112 section 7.1 says, written down plainly, for bodies without trailers.
fn reference(mut input: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let mut body = Vec::new();
    loop {
        let Some(line_end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let line = &input[..line_end];
        input = &input[line_end + 2..];
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        if digits == 0 || !matches!(line.get(digits), None | Some(b' ' | b'\t' | b';')) {
            return Err(());
        }
        if line[digits..].iter().any(|byte| fields::is_control(byte) || matches!(byte, b'\r' | b'\n')) {
            return Err(());
        }
        let text = std::str::from_utf8(&line[..digits]).map_err(drop)?;
        let size = u64::from_str_radix(text, 16).map_err(drop)?;
        if size == 0 {
            return match input {
                // As in a head, a bare LF ends a line too.
                [b'\r', b'\n', ..] | [b'\n', ..] => Ok(Some(body)),
                _ => Ok(None),
            };
        }
        let size = usize::try_from(size).map_err(drop)?;
        if input.len() < size.saturating_add(2) {
            return Ok(None);
        }
        body.extend_from_slice(&input[..size]);
        if &input[size..size + 2] != b"\r\n" {
            return Err(());
        }
        input = &input[size + 2..];
    }
}

#[test]
fn bodies_are_the_same_however_they_arrive() {
    let input = b"3\r\nabc\r\n00A ;x=\"y\"\r\n0123456789\r\n0;last\r\nX-T: 1\r\n\r\nGET";
    for piece in 1..input.len() {
        let (body, trailers, left) = decode(input, piece).expect("well-formed").expect("complete");
        assert_eq!((body.as_slice(), left.as_slice()), (&b"abc0123456789"[..], &b"GET"[..]));
        assert_eq!(trailers["x-t"], "1");
    }
}

#[test]
fn what_could_be_read_two_ways_is_refused() {
    let bad: [&[u8]; 14] = [
        b"zz\r\n",
        b"\r\nabc",
        b" 3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-3\r\n",
        b"0x3\r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabc\n",
        b"3\r\nabcd\r\n",
        b"3;a\nabc\r\n",
        b"3;a\rb\r\n",
        b"3;a\x01\r\n",
        b"fffffffffffffffff\r\n",
        b"3\r\r\nabc\r\n",
    ];
    for input in bad {
        assert_eq!(decode(input, 99), Err(Violation::Grammar), "{:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let long = |count: usize| format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(count)).into_bytes();
    assert!(matches!(decode(&long(EXTENSION_BYTES_MAX - 1), 1000), Ok(Some(_))));
    assert_eq!(decode(&long(EXTENSION_BYTES_MAX + 1), 1000), Err(Violation::Grammar));
    let trailer = |count: usize| format!("0\r\nx: {}\r\n\r\n", "a".repeat(count)).into_bytes();
    assert!(matches!(decode(&trailer(150), 7), Ok(Some(_))));
    assert_eq!(decode(&trailer(250), 7), Err(Violation::FieldsTooLarge));
    assert_eq!(decode(b"0\r\na:1\r\nb:1\r\nc:1\r\nd:1\r\ne:1\r\nf:1\r\n\r\n", 99), Err(Violation::TooManyFields));
}

/// Bytes that are mostly chunks.
fn nearly_chunked() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|data| {
            [format!("{:x}\r\n", data.len()).into_bytes(), data, b"\r\n".to_vec()].concat()
        }),
        1 => Just(b"0\r\n\r\n".to_vec()),
        1 => Just(b"4 ;e=1\r\nabcd\r\n".to_vec()),
        1 => "[0-9a-f;\r\n x]{0,6}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn it_agrees_with_the_plain_reading(input in nearly_chunked(), piece in 1usize..9) {
        let ours = decode(&input, piece);
        match reference(&input) {
            Ok(Some(body)) => {
                let (found, trailers, _) = ours.expect("well-formed").expect("complete");
                prop_assert_eq!(found, body);
                prop_assert!(trailers.is_empty());
            }
            // What is incomplete may turn out bad at a later byte or already at this one; what follows the last chunk
            // may be trailers.
            Ok(None) => prop_assert!(!matches!(ours, Ok(Some((_, ref trailers, _))) if trailers.is_empty())),
            Err(()) => prop_assert!(!matches!(ours, Ok(Some(_)))),
        }
    }
}
