//! `envoy.filters.http.buffer`: the request is read whole, up to a limit, before it goes on.

use http::{StatusCode, header};

use super::{FilteredBody, Passing, override_of};
use crate::{
    config::http_filter::{BufferOverride, RouteFilter},
    http::{
        body::{Body, next_frame},
        filter::body::Buffered,
        local_reply::LocalReply,
        response_flags::ResponseFlags,
    },
};

pub(super) async fn request(name: &str, bytes_max: u32, passing: &mut Passing<'_>) -> Result<(), LocalReply> {
    let bytes_max = match override_of(passing.route, name) {
        Some(RouteFilter::Buffer(BufferOverride::Disabled)) => return Ok(()),
        Some(RouteFilter::Buffer(BufferOverride::RequestBytesMax(bytes_max))) => *bytes_max,
        _ => bytes_max,
    };
    if http_body::Body::is_end_stream(&passing.body) {
        return Ok(());
    }
    let mut buffered = Buffered::default();
    let mut bytes = 0usize;
    while let Some(frame) = next_frame(&mut passing.body).await {
        // The downstream is gone or broken: the codec has answered it already.
        let Ok(frame) = frame else { return Err(incomplete()) };
        match frame.into_data() {
            Ok(data) => {
                bytes += data.len();
                if bytes > bytes_max as usize {
                    return Err(too_large());
                }
                buffered.chunks.push_back(data);
            }
            Err(frame) => buffered.trailers = frame.into_trailers().ok(),
        }
    }
    // Its length is known now.
    if !passing.head.headers.contains_key(header::CONTENT_LENGTH) {
        passing.head.headers.insert(header::CONTENT_LENGTH, bytes.into());
    }
    passing.body = Body::Filtered(Box::new(FilteredBody::Buffered(buffered)));
    Ok(())
}

pub fn too_large() -> LocalReply {
    let reply = LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, ResponseFlags::default(), "request_payload_too_large");
    reply.with_body("Payload Too Large")
}

pub(super) fn incomplete() -> LocalReply {
    let flags = ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;
    LocalReply::new(StatusCode::BAD_REQUEST, flags, "downstream_remote_disconnect")
}
