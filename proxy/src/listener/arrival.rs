//! A connection before a filter chain has it, and the listener filters that learn about it, each in its turn. They look at
//! bytes without taking them; only the PROXY protocol's header is taken.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::net::RecvFlags;
use tokio::{io::Interest, net::TcpStream};

use crate::{
    config::{
        listener::{Predicate, TlsInspector},
        proxy_protocol::{ProxyProtocol, TlvEncoding},
    },
    listener::{
        filter_chain::ConnectionFacts,
        inspect::{
            Verdict,
            client_hello::{self, ClientHello},
            http,
            proxy_protocol::{self, Addresses, Beginning, HEADER_BYTES_MAX, Header, Refusal, Version},
        },
    },
    net::{peek::peek_more, socket},
    stats::{
        GroupStats, HttpInspectorStat, ListenerStat, ProxyProtocolStat, ProxyProtocolStats, RateLimitStat,
        TlsInspectorStat, WorkerIndex,
    },
    token_bucket::TokenBucket,
};

/// What is known of a connection so far.
pub struct Arrival {
    pub stream: TcpStream,
    /// Where the client wanted to go.
    pub destination: SocketAddr,
    /// It is not what the socket says.
    pub is_destination_restored: bool,
    /// The peer's own address.
    pub direct_source: SocketAddr,
    pub source: SocketAddr,
    pub is_tls: bool,
    pub server_name: Option<String>,
    pub application_protocols: Vec<String>,
    pub learned: Learned,
    /// Some byte of it was seen.
    has_spoken: bool,
    /// Filters whose turn is over.
    filters_done: usize,
}

/// What listener filters tell the rest of the way.
#[derive(Default)]
pub struct Learned {
    /// Upstream connections shall come from the downstream's address.
    pub original_src: Option<OriginalSrc>,
    pub proxy_header: Option<Box<ProxyHeader>>,
    pub metadata: Vec<MetadataEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalSrc {
    /// 0: none.
    pub mark: u32,
}

/// What came by the PROXY protocol and may go on by it.
#[derive(Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    pub addresses: Addresses,
    pub tlvs: Vec<(u8, Box<[u8]>)>,
}

/// A string of the connection's dynamic metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataEntry {
    pub namespace: Arc<str>,
    pub key: Arc<str>,
    pub value: String,
}

/// A listener filter with what its connections share.
pub struct ActiveListenerFilter {
    pub kind: ActiveListenerFilterKind,
    pub disabled: Option<Predicate>,
}

pub enum ActiveListenerFilterKind {
    OriginalDst,
    OriginalSrc(OriginalSrc),
    TlsInspector { config: TlsInspector, stats: Arc<GroupStats<TlsInspectorStat>> },
    HttpInspector { stats: Arc<GroupStats<HttpInspectorStat>> },
    ProxyProtocol { config: Arc<ProxyProtocol>, stats: Arc<ProxyProtocolStats> },
    LocalRateLimit { bucket: TokenBucket, stats: Arc<GroupStats<RateLimitStat>> },
}

/// Why a connection ended before a filter chain had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A filter refused it, and counted that.
    Refused,
    PeerClosed,
    PeerFailed,
}

impl Ending {
    /// What it counts on the listener.
    pub fn stat(self) -> Option<ListenerStat> {
        match self {
            Ending::Refused => None,
            Ending::PeerClosed => Some(ListenerStat::ListenerFilterRemoteClose),
            Ending::PeerFailed => Some(ListenerStat::ListenerFilterError),
        }
    }
}

impl Arrival {
    pub fn new(stream: TcpStream, peer: SocketAddr) -> io::Result<Arrival> {
        let source = socket::unmapped(peer);
        Ok(Arrival {
            destination: socket::unmapped(stream.local_addr()?),
            is_destination_restored: false,
            direct_source: source,
            source,
            is_tls: false,
            server_name: None,
            application_protocols: Vec::new(),
            learned: Learned::default(),
            has_spoken: false,
            filters_done: 0,
            stream,
        })
    }

