//! Both ends of a connection, in memory: what one writes, the other reads.

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use proptest::prelude::*;

use super::{
    connection::{Accepted, Counters, Role, Settings, Shared},
    error::StreamError,
    frame::{self, Kind, Reason},
    head::HeaderLimits,
    stream::{RecvStream, SendStream, handles},
};
use crate::{
    config::http_protocol::Http2Options,
    stats::{Http2Stat, Sharded, WorkerIndex},
};

struct End {
    shared: Rc<Shared>,
    cells: Arc<Sharded<Http2Stat>>,
}

impl End {
    fn new(role: Role, options: Http2Options) -> End {
        let cells = Arc::new(Sharded::new(1));
        let settings = Settings {
            role,
            options,
            headers: HeaderLimits { bytes_max: 60 * 1024, count_max: 100 },
            buffer_bytes_max: 1 << 20,
            stream_error_on_invalid_message: true,
            counters: Counters { cells: cells.clone(), worker: WorkerIndex(0) },
        };
        End { shared: Shared::new(settings, Instant::now()), cells }
    }

    /// Everything that waits to be written.
    fn written(&self) -> Vec<u8> {
        self.shared.with(|connection| {
            let mut written = Vec::new();
            loop {
                connection.flush_blocked();
                let mut slices = [std::io::IoSlice::new(&[]); super::outbound::SLICES_MAX];
                let count = connection.outbound.slices(&mut slices);
                let before = written.len();
                slices[..count].iter().for_each(|slice| written.extend_from_slice(slice));
                let taken = written.len() - before;
                if taken == 0 {
                    return written;
                }
                connection.outbound.taken(taken);
            }
        })
    }

    fn receive(&self, bytes: &[u8]) {
        self.shared.receive(bytes);
    }

    fn accept(&self) -> Option<(http::request::Parts, RecvStream, SendStream)> {
        match self.shared.with(|connection| connection.accepted.pop_front())? {
            Accepted::Request(head, stream) => {
                let (recv, send) = handles(&self.shared, stream, Role::Downstream);
                Some((head.parts, recv, send))
            }
            Accepted::UnusableTarget(_) | Accepted::Refused { .. } => None,
        }
    }

    fn count(&self, stat: Http2Stat) -> u64 {
        self.cells.sum(stat)
    }
}

/// Downstream and upstream of the same connection, greeted.
fn pair(options: Http2Options) -> (End, End) {
    let server = End::new(Role::Downstream, options.clone());
    let client = End::new(Role::Upstream, options);
    settle(&server, &client);
    (server, client)
}

