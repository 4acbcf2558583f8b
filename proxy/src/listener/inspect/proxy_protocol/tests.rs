use proptest::prelude::*;

use super::*;

const STRICT: Accepts = Accepts { v1: true, v2: true, no_header: false };
const LENIENT: Accepts = Accepts { no_header: true, ..STRICT };

fn header(bytes: &[u8]) -> Header<'_> {
    match inspect(bytes, STRICT) {
        Verdict::Done(Beginning::Header(header)) => header,
        other => panic!("{other:?} of {bytes:?}"),
    }
}

fn addresses(source: &str, destination: &str) -> Option<Addresses> {
    Some(Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

fn v2(version_command: u8, family_transport: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[version_command, family_transport], &length, body].concat()
}

const INET: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0, 0, 80];

#[test]
fn lines_of_version_1_are_read() {
    let four = header(b"PROXY TCP4 1.2.3.4 5.6.7.8 4096 80\r\nGET");
    assert_eq!((four.addresses, four.length, four.version), (addresses("1.2.3.4:4096", "5.6.7.8:80"), 36, Version::V1));
    let six = header(b"PROXY TCP6 1::2 ::3 1 65535\r\n");
    assert_eq!(six.addresses, addresses("[1::2]:1", "[::3]:65535"));
    assert_eq!(header(b"PROXY UNKNOWN\r\n").addresses, None);
    assert_eq!(header(b"PROXY UNKNOWN whatever stands here\r\n").length, 36);
    assert_eq!(header(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n").addresses, addresses("1.2.3.4:1", "5.6.7.8:2"));
}

#[test]
fn version_2_is_read_with_its_extensions() {
    let bytes = v2(0x21, 0x11, &[&INET[..], &[4, 0, 2, b'h', b'i', 5, 0, 0]].concat());
    let read = header(&bytes);
    assert_eq!((read.addresses, read.length), (addresses("1.2.3.4:4096", "5.6.7.8:80"), bytes.len()));
    assert_eq!(read.tlvs, [(4, &b"hi"[..]), (5, &b""[..])]);
    let mut six = [0; 36];
    (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
    assert_eq!(header(&v2(0x21, 0x22, &six)).addresses, addresses("[::1]:3", "[::2]:4"));
    let local = v2(0x20, 0, &[9; 20]);
    assert_eq!((header(&local).addresses, header(&local).length, header(&local).tlvs.len()), (None, 36, 0));
}

#[test]
fn malformed_headers_are_told_by_their_version() {
    for line in [
        &b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"[..],
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 5.6.7.8 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP4 0.0.0.0 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 255.255.255.255 1 2\r\n",
        b"PROXY TCP6 ff02::1 ::1 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"HELLO\r\n",
    ] {
        assert_eq!(
            inspect(line, STRICT),
            refused(Refusal::Malformed(Version::V1)),
            "{}",
            String::from_utf8_lossy(line)
        );
    }
    let with = |tail: &[u8]| v2(0x21, 0x11, &[&INET[..], tail].concat());
    for bytes in [
        v2(0x11, 0x11, &INET),
        v2(0x22, 0x11, &INET),
        v2(0x21, 0x10, &INET),
        v2(0x21, 0x31, &INET),
        v2(0x21, 0x11, &INET[..11]),
        v2(0x21, 0x11, &[0; 12]),
        with(&[4]),
        with(&[4, 0]),
        with(&[4, 0, 1]),
    ] {
        assert_eq!(inspect(&bytes, STRICT), refused(Refusal::Malformed(Version::V2)), "{bytes:?}");
    }
}

#[test]
fn what_is_no_header_is_refused_unless_it_may_be_missing() {
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    assert_eq!(inspect(b"GET / HTTP/1.1\r\n", STRICT), refused(Refusal::NotFound));
    assert_eq!(inspect(&endless, STRICT), refused(Refusal::NotFound));
    assert_eq!(inspect(&[&endless[..], b"\r\n"].concat(), LENIENT), refused(Refusal::NotFound));
    assert_eq!(inspect(b"G", STRICT), Verdict::NeedMore);
    assert_eq!(inspect(b"G", LENIENT), Verdict::Done(Beginning::NoHeader));
    assert_eq!(inspect(b"PROX", LENIENT), Verdict::NeedMore);
    assert_eq!(inspect(b"\r\n\r\n", LENIENT), Verdict::NeedMore);
}

#[test]
fn a_version_may_be_disallowed() {
    let (line, binary) = (&b"PROXY UNKNOWN\r\n"[..], v2(0x20, 0, b""));
    let only_v2 = Accepts { v1: false, ..STRICT };
    let only_v1 = Accepts { v2: false, ..STRICT };
    assert_eq!(inspect(line, only_v2), refused(Refusal::Disallowed(Version::V1)));
    assert_eq!(inspect(&binary, only_v1), refused(Refusal::Disallowed(Version::V2)));
    let lenient = Accepts { v2: false, ..LENIENT };
    assert_eq!(inspect(&binary, lenient), Verdict::Done(Beginning::NoHeader), "bytes like any others");
}

#[test]
fn a_header_may_come_byte_by_byte() {
    for whole in [b"PROXY TCP4 1.2.3.4 5.6.7.8 4096 80\r\n".to_vec(), v2(0x21, 0x11, &INET), v2(0x20, 0, b"xyz")] {
        for cut in 0..whole.len() {
            assert_eq!(inspect(&whole[..cut], LENIENT), Verdict::NeedMore, "{cut} of {whole:?}");
        }
    }
}

#[test]
fn headers_without_a_family_in_common_say_so() {
    let mixed = addresses("1.2.3.4:1", "[::1]:2");
    let mut out = Vec::new();
    write_v1(mixed, &mut out);
    assert_eq!(out, b"PROXY UNKNOWN\r\n");
    out.clear();
    write_v2(mixed, [], &mut out);
    assert_eq!(header(&out).addresses, addresses("[::ffff:1.2.3.4]:1", "[::1]:2"));
    out.clear();
    write_v2(None, [(1, &b"x"[..])], &mut out);
    assert_eq!((header(&out).addresses, out.len()), (None, 16));
}

#[test]
fn extensions_that_do_not_fit_are_left_out() {
    let large = vec![0; 40_000];
    let mut out = Vec::new();
    let tlvs = [(1, &large[..]), (2, &large[..]), (3, &b"x"[..])];
    write_v2(addresses("1.2.3.4:1", "5.6.7.8:2"), tlvs, &mut out);
    assert_eq!(header(&out).tlvs.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [1, 3]);
}

proptest! {
    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        inspect(&bytes, STRICT);
        inspect(&[V2_SIGNATURE, &bytes].concat(), LENIENT);
        inspect(&[V1_SIGNATURE, &bytes].concat(), LENIENT);
    }

    #[test]
    fn what_is_written_is_read(
        source in any::<([u8; 4], u16)>(),
        destination in any::<([u8; 16], u16)>(),
        tlvs in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..5),
    ) {
        let v4 = SocketAddr::from((source.0, source.1));
        let v6 = SocketAddr::from((destination.0, destination.1));
        for addresses in [(v4, v4), (v6, v6)].into_iter().filter_map(|(from, to)| Addresses::new(from, to)) {
            let mut out = Vec::new();
            write_v1(Some(addresses), &mut out);
            prop_assert_eq!(header(&out).addresses, Some(addresses));
            out.clear();
            write_v2(Some(addresses), tlvs.iter().map(|(kind, value)| (*kind, &value[..])), &mut out);
            let read = header(&out);
            prop_assert_eq!((read.addresses, read.length), (Some(addresses), out.len()));
            prop_assert_eq!(read.tlvs, tlvs.iter().map(|(kind, value)| (*kind, &value[..])).collect::<Vec<_>>());
        }
    }
}