    pub fn facts(&self) -> ConnectionFacts<'_> {
        ConnectionFacts {
            destination: self.destination,
            server_name: self.server_name.as_deref(),
            transport_protocol: if self.is_tls { "tls" } else { "raw_buffer" },
            application_protocols: &self.application_protocols,
            direct_source: self.direct_source.ip(),
            source: self.source,
        }
    }

    pub fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// Another listener's filters are next.
    pub fn begin_filters(&mut self) {
        self.filters_done = 0;
    }

    /// The one whose turn it is.
    pub fn current_filter<'a>(&self, filters: &'a [ActiveListenerFilter]) -> Option<&'a ActiveListenerFilterKind> {
        filters.get(self.filters_done).map(|filter| &filter.kind)
    }

    /// Runs the filters that have not had their turn. Cancel-safe: called again, it goes on where it was.
    pub async fn filter(&mut self, filters: &[ActiveListenerFilter], worker: WorkerIndex) -> Result<(), Ending> {
        while let Some(filter) = filters.get(self.filters_done) {
            let is_disabled =
                filter.disabled.as_ref().is_some_and(|predicate| predicate.matches(self.destination.port()));
            if !is_disabled {
                self.run_filter(&filter.kind, worker).await?;
            }
            self.filters_done += 1;
        }
        Ok(())
    }

    async fn run_filter(&mut self, filter: &ActiveListenerFilterKind, worker: WorkerIndex) -> Result<(), Ending> {
        match filter {
            ActiveListenerFilterKind::OriginalDst => self.restore_destination(),
            ActiveListenerFilterKind::OriginalSrc(original_src) => {
                self.learned.original_src = Some(*original_src);
                Ok(())
            }
            ActiveListenerFilterKind::TlsInspector { config, stats } => self.inspect_tls(*config, stats, worker).await,
            ActiveListenerFilterKind::HttpInspector { stats } => self.inspect_http(stats, worker).await,
            ActiveListenerFilterKind::ProxyProtocol { config, stats } => {
                self.read_proxy_header(config, stats, worker).await
            }
            ActiveListenerFilterKind::LocalRateLimit { bucket, stats } => {
                if bucket.take(Instant::now()).allowed {
                    return Ok(());
                }
                stats.cells.inc(worker, RateLimitStat::RateLimited);
                Err(Ending::Refused)
            }
        }
    }

    fn restore_destination(&mut self) -> Result<(), Ending> {
        let original = socket::original_destination(&self.stream).map_err(|_| Ending::PeerFailed)?;
        if let Some(original) = original {
            self.destination = original;
            self.is_destination_restored = true;
        }
        Ok(())
    }

    async fn inspect_tls(
        &mut self,
        config: TlsInspector,
        stats: &GroupStats<TlsInspectorStat>,
        worker: WorkerIndex,
    ) -> Result<(), Ending> {
        let count = |stat| stats.cells.inc(worker, stat);
        let (looked, ending) =
            look(&self.stream, &mut self.has_spoken, config.hello_bytes_max, client_hello::inspect).await;
        let hello = match looked {
            Verdict::Done(Some(hello)) => hello,
            Verdict::Done(None) => {
                count(TlsInspectorStat::TlsNotFound);
                return if config.must_be_tls { Err(Ending::Refused) } else { Ok(()) };
            }
            Verdict::NeedMore => {
                let Some(ending) = ending else {
                    count(TlsInspectorStat::ClientHelloTooLarge);
                    return Err(Ending::Refused);
                };
                return Err(ending);
            }
        };
        let ClientHello { server_name, application_protocols } = hello;
        count(TlsInspectorStat::TlsFound);
        count(if server_name.is_some() { TlsInspectorStat::SniFound } else { TlsInspectorStat::SniNotFound });
        let has_alpn = !application_protocols.is_empty();
        count(if has_alpn { TlsInspectorStat::AlpnFound } else { TlsInspectorStat::AlpnNotFound });
        self.is_tls = true;
        self.server_name = server_name;
        self.application_protocols = application_protocols;
        Ok(())
    }

    async fn inspect_http(&mut self, stats: &GroupStats<HttpInspectorStat>, worker: WorkerIndex) -> Result<(), Ending> {
        if self.is_tls {
            return Ok(());
        }
        let (looked, ending) = look(&self.stream, &mut self.has_spoken, http::LINE_BYTES_MAX, http::inspect).await;
        let version = match (looked, ending) {
            (Verdict::Done(version), _) => version,
            (Verdict::NeedMore, Some(ending)) => return Err(ending),
            (Verdict::NeedMore, None) => None,
        };
        stats.cells.inc(
            worker,
            match version {
                None => HttpInspectorStat::NotFound,
                Some(http::HttpVersion::Http10) => HttpInspectorStat::Http10Found,
                Some(http::HttpVersion::Http11) => HttpInspectorStat::Http11Found,
                Some(http::HttpVersion::Http2) => HttpInspectorStat::Http2Found,
            },
        );
        if let Some(version) = version {
            self.application_protocols = vec![version.application_protocol().to_owned()];
        }
        Ok(())
    }

    async fn read_proxy_header(
        &mut self,
        config: &ProxyProtocol,
        stats: &ProxyProtocolStats,
        worker: WorkerIndex,
    ) -> Result<(), Ending> {
        let mut seen = Vec::new();
        let mut looking = Looking::new(&self.stream, HEADER_BYTES_MAX);
        loop {
            let (bytes, ending) = looking.more().await;
            match proxy_protocol::inspect(bytes, config.accepts) {
                Verdict::NeedMore => match ending {
                    Some(ending) => return Err(ending),
                    None => continue,
                },
                Verdict::Done(beginning) => {
                    count_beginning(&beginning, &|stat| stats.cells.inc(worker, stat));
                    match beginning {
                        Beginning::NoHeader => return Ok(()),
                        Beginning::Refused(_) => return Err(Ending::Refused),
                        Beginning::Header(header) => {
                            let Header { version: _, length, addresses, tlvs } = header;
                            self.learned.learn(config, addresses, tlvs, (self.source, self.destination));
                            if let Some(Addresses { source, destination }) = addresses {
                                self.is_destination_restored |= destination != self.destination;
                                (self.source, self.destination) = (source, destination);
                            }
                            seen.resize(length, 0);
                        }
                    }
                }
            }
            return take(&self.stream, &mut seen).map_err(|_| Ending::PeerFailed);
        }
    }
}