/// Until neither has anything to say.
fn settle(server: &End, client: &End) {
    for _ in 0..1000 {
        let (up, down) = (client.written(), server.written());
        if up.is_empty() && down.is_empty() {
            return;
        }
        server.receive(&up);
        client.receive(&down);
    }
    panic!("the two go on for ever");
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn post() -> http::request::Parts {
    http::Request::post("http://a.test/x").body(()).unwrap().into_parts().0
}

/// What there is to read now, and whether it has ended.
fn read(recv: &mut RecvStream) -> (Vec<u8>, Option<Result<Option<HeaderMap>, StreamError>>) {
    let mut data = Vec::new();
    let mut trailers = None;
    loop {
        match recv.poll_frame(&cx()) {
            Poll::Pending => return (data, None),
            Poll::Ready(None) => return (data, Some(Ok(trailers))),
            Poll::Ready(Some(Err(error))) => return (data, Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(part) => data.extend_from_slice(&part),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

#[test]
fn a_request_and_its_response_pass_whole() {
    let (server, client) = pair(Http2Options::default());
    let (mut response, mut request) = client.shared.open(&post(), false).unwrap();
    request.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let trailers: HeaderMap =
        [(http::HeaderName::from_static("x-t"), http::HeaderValue::from_static("1"))].into_iter().collect();
    request.send_trailers(trailers.clone()).unwrap();
    settle(&server, &client);
    let (head, mut body, mut answer) = server.accept().unwrap();
    assert_eq!((head.uri.to_string().as_str(), &head.method), ("http://a.test/x", &http::Method::POST));
    assert_eq!(read(&mut body), (b"hello".to_vec(), Some(Ok(Some(trailers.clone())))));
    answer.send_response(Response::new(()), false).unwrap();
    answer.send_data(Bytes::from(vec![b'x'; 100_000]), true).unwrap();
    settle(&server, &client);
    let Poll::Ready(Ok(head)) = response.poll_head(&cx()) else { panic!("no response") };
    assert_eq!(head.status, 200);
    let (data, end) = read(&mut response);
    assert_eq!((data.len(), end), (100_000, Some(Ok(None))));
    assert_eq!((server.count(Http2Stat::StreamsActive), client.count(Http2Stat::StreamsActive)), (0, 0));
    assert_eq!((server.count(Http2Stat::TxReset), client.count(Http2Stat::TxReset)), (0, 0));
}

#[test]
fn a_reader_that_stops_stops_the_sender_and_no_one_else() {
    let window = 100_000;
    let options = Http2Options { initial_stream_window_size: window, ..Http2Options::default() };
    let (server, client) = pair(options);
    let (mut slow, mut to_slow) = client.shared.open(&post(), true).unwrap();
    settle(&server, &client);
    let (_, _, mut answer) = server.accept().unwrap();
    answer.send_response(Response::new(()), false).unwrap();
    answer.send_data(Bytes::from(vec![b'x'; 3 * window as usize]), true).unwrap();
    settle(&server, &client);
    assert!(answer.poll_ready(&cx()).is_pending(), "the window is used up");
    let (mut other, _to_other) = client.shared.open(&post(), true).unwrap();
    settle(&server, &client);
    let (_, _, mut second) = server.accept().unwrap();
    second.send_response(Response::new(()), false).unwrap();
    second.send_data(Bytes::from_static(b"quick"), true).unwrap();
    settle(&server, &client);
    assert_eq!(read(&mut other), (b"quick".to_vec(), Some(Ok(None))));
    let mut total = 0;
    for _ in 0..10 {
        total += read(&mut slow).0.len();
        settle(&server, &client);
    }
    assert_eq!(total, 3 * window as usize);
    assert!(answer.poll_ready(&cx()).is_ready() && to_slow.poll_ready(&cx()).is_ready());
}

#[test]
fn handles_that_are_dropped_end_their_streams() {
    let (server, client) = pair(Http2Options::default());
    let (response, request) = client.shared.open(&post(), false).unwrap();
    settle(&server, &client);
    let (_, mut body, mut answer) = server.accept().unwrap();
    drop((response, request));
    settle(&server, &client);
    assert_eq!(read(&mut body).1, Some(Err(StreamError::RemoteReset(Reason::CANCEL))));
    assert!(answer.poll_ended(&cx()).is_ready());
    let (mut response, _request) = client.shared.open(&post(), false).unwrap();
    settle(&server, &client);
    let (_, body, mut answer) = server.accept().unwrap();
    answer.send_response(Response::new(()), true).unwrap();
    drop(body);
    settle(&server, &client);
    assert!(matches!(response.poll_head(&cx()), Poll::Ready(Ok(_))), "answered before the request was read");
    assert_eq!(server.count(Http2Stat::StreamsActive), 0);
    assert_eq!(client.count(Http2Stat::RxReset), 1, "the rest of the request is not wanted");
}

#[test]
fn a_connection_that_ends_gracefully_finishes_what_it_has_begun() {
    let (server, client) = pair(Http2Options::default());
    let (mut first, _request) = client.shared.open(&post(), true).unwrap();
    settle(&server, &client);
    let (_, _, mut answer) = server.accept().unwrap();
    server.shared.with(|connection| connection.start_shutdown());
    settle(&server, &client);
    assert!(client.shared.open(&post(), true).is_none(), "the peer goes away");
    assert!(!server.shared.with(|connection| connection.is_finished()), "a stream is under way");
    answer.send_response(Response::new(()), true).unwrap();
    settle(&server, &client);
    assert!(matches!(first.poll_head(&cx()), Poll::Ready(Ok(_))));
    assert!(server.shared.with(|connection| connection.is_finished()));
    assert_eq!(server.count(Http2Stat::GoawaySent), 1);
}

#[test]
fn streams_beyond_the_last_of_a_goaway_were_not_processed() {
    let (_, client) = pair(Http2Options::default());
    let (mut first, _request) = client.shared.open(&post(), true).unwrap();
    let (mut second, _request) = client.shared.open(&post(), true).unwrap();
    let mut out = bytes::BytesMut::new();
    frame::put_goaway(&mut out, 1, Reason::NO_ERROR, "");
    client.receive(&out);
    assert!(first.poll_head(&cx()).is_pending());
    assert!(matches!(second.poll_head(&cx()), Poll::Ready(Err(StreamError::Unprocessed))));
}

#[test]
fn frames_may_come_byte_by_byte() {
    let server = End::new(Role::Downstream, Http2Options::default());
    let client = End::new(Role::Upstream, Http2Options::default());
    let (_response, mut request) = client.shared.open(&post(), false).unwrap();
    request.send_data(Bytes::from(vec![b'x'; 20_000]), true).unwrap();
    for byte in client.written() {
        server.receive(&[byte]);
    }
    let (_, mut body, _answer) = server.accept().unwrap();
    assert_eq!(read(&mut body).0.len(), 20_000);
}

/// A frame that is nearly right.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(b"\x82\x86\x84\x41\x06a.test".to_vec()),
        Just(b"\x83\x86\x84\x41\x06a.test".to_vec()),
        Just(vec![0, 0, 0, 8]),
        Just(vec![0, 0, 0, 0, 0, 0, 0, 0]),
        Just(vec![0, 4, 0, 0, 0, 9]),
    ];
    (0u8..11, prop_oneof![Just(0u8), Just(1), Just(4), Just(5), any::<u8>()], 0u32..12, payload).prop_map(
        |(kind, flags, id, payload)| {
            let mut out = bytes::BytesMut::new();
            frame::put_header(&mut out, payload.len(), Kind::Data, flags, id);
            out[3] = kind;
            out.extend_from_slice(&payload);
            out.to_vec()
        },
    )
}

proptest! {
    /// Nothing that a peer sends makes either end panic, or keep streams when the connection is over.
    #[test]
    fn no_frames_break_an_end(frames in proptest::collection::vec(any_frame(), 0..60), split in 1usize..40) {
        for role in [Role::Downstream, Role::Upstream] {
            let end = End::new(role, Http2Options { allow_connect: true, ..Http2Options::default() });
            let mut streams = Vec::new();
            if role == Role::Downstream {
                end.receive(frame::PREFACE);
            } else {
                streams.extend(end.shared.open(&post(), false));
                streams.extend(end.shared.open(&post(), true));
            }
            end.receive(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
            for bytes in frames.concat().chunks(split) {
                end.receive(bytes);
                while let Some((_, recv, mut send)) = end.accept() {
                    let _ = send.send_response(Response::new(()), false);
                    let _ = send.send_data(Bytes::from_static(b"hello"), false);
                    streams.push((recv, send));
                }
                streams.iter_mut().for_each(|(recv, _)| drop(read(recv)));
                end.written();
            }
            end.shared.with(|connection| connection.close(StreamError::Disconnected));
            drop(streams);
            prop_assert_eq!(end.count(Http2Stat::StreamsActive), 0);
        }
    }
}
