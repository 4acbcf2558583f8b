//! TCP connections through `tcp_proxy`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::Result;
use weft_tests::facts::Facts;

use crate::Case;
use crate::pair::{TIMEOUT, Target};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, observe: fn(&Target) -> Result<Facts>| Case { name, observe: Box::new(observe) };
    vec![
        case("a line and its answer", |target| converse(target.ports.tcp(), b"hello\n")),
        case("many lines", |target| converse(target.ports.tcp(), "line\n".repeat(10_000).as_bytes())),
        case("nothing but the end", |target| converse(target.ports.tcp(), b"")),
        case("the server speaks first", |target| converse(target.ports.tcp_server_first(), b"")),
        case("the server greets before the client speaks", greeted_first),
        case("nobody listens", |target| only_listen(target.ports.tcp_to_nobody())),
        case("no endpoints", |target| only_listen(target.ports.tcp_to_no_endpoints())),
    ]
}

/// Says `words` and half-closes; what comes back, and how it ends.
fn converse(address: SocketAddr, words: &[u8]) -> Result<Facts> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let spoken = std::thread::scope(|scope| {
        let mut writer = stream.try_clone()?;
        let writing = scope.spawn(move || writer.write_all(words).and_then(|()| writer.shutdown(Shutdown::Write)));
        let heard = listen(&mut stream);
        let _ended_early = writing.join();
        anyhow::Ok(heard)
    })?;
    Ok(spoken)
}

/// Says nothing: whether words that nobody reads turn an end into a reset is a matter of timing.
fn only_listen(address: SocketAddr) -> Result<Facts> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(listen(&mut stream))
}

fn greeted_first(target: &Target) -> Result<Facts> {
    let mut stream = TcpStream::connect_timeout(&target.ports.tcp_server_first(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting)?;
    stream.write_all(b"thanks\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut facts = listen(&mut stream);
    facts.add("greeting", String::from_utf8_lossy(&greeting));
    Ok(facts)
}

fn listen(stream: &mut TcpStream) -> Facts {
    let mut heard = Vec::new();
    let end = match stream.read_to_end(&mut heard) {
        Ok(_) => "end".to_owned(),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset".to_owned(),
        Err(error) => error.to_string(),
    };
    let mut facts = Facts::default();
    facts.add("bytes", heard.len());
    facts.add("first line", String::from_utf8_lossy(heard.split(|byte| *byte == b'\n').next().unwrap_or_default()));
    facts.add("ending", end);
    facts
}