impl Learned {
    /// `own`: the connection's source and destination, for a header without.
    fn learn(
        &mut self,
        config: &ProxyProtocol,
        addresses: Option<Addresses>,
        tlvs: Vec<(u8, &[u8])>,
        own: (SocketAddr, SocketAddr),
    ) {
        for (tlv_type, value) in &tlvs {
            if let Some(rule) = config.rule(*tlv_type) {
                let value = match rule.encoding {
                    TlvEncoding::SanitizedUtf8 => sanitized(value),
                    TlvEncoding::Base64 => BASE64_STANDARD.encode(value),
                };
                self.metadata.retain(|entry| entry.namespace != rule.namespace || entry.key != rule.key);
                self.metadata.push(MetadataEntry { namespace: rule.namespace.clone(), key: rule.key.clone(), value });
            }
        }
        let passed = tlvs.into_iter().filter(|(tlv_type, _)| config.pass_through_tlvs.includes(*tlv_type));
        self.proxy_header = Some(Box::new(ProxyHeader {
            addresses: addresses.unwrap_or(Addresses { source: own.0, destination: own.1 }),
            tlvs: passed.map(|(tlv_type, value)| (tlv_type, value.into())).collect(),
        }));
    }
}

/// What is no UTF-8 becomes `!`.
fn sanitized(value: &[u8]) -> String {
    value.utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
        text
    })
}

fn count_beginning(beginning: &Beginning<'_>, count: &dyn Fn(ProxyProtocolStat)) {
    use ProxyProtocolStat::{
        Error, NotFoundAllowed, NotFoundDisallowed, V1Disallowed, V1Error, V1Found, V2Disallowed, V2Error, V2Found,
    };
    match beginning {
        Beginning::Header(header) => count(match header.version {
            Version::V1 => V1Found,
            Version::V2 => V2Found,
        }),
        Beginning::NoHeader => count(NotFoundAllowed),
        Beginning::Refused(Refusal::NotFound) => {
            count(NotFoundDisallowed);
            count(Error);
        }
        Beginning::Refused(Refusal::Malformed(version)) => {
            count(match version {
                Version::V1 => V1Error,
                Version::V2 => V2Error,
            });
            count(Error);
        }
        Beginning::Refused(Refusal::Disallowed(version)) => {
            let (found, disallowed) = match version {
                Version::V1 => (V1Found, V1Disallowed),
                Version::V2 => (V2Found, V2Disallowed),
            };
            count(found);
            count(disallowed);
        }
    }
}

/// Peeks until `inspect` knows; with `NeedMore` comes why there is no more: the peer's end, or the limit (None).
async fn look<T>(
    stream: &TcpStream,
    has_spoken: &mut bool,
    bytes_max: usize,
    inspect: impl Fn(&[u8]) -> Verdict<T>,
) -> (Verdict<T>, Option<Ending>) {
    let mut looking = Looking::new(stream, bytes_max);
    loop {
        let (seen, ending) = looking.more().await;
        *has_spoken |= !seen.is_empty();
        let is_full = seen.len() == bytes_max;
        match inspect(seen) {
            Verdict::NeedMore if ending.is_none() && !is_full => {}
            verdict => return (verdict, ending),
        }
    }
}

/// A growing view of a connection's first bytes.
struct Looking<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
    seen: usize,
    bytes_max: usize,
}

/// Enough for nearly every first line and most ClientHellos.
const LOOKED_AT_FIRST_BYTES: usize = 1024;

impl<'a> Looking<'a> {
    fn new(stream: &'a TcpStream, bytes_max: usize) -> Looking<'a> {
        Looking { stream, buffer: Vec::new(), seen: 0, bytes_max }
    }

    /// Waits for more than there was. Cancel-safe: nothing is taken.
    async fn more(&mut self) -> (&[u8], Option<Ending>) {
        if self.seen == self.buffer.len() {
            let grown = (self.buffer.len() * 2).max(LOOKED_AT_FIRST_BYTES).min(self.bytes_max);
            self.buffer.resize(grown, 0);
        }
        let ending = match peek_more(self.stream, &mut self.buffer, self.seen).await {
            Ok(seen) if seen <= self.seen => Some(Ending::PeerClosed),
            Ok(seen) => {
                self.seen = seen;
                None
            }
            Err(_) => Some(Ending::PeerFailed),
        };
        (&self.buffer[..self.seen], ending)
    }
}

/// Takes bytes that were seen to be there.
fn take(stream: &TcpStream, seen: &mut [u8]) -> io::Result<()> {
    stream.try_io(Interest::READABLE, || {
        let mut taken = 0;
        while taken < seen.len() {
            let (read, _) = rustix::net::recv(stream, &mut seen[taken..], RecvFlags::empty())?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            taken += read;
        }
        Ok(())
    })
}
