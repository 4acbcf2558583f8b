//! An HTTP/1.1 client that hides nothing: it sends the bytes that it is given and shows the answer as it was on the wire.
//!
//! The tests look at framing, header order, interim responses and how a connection ends, which a proper client library
//! takes care of silently. Reading is strict where a proxy must be right (RFC 9112 section 6): an answer that is malformed
//! is an error.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One answer, its body decoded from whatever framing it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The minor version: 0 or 1.
    pub minor_version: u8,
    pub status: u16,
    pub reason: String,
    /// As sent: order, case and repetitions kept.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub framing: Framing,
    /// The statuses of 1xx responses that came before.
    pub interim: Vec<u16>,
}

/// How the body's end was marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    ContentLength,
    Chunked,
    UntilClose,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// Not one byte came: where the connection had been used before, its other end may simply have closed it.
    #[error("closed before any byte of a response")]
    ClosedBeforeResponse,
    #[error("closed in the middle of a response, after {0:?}")]
    ClosedMidResponse(String),
    #[error("no complete response within the timeout, only {0:?}")]
    Timeout(String),
    #[error("malformed response: {0}")]
    Malformed(String),
    #[error("{0}")]
    Io(#[source] std::io::Error),
}

impl Response {
    /// The first value of this header; names compare as HTTP says, without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn expects_close(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default();
        self.framing == Framing::UntilClose
            || connection.eq_ignore_ascii_case("close")
            || (self.minor_version == 0 && !connection.eq_ignore_ascii_case("keep-alive"))
    }
}

/// A connection for one request after the other.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    reusable: bool,
}

impl Connection {
    /// `timeout` bounds the connecting and then each wait for bytes.
    pub fn open(address: SocketAddr, timeout: Duration) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&address, timeout).map_err(Failure::Connect)?;
        stream.set_read_timeout(Some(timeout)).map_err(Failure::Io)?;
        stream.set_write_timeout(Some(timeout)).map_err(Failure::Io)?;
        stream.set_nodelay(true).map_err(Failure::Io)?;
        Ok(Self { stream, buffer: Vec::new(), reusable: true })
    }

    /// Whether the last answer left the connection open for another request.
    pub fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// A GET of `path`, and its answer.
    pub fn get(&mut self, authority: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response, Failure> {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.send(request.as_bytes())?;
        self.receive(false)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.stream.write_all(bytes) {
            Ok(()) => Ok(()),
            // The other end closed; what it may have said before that is still to be read.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
            Err(error) => Err(Failure::Io(error)),
        }
    }

    /// Half-closes: no more will be sent.
    pub fn finish_sending(&mut self) -> Result<(), Failure> {
        self.stream.shutdown(std::net::Shutdown::Write).map_err(Failure::Io)
    }

    /// The next answer; `to_head` tells that the request was a HEAD, whose answer has no body.
    pub fn receive(&mut self, to_head: bool) -> Result<Response, Failure> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.receive_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            self.receive_body(&mut response, to_head)?;
            self.reusable = !response.expects_close();
            return Ok(response);
        }
    }

    /// Waits until the other end closes. Bytes instead of the end are an error.
    pub fn expect_close(&mut self) -> Result<(), Failure> {
        if self.buffer.is_empty() && self.fill()? == 0 {
            return Ok(());
        }
        Err(Failure::Malformed(format!("bytes where the end was expected: {:?}", lossy(&self.buffer))))
    }

    /// The next status line and headers, interim or final; a body, if there is one, is yet to be read.
    pub fn receive_head(&mut self) -> Result<Response, Failure> {
        loop {
            if let Some((response, length)) = parse_head(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(response);
            }
            if self.fill()? == 0 {
                return Err(if self.buffer.is_empty() { Failure::ClosedBeforeResponse } else { self.cut_short() });
            }
        }
    }

    fn receive_body(&mut self, response: &mut Response, to_head: bool) -> Result<(), Failure> {
        let chunked = response.header("transfer-encoding").map(str::to_ascii_lowercase);
        let length = response.header("content-length").map(str::to_owned);
        if to_head || matches!(response.status, 101 | 204 | 304) {
            return Ok(());
        }
        match (chunked.as_deref(), length) {
            (Some("chunked"), None) => {
                response.framing = Framing::Chunked;
                self.receive_chunks(response)
            }
            (Some(other), _) => {
                Err(Failure::Malformed(format!("transfer-encoding {other} (with a content-length, or not chunked)")))
            }
            (None, Some(length)) => {
                response.framing = Framing::ContentLength;
                let length = length.parse().map_err(|_| Failure::Malformed(format!("content-length {length}")))?;
                response.body = self.take(length)?;
                Ok(())
            }
            (None, None) => {
                response.framing = Framing::UntilClose;
                while self.fill()? > 0 {}
                response.body = std::mem::take(&mut self.buffer);
                Ok(())
            }
        }
    }

    fn receive_chunks(&mut self, response: &mut Response) -> Result<(), Failure> {
        loop {
            let line = self.take_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| Failure::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                break;
            }
            let chunk = self.take(size)?;
            response.body.extend(chunk);
            let end = self.take_line()?;
            if !end.is_empty() {
                return Err(Failure::Malformed(format!("{end:?} after a chunk")));
            }
        }
        loop {
            let line = self.take_line()?;
            if line.is_empty() {
                return Ok(());
            }
            let (name, value) = line.split_once(':').ok_or_else(|| Failure::Malformed(format!("trailer {line:?}")))?;
            response.trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn take_line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = lossy(&self.buffer[..end]);
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(self.cut_short());
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(self.cut_short());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads once; 0 at the end. A reset counts as an end.
    fn fill(&mut self) -> Result<usize, Failure> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Failure::Timeout(lossy(&self.buffer)))
            }
            Err(error) => Err(Failure::Io(error)),
        }
    }

    fn cut_short(&self) -> Failure {
        Failure::ClosedMidResponse(lossy(&self.buffer))
    }
}

