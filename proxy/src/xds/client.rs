//! Carries messages between the control plane and the runtime: keeps one aggregated stream open, and opens it again when
//! it ends. What to say on it is decided elsewhere (`sotw`).

use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use weft_xds::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};

use crate::xds::{
    backoff::Backoff,
    connect::{ConnectError, ControlPlane},
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
    Opened(mpsc::Sender<DiscoveryRequest>),
    Answer(Box<DiscoveryResponse>),
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

/// A channel of the size that `run` needs.
pub fn events() -> (mpsc::Sender<StreamEvent>, mpsc::Receiver<StreamEvent>) {
    mpsc::channel(ANSWER_QUEUE)
}

/// Runs until the receiver of `events` is dropped. `random` draws evenly from [0, 1).
pub async fn run(control_plane: ControlPlane, events: mpsc::Sender<StreamEvent>, mut random: impl FnMut() -> f64) {
    let mut backoff = Backoff::new();
    for attempt in 0.. {
        let ended = tokio::select! {
            ended = attempt_stream(&control_plane, attempt, &events, &mut backoff) => ended,
            () = events.closed() => return,
        };
        let closed = match ended {
            Ok(error) => events.send(StreamEvent::Closed(error)).await,
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
async fn attempt_stream(
    control_plane: &ControlPlane,
    attempt: usize,
    events: &mpsc::Sender<StreamEvent>,
    backoff: &mut Backoff,
) -> Result<StreamError, Stopped> {
    let channel = match control_plane.connect(attempt).await {
        Ok(channel) => channel,
        Err(error) => return Ok(error.into()),
    };
    let (requests, mut queue) = mpsc::channel(REQUEST_QUEUE);
    // Before the call: a server may send nothing, not even headers, until it has the first request.
    events.send(StreamEvent::Opened(requests)).await.map_err(|_| Stopped)?;
    let outgoing = stream::poll_fn(move |context| queue.poll_recv(context));
    let mut client = AggregatedDiscoveryServiceClient::new(channel)
        .max_decoding_message_size(ANSWER_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let answers = match client.stream_aggregated_resources(outgoing).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Ok(status.into()),
    };
    forward(answers, events, backoff).await
}

async fn forward(
    mut answers: Streaming<DiscoveryResponse>,
    events: &mpsc::Sender<StreamEvent>,
    backoff: &mut Backoff,
) -> Result<StreamError, Stopped> {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                backoff.reset();
                events.send(StreamEvent::Answer(Box::new(answer))).await.map_err(|_| Stopped)?;
            }
            Ok(None) => return Ok(StreamError::Finished),
            Err(status) => return Ok(status.into()),
        }
    }
}
