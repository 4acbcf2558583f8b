//! A message on its way to a client, turned into bytes piece by piece as the client takes them.
//!
//! Resources are encoded once, when they are translated, and shared by everyone they are sent to. What a client that
//! does not read holds is one piece, however long its response is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::sync::mpsc;
use tonic::Status;
use weft_xds::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};

use super::subscription::{Response, Variant};
use crate::snapshot::version::Version;
use crate::translate::resource::Resource;

/// A gRPC message: its head, then resources, which may be many.
#[derive(Debug)]
pub struct Message {
    /// Everything but the resources; with the prefix that gRPC puts before a message.
    head: Bytes,
    variant: Variant,
    resources: vec::IntoIter<Arc<Resource>>,
    /// A body that is too long to be copied, to come next.
    long_body: Option<Bytes>,
    bytes_total: usize,
}

/// As much is handed to the transport at a time; longer bodies are handed over as they are.
const CHUNK_BYTES: usize = 32 * 1024;
const PREFIX_BYTES: usize = 5;

// Field numbers of `DiscoveryResponse` and `DeltaDiscoveryResponse`, `discovery.v3.Resource` and `Any`.
const RESOURCES: u32 = 2;
const RESOURCE_VERSION: u32 = 1;
const RESOURCE_BODY: u32 = 2;
const RESOURCE_NAME: u32 = 3;
const ANY_TYPE_URL: u32 = 1;
const ANY_VALUE: u32 = 2;

impl Message {
    pub fn of_response(response: Response, variant: Variant) -> Result<Self, Status> {
        let Response { kind, nonce, version, resources, removed } = response;
        let type_url = kind.type_url().to_owned();
        let head = match variant {
            Variant::StateOfTheWorld => {
                DiscoveryResponse { version_info: version, type_url, nonce, ..DiscoveryResponse::default() }
                    .encode_to_vec()
            }
            Variant::Delta => DeltaDiscoveryResponse {
                system_version_info: version,
                type_url,
                nonce,
                removed_resources: removed,
                ..DeltaDiscoveryResponse::default()
            }
            .encode_to_vec(),
        };
        Self::new(&head, variant, resources)
    }

    pub fn whole(message: &impl prost::Message) -> Result<Self, Status> {
        Self::new(&message.encode_to_vec(), Variant::StateOfTheWorld, Vec::new())
    }

    fn new(head: &[u8], variant: Variant, resources: Vec<Arc<Resource>>) -> Result<Self, Status> {
        let of_resources = resources.iter().map(|resource| {
            let length = Lengths::of(resource, variant).element;
            key_len(RESOURCES) + encoded_len_varint(length as u64) + length
        });
        let bytes_total = head.len() + of_resources.sum::<usize>();
        let length = u32::try_from(bytes_total)
            .map_err(|_| Status::resource_exhausted("a response of more than 4 GiB cannot be sent"))?;
        let mut prefixed = BytesMut::with_capacity(PREFIX_BYTES + head.len());
        // Not compressed.
        prefixed.put_u8(0);
        prefixed.put_u32(length);
        prefixed.put_slice(head);
        Ok(Self {
            head: prefixed.freeze(),
            variant,
            resources: resources.into_iter(),
            long_body: None,
            bytes_total: bytes_total + PREFIX_BYTES,
        })
    }

    /// Of all of it, as it was at the start.
    pub fn bytes_total(&self) -> usize {
        self.bytes_total
    }

    /// The next bytes; `None` at the end.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        if let Some(body) = self.long_body.take() {
            return Some(body);
        }
        let mut chunk = BytesMut::from(std::mem::take(&mut self.head));
        while chunk.len() < CHUNK_BYTES {
            let Some(resource) = self.resources.next() else { break };
            Lengths::of(&resource, self.variant).put_head(&resource, self.variant, &mut chunk);
            if resource.body.len() >= CHUNK_BYTES {
                self.long_body = Some(resource.body.clone());
                break;
            }
            chunk.put_slice(&resource.body);
        }
        Some(chunk.freeze()).filter(|chunk| !chunk.is_empty())
    }
}

/// Of one resource's element in a response.
struct Lengths {
    any: usize,
    element: usize,
}

impl Lengths {
    fn of(resource: &Resource, variant: Variant) -> Self {
        let any = field_len(ANY_TYPE_URL, resource.kind.type_url().len()) + field_len(ANY_VALUE, resource.body.len());
        let element = match variant {
            Variant::StateOfTheWorld => any,
            Variant::Delta => {
                field_len(RESOURCE_VERSION, Version::TEXT_BYTES)
                    + field_len(RESOURCE_NAME, resource.name.len())
                    + field_len(RESOURCE_BODY, any)
            }
        };
        Self { any, element }
    }

    /// Everything that comes before the body, which is last.
    fn put_head(&self, resource: &Resource, variant: Variant, chunk: &mut BytesMut) {
        chunk.reserve(self.element - resource.body.len() + resource.body.len().min(CHUNK_BYTES) + 2 * MARK_BYTES_MAX);
        put_mark(RESOURCES, self.element, chunk);
        if variant == Variant::Delta {
            put_text(RESOURCE_VERSION, &Version::of(resource).to_string(), chunk);
            put_text(RESOURCE_NAME, &resource.name, chunk);
            put_mark(RESOURCE_BODY, self.any, chunk);
        }
        put_text(ANY_TYPE_URL, resource.kind.type_url(), chunk);
        put_mark(ANY_VALUE, resource.body.len(), chunk);
    }
}

