//! Carries messages between a control plane and the runtime: keeps one stream open, and opens it again when it ends. What
//! to say on it is decided elsewhere (`exchange`).

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tonic::{
    Status, Streaming,
    client::Grpc,
    metadata::{MetadataKey, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use crate::{
    config::config_source::{StreamSource, Variant},
    xds::{
        backoff::Backoff,
        connect::{ConnectError, ControlPlane},
        exchange::{Request, Response},
    },
};

/// Requests that wait to be written. More than the kinds there are: each is either unsent state or in here once or twice.
const REQUEST_QUEUE: usize = 8;
/// Answers that wait to be applied; further ones stay in the connection's flow control window.
const ANSWER_QUEUE: usize = 2;
/// Some tens of thousands of clusters in one answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What happens to the stream, in order: Opened, Answer..., Closed, and again.
#[derive(Debug)]
pub enum StreamEvent {
    /// Requests go in here.
    Opened(mpsc::Sender<Request>),
    Answer(Box<Response>),
    Closed(StreamError),
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the configuration stream ended: {}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    #[error("the control plane closed the configuration stream")]
    Finished,
}

impl From<Status> for StreamError {
    fn from(status: Status) -> Self {
        StreamError::Status(Box::new(status))
    }
}

/// The receiver of the runtime is gone: the proxy stops.
struct Stopped;

/// One configuration stream and where it goes.
pub struct Client {
    pub control_plane: ControlPlane,
    pub source: Arc<StreamSource>,
    /// The gRPC method.
    pub method: &'static str,
}

/// A channel of the size that `Client::run` needs; `T` is a stream's event and whatever tells streams apart.
pub fn events<T>() -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    mpsc::channel(ANSWER_QUEUE)
}

impl Client {
    /// Runs until the receiver of `events` is dropped. `tag` tells whose events they are; `random` draws evenly from [0, 1).
    pub async fn run<T: Copy>(self, tag: T, events: mpsc::Sender<(T, StreamEvent)>, mut random: impl FnMut() -> f64) {
        let mut backoff = Backoff::new(self.source.backoff);
        for attempt in 0.. {
            let ended = tokio::select! {
                ended = self.attempt(attempt, tag, &events, &mut backoff) => ended,
                () = events.closed() => return,
            };
            let closed = match ended {
                Ok(error) => events.send((tag, StreamEvent::Closed(error))).await,
                Err(Stopped) => return,
            };
            if closed.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait(random())) => {}
                () = events.closed() => return,
            }
        }
    }

    /// One stream from connecting to its end, which is the value.
    async fn attempt<T: Copy>(
        &self,
        attempt: usize,
        tag: T,
        events: &mpsc::Sender<(T, StreamEvent)>,
        backoff: &mut Backoff,
    ) -> Result<StreamError, Stopped> {
        let channel = match self.control_plane.connect(attempt).await {
            Ok(channel) => channel,
            Err(error) => return Ok(error.into()),
        };
        let (requests, mut queue) = mpsc::channel(REQUEST_QUEUE);
        // Before the call: a server may send nothing, not even headers, until it has the first request.
        events.send((tag, StreamEvent::Opened(requests))).await.map_err(|_| Stopped)?;
        let outgoing = stream::poll_fn(move |context| queue.poll_recv(context));
        let mut forward = Forward { tag, events, backoff };
        match self.source.variant {
            Variant::StateOfTheWorld => {
                let outgoing = outgoing.filter_map(|request| async move {
                    match request {
                        Request::StateOfTheWorld(request) => Some(request),
                        Request::Delta(_) => None,
                    }
                });
                match self.call(channel, outgoing).await {
                    Ok(answers) => forward.all(answers, Response::StateOfTheWorld).await,
                    Err(status) => Ok(status.into()),
                }
            }
            Variant::Delta => {
                let outgoing = outgoing.filter_map(|request| async move {
                    match request {
                        Request::Delta(request) => Some(request),
                        Request::StateOfTheWorld(_) => None,
                    }
                });
                match self.call(channel, outgoing).await {
                    Ok(answers) => forward.all(answers, Response::Delta).await,
                    Err(status) => Ok(status.into()),
                }
            }
        }
    }

    async fn call<Q, A>(
        &self,
        channel: Channel,
        outgoing: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let answer_bytes_max = self.source.max_receive_message_length.map_or(ANSWER_BYTES_MAX, |limit| limit as usize);
        let mut grpc =
            Grpc::new(channel).max_decoding_message_size(answer_bytes_max).max_encoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = tonic::Request::new(outgoing);
        for (name, value) in &self.source.initial_metadata {
            let name = MetadataKey::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, MetadataValue::try_from(value.as_str())) {
                request.metadata_mut().append(name, value);
            }
        }
        let codec = ProstCodec::<Q, A>::default();
        let answers = grpc.streaming(request, PathAndQuery::from_static(self.method), codec).await?;
        Ok(answers.into_inner())
    }
}

struct Forward<'a, T> {
    tag: T,
    events: &'a mpsc::Sender<(T, StreamEvent)>,
    backoff: &'a mut Backoff,
}

impl<T: Copy> Forward<'_, T> {
    async fn all<A>(&mut self, mut answers: Streaming<A>, wrap: fn(A) -> Response) -> Result<StreamError, Stopped> {
        loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    self.backoff.reset();
                    let event = StreamEvent::Answer(Box::new(wrap(answer)));
                    self.events.send((self.tag, event)).await.map_err(|_| Stopped)?;
                }
                Ok(None) => return Ok(StreamError::Finished),
                Err(status) => return Ok(status.into()),
            }
        }
    }
}
