use proptest::prelude::*;

use super::*;

#[test]
fn a_hello_gives_its_names_however_it_is_cut() {
    let hello = rustls_hello();
    let expected = ClientHello {
        server_name: Some("app.test".to_owned()),
        application_protocols: vec!["h2".to_owned(), "istio".to_owned()],
    };
    for cut in 0..hello.len() {
        assert_eq!(inspect(&hello[..cut]), Verdict::NeedMore, "{cut}");
    }
    assert_eq!(inspect(&hello), Verdict::Done(Some(expected.clone())));
    let followed = [&hello[..], b"more"].concat();
    assert_eq!(inspect(&followed), Verdict::Done(Some(expected.clone())));
    for records_of in [1, 3, 50, 400] {
        let cut = in_records(&hello[RECORD_HEADER_BYTES..], records_of);
        assert_eq!(inspect(&cut), Verdict::Done(Some(expected.clone())), "records of {records_of}");
        assert_eq!(inspect(&cut[..cut.len() - 1]), Verdict::NeedMore, "records of {records_of}");
    }
}

#[test]
fn what_is_no_hello_is_told_from_its_first_bytes() {
    for bytes in [&b"G"[..], b"GET / HTTP/1.1\r\n", &[22, 2], &[23, 3, 1], &[22, 3, 1, 0, 0], &[22, 3, 1, 0, 1, 2]] {
        assert_eq!(inspect(bytes), Verdict::Done(None), "{bytes:?}");
    }
    // More than a hello may have.
    assert_eq!(inspect(&[22, 3, 1, 0, 4, 1, 0, 64, 1]), Verdict::Done(None));
    // A record that is not whole yet.
    assert_eq!(inspect(&[22, 3, 1, 0, 4, 2, 0]), Verdict::NeedMore);
    // A length that its record does not hold out: more records may come.
    assert_eq!(inspect(&[22, 3, 1, 0, 4, 1, 0, 1, 0]), Verdict::NeedMore);
    // A body without a hello in it.
    assert_eq!(inspect(&[22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3]), Verdict::Done(None));
}

#[test]
fn malformed_hellos_are_no_tls() {
    let sound = Hello::default();
    assert_eq!(inspect(&sound.bytes()), Verdict::Done(Some(ClientHello::default())));
    let name = |name: &[u8]| extension(0, &vector16(&[&[0][..], &vector16(name)].concat()));
    let extensions = |parts: &[Vec<u8>]| Hello { extensions: Some(parts.concat()), ..Hello::default() }.bytes();
    let named = ClientHello { server_name: Some("a.b".to_owned()), ..ClientHello::default() };
    assert_eq!(inspect(&extensions(&[name(b"A.b")])), Verdict::Done(Some(named)));
    for (what, bytes) in [
        ("an extension twice", extensions(&[name(b"a"), extension(5, b""), name(b"b")])),
        ("an empty name", extensions(&[name(b"")])),
        ("NUL in a name", extensions(&[name(b"a\0b")])),
        ("a name too long", extensions(&[name(&[b'a'; 256])])),
        ("a name of another type", extensions(&[extension(0, &vector16(&[1, 0, 1, b'a']))])),
        ("no ALPN name", extensions(&[extension(16, &vector16(b""))])),
        ("an empty ALPN name", extensions(&[extension(16, &vector16(&[0]))])),
        ("a half version", extensions(&[extension(43, &[1, 3])])),
        ("only SSL 3", extensions(&[extension(43, &[2, 3, 0])])),
        ("an extension that is cut", extensions(&[vec![0, 5, 0, 9]])),
        ("SSL 3", Hello { version: [3, 0], ..Hello::default() }.bytes()),
        ("no cipher", Hello { ciphers: vec![], ..Hello::default() }.bytes()),
        ("half a cipher", Hello { ciphers: vec![1], ..Hello::default() }.bytes()),
        ("compression without null", Hello { compression: vec![1], ..Hello::default() }.bytes()),
        ("a long session id", Hello { session_id: vec![0; 33], ..Hello::default() }.bytes()),
    ] {
        assert_eq!(inspect(&bytes), Verdict::Done(None), "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        inspect(&bytes);
        inspect(&[&[22, 3, 1][..], &bytes].concat());
        inspect(&in_records(&[&[1, 0, 1, 0][..], &bytes].concat(), 7));
    }

    #[test]
    fn a_hello_with_a_flipped_byte_is_taken(at in 0..300_usize, to in any::<u8>()) {
        let mut hello = rustls_hello();
        let at = at % hello.len();
        hello[at] = to;
        inspect(&hello);
    }
}

struct Hello {
    version: [u8; 2],
    session_id: Vec<u8>,
    ciphers: Vec<u8>,
    compression: Vec<u8>,
    extensions: Option<Vec<u8>>,
}

impl Default for Hello {
    fn default() -> Self {
        Hello { version: [3, 3], session_id: vec![], ciphers: vec![0x13, 1], compression: vec![0], extensions: None }
    }
}

impl Hello {
    fn bytes(&self) -> Vec<u8> {
        let mut body = [&self.version[..], &[7; 32], &[u8::try_from(self.session_id.len()).unwrap()]].concat();
        body.extend(&self.session_id);
        body.extend(vector16(&self.ciphers));
        body.push(u8::try_from(self.compression.len()).unwrap());
        body.extend(&self.compression);
        body.extend(self.extensions.iter().flat_map(|extensions| vector16(extensions)));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        in_records(&[&[1][..], &length[1..], &body].concat(), 1 << 14)
    }
}

fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &vector16(part)].concat()).collect()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

fn rustls_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"istio".to_vec()];
    let mut connection = rustls::ClientConnection::new(config.into(), "App.test".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}