/// A key and a length.
const MARK_BYTES_MAX: usize = 15;

fn field_len(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

fn put_mark(field: u32, length: usize, chunk: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, chunk);
    encode_varint(length as u64, chunk);
}

fn put_text(field: u32, text: &str, chunk: &mut BytesMut) {
    put_mark(field, text.len(), chunk);
    chunk.put_slice(text.as_bytes());
}

/// The messages of a stream as an HTTP body, with gRPC's trailers. Takes the next message only once the last one went
/// to the transport.
#[derive(Debug)]
pub struct MessageBody {
    messages: mpsc::Receiver<Result<Message, Status>>,
    current: Option<Message>,
    is_ended: bool,
}

impl MessageBody {
    pub fn new(messages: mpsc::Receiver<Result<Message, Status>>) -> Self {
        Self { messages, current: None, is_ended: false }
    }
}

impl http_body::Body for MessageBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let body = self.get_mut();
        loop {
            if let Some(chunk) = body.current.as_mut().and_then(Message::next_chunk) {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            body.current = None;
            if body.is_ended {
                return Poll::Ready(None);
            }
            match ready!(body.messages.poll_recv(context)) {
                Some(Ok(message)) => body.current = Some(message),
                Some(Err(status)) => {
                    body.is_ended = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
                }
                None => {
                    body.is_ended = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers(&Status::ok(""))))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(unsendable) = status.add_header(&mut trailers) {
        // Not even the reason can be told; the code alone always can.
        trailers.insert("grpc-status", http::HeaderValue::from(unsendable.code() as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use weft_xds::pb::envoy::config::cluster::v3::Cluster;
    use weft_xds::pb::envoy::service::discovery::v3::Resource as XdsResource;

    use super::*;
    use crate::translate::resource::Kind;

    fn response() -> Response {
        let cluster = |name: &str, bytes| {
            let alt_stat_name = "x".repeat(bytes);
            Arc::new(Resource::cluster(Cluster { name: name.to_owned(), alt_stat_name, ..Cluster::default() }))
        };
        let resources = [("a", 1), ("long", CHUNK_BYTES), ("b", 100), ("c", CHUNK_BYTES / 2), ("d", CHUNK_BYTES / 2)];
        Response {
            kind: Kind::Cluster,
            nonce: "7-1".to_owned(),
            version: "v".to_owned(),
            resources: resources.iter().map(|(name, bytes)| cluster(name, *bytes)).collect(),
            removed: vec!["gone".to_owned()],
        }
    }

    /// The message without gRPC's prefix.
    fn bytes(mut message: Message) -> Vec<u8> {
        let (total, mut all) = (message.bytes_total(), Vec::new());
        while let Some(chunk) = message.next_chunk() {
            assert!(chunk.len() < 2 * CHUNK_BYTES, "{}", chunk.len());
            all.extend_from_slice(&chunk);
        }
        assert_eq!(all.len(), total);
        let (prefix, rest) = all.split_at(PREFIX_BYTES);
        assert_eq!(prefix[0], 0);
        assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, rest.len());
        rest.to_vec()
    }

    #[test]
    fn pieces_add_up_to_a_state_of_the_world() {
        let Response { kind, nonce, version, resources, removed: _ } = response();
        let expected = DiscoveryResponse {
            version_info: version,
            type_url: kind.type_url().to_owned(),
            nonce,
            resources: resources.iter().map(|resource| resource.any()).collect(),
            ..DiscoveryResponse::default()
        };
        let message = Message::of_response(response(), Variant::StateOfTheWorld).unwrap();
        assert_eq!(DiscoveryResponse::decode(bytes(message).as_slice()).unwrap(), expected);
    }

    #[test]
    fn pieces_add_up_to_a_delta() {
        let Response { kind, nonce, version, resources, removed } = response();
        let resource = |resource: &Arc<Resource>| XdsResource {
            name: resource.name.to_string(),
            version: Version::of(resource).to_string(),
            resource: Some(resource.any()),
            ..XdsResource::default()
        };
        let expected = DeltaDiscoveryResponse {
            system_version_info: version,
            type_url: kind.type_url().to_owned(),
            nonce,
            resources: resources.iter().map(resource).collect(),
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        };
        let message = Message::of_response(response(), Variant::Delta).unwrap();
        assert_eq!(DeltaDiscoveryResponse::decode(bytes(message).as_slice()).unwrap(), expected);
    }

    #[test]
    fn a_long_body_is_shared_rather_than_copied() {
        let response = response();
        let long = response.resources[1].body.clone();
        let mut message = Message::of_response(response, Variant::Delta).unwrap();
        let chunks = std::iter::from_fn(|| message.next_chunk()).collect::<Vec<_>>();
        assert!(chunks.iter().any(|chunk| chunk.as_ptr() == long.as_ptr() && chunk.len() == long.len()));
    }
}