/// The status line and headers if they are complete, with their length.
fn parse_head(bytes: &[u8]) -> Result<Option<(Response, usize)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Failure::Malformed(format!("{error} in {:?}", lossy(bytes)))),
    };
    let response = Response {
        minor_version: head.version.unwrap_or_default(),
        status: head.code.unwrap_or_default(),
        reason: head.reason.unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|header| (header.name.to_owned(), lossy(header.value))).collect(),
        body: Vec::new(),
        trailers: Vec::new(),
        framing: Framing::None,
        interim: Vec::new(),
    };
    Ok(Some((response, length)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const HEADERS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that takes one connection, waits for a blank line and answers with `bytes`.
    fn answer(bytes: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(bytes).unwrap();
        });
        address
    }

    fn get(bytes: &'static [u8]) -> Result<Response, Failure> {
        Connection::open(answer(bytes), Duration::from_secs(5)).unwrap().get("test", "/", &[])
    }

    #[test]
    fn reads_interim_chunks_and_trailers() {
        let response =
            get(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n\
            3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-sum: 5\r\n\r\n")
            .unwrap();
        assert_eq!(
            (response.interim.as_slice(), response.status, response.text().as_str()),
            (&[103][..], 200, "abcde")
        );
        assert_eq!(response.trailers, [("x-sum".to_owned(), "5".to_owned())]);
        assert_eq!((response.header("x-a"), response.framing), (Some("1"), Framing::Chunked));
    }

    #[test]
    fn reads_lengths_and_bodies_until_close() {
        let response = get(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone").unwrap();
        assert_eq!(
            (response.status, response.text().as_str(), response.framing),
            (404, "none", Framing::ContentLength)
        );
        let response = get(b"HTTP/1.0 200 OK\r\n\r\nto the end").unwrap();
        assert_eq!((response.minor_version, response.text().as_str()), (0, "to the end"));
        assert!(response.expects_close());
    }

    #[test]
    fn tells_apart_how_an_answer_is_missing() {
        assert!(matches!(get(b""), Err(Failure::ClosedBeforeResponse)));
        assert!(matches!(
            get(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"),
            Err(Failure::ClosedMidResponse(_))
        ));
        assert!(matches!(
            get(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
            Err(Failure::Malformed(_))
        ));
        assert!(matches!(get(b"SMTP ready\r\n\r\n"), Err(Failure::Malformed(_))));
    }
}
