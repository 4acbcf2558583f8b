//! The beginning of a request's body, read for the service and put back for the application.

use bytes::{Bytes, BytesMut};

use super::ToldBody;
use crate::{
    config::http_filter::BodyLimit,
    http::{
        body::{Body, next_frame},
        filter::{
            Passing,
            body::{Buffered, FilteredBody},
            buffer,
        },
        local_reply::LocalReply,
    },
};

/// As much as the limit says. A body that is longer goes on as it comes, behind what was read of it.
pub(super) async fn gather(limit: Option<BodyLimit>, passing: &mut Passing<'_>) -> Result<ToldBody, LocalReply> {
    let Some(limit) = limit else { return Ok(ToldBody::default()) };
    if http_body::Body::is_end_stream(&passing.body) {
        return Ok(ToldBody { limit: Some(limit), ..ToldBody::default() });
    }
    let mut buffered = Buffered::default();
    let mut told = BytesMut::new();
    let mut is_whole = true;
    while let Some(frame) = next_frame(&mut passing.body).await {
        // The downstream is gone or broken: the codec has answered it already.
        let Ok(frame) = frame else { return Err(buffer::incomplete()) };
        match frame.into_data() {
            Ok(data) => {
                told.extend_from_slice(&data[..data.len().min(limit.bytes_max.saturating_sub(told.len()))]);
                let read: usize = buffered.chunks.iter().map(Bytes::len).sum::<usize>() + data.len();
                buffered.chunks.push_back(data);
                if read > limit.bytes_max && !limit.allows_partial {
                    return Err(buffer::too_large());
                }
                if read >= limit.bytes_max && limit.allows_partial {
                    is_whole = http_body::Body::is_end_stream(&passing.body);
                    break;
                }
            }
            Err(frame) => buffered.trailers = frame.into_trailers().ok(),
        }
    }
    let rest = std::mem::replace(&mut passing.body, Body::Empty);
    let bytes = told.freeze();
    let is_partial = !is_whole || bytes.len() < buffered.chunks.iter().map(Bytes::len).sum();
    passing.body = Body::Filtered(Box::new(match is_whole {
        true => FilteredBody::Buffered(buffered),
        false => FilteredBody::Resumed(buffered, rest),
    }));
    Ok(ToldBody { bytes, is_partial: Some(is_partial), limit: Some(limit) })
}
