//! One question to one name server (RFC 1035): over UDP, and over TCP where the answer does not fit or TCP is asked for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE, rdata::RData};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use super::resolver::Answer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("not a name")]
    Name(#[source] simple_dns::SimpleDnsError),
    #[error("no answer in time")]
    Timeout,
    #[error("cannot ask")]
    Io(#[from] io::Error),
    #[error("malformed answer")]
    Malformed(#[source] simple_dns::SimpleDnsError),
    #[error("the server refuses: {0:?}")]
    Refused(RCODE),
}

/// Of an answer: more hosts than these of one name nobody has a use for.
const ADDRESSES_MAX: usize = 1024;
/// RFC 1035, section 4.2.1, allows 512 without EDNS; servers that send more are understood all the same.
const UDP_BYTES_MAX: usize = 4096;

/// `timeout` is for the whole of it.
pub(super) async fn ask(
    server: SocketAddr,
    name: &str,
    family: Family,
    use_tcp: bool,
    timeout: Duration,
) -> Result<Answer, QueryError> {
    let id = fastrand::u16(..);
    let question = question(id, name, family)?;
    let asking = async {
        if !use_tcp {
            let reply = over_udp(server, &question, id).await?;
            if !is_truncated(&reply)? {
                return answer(&reply, family);
            }
        }
        answer(&over_tcp(server, &question).await?, family)
    };
    tokio::time::timeout(timeout, asking).await.unwrap_or(Err(QueryError::Timeout))
}

fn question(id: u16, name: &str, family: Family) -> Result<Vec<u8>, QueryError> {
    let name = Name::new(name).map_err(QueryError::Name)?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = match family {
        Family::V4 => TYPE::A,
        Family::V6 => TYPE::AAAA,
    };
    packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(QueryError::Name)
}

/// The port is the kernel's choice and the identifier ours: who answers must know both (RFC 5452).
async fn over_udp(server: SocketAddr, question: &[u8], id: u16) -> Result<Vec<u8>, QueryError> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut reply = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut reply).await?;
        if reply[..length].get(..2) == Some(&id.to_be_bytes()) {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

/// RFC 1035, section 4.2.2: each message behind its length.
async fn over_tcp(server: SocketAddr, question: &[u8]) -> Result<Vec<u8>, QueryError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| io::Error::other("the question is too long"))?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

fn is_truncated(reply: &[u8]) -> Result<bool, QueryError> {
    // The third byte's second bit: a reply that was cut may not parse.
    match reply.get(2) {
        Some(flags) => Ok(flags & 0b10 != 0),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

fn answer(reply: &[u8], family: Family) -> Result<Answer, QueryError> {
    let packet = Packet::parse(reply).map_err(QueryError::Malformed)?;
    match packet.rcode() {
        RCODE::NoError => {}
        // That there is no such name is an answer too.
        RCODE::NameError => return Ok(Answer::default()),
        refused => return Err(QueryError::Refused(refused)),
    }
    let mut found = Answer::default();
    for record in packet.answers.iter().take(ADDRESSES_MAX) {
        let address = match (&record.rdata, family) {
            (RData::A(a), Family::V4) => IpAddr::V4(Ipv4Addr::from(a.address)),
            (RData::AAAA(aaaa), Family::V6) => IpAddr::V6(Ipv6Addr::from(aaaa.address)),
            _ => continue, // such as the aliases that led here, which the server has followed
        };
        found.add(address, Duration::from_secs(record.ttl.into()));
    }
    Ok(found)
}
