//! `envoy.type.v3.TokenBucket`.

use std::time::Duration;

use weft_xds::{FieldError, pb::envoy::r#type::v3::TokenBucket as ProtoTokenBucket};

use crate::config::field::{self, Result, required};

/// Holds at most `tokens_max`, full at first, and gains `tokens_per_fill` every `fill_interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    pub tokens_max: u32,
    pub tokens_per_fill: u32,
    /// At least 50 ms.
    pub fill_interval: Duration,
}

const FILL_INTERVAL_MIN: Duration = Duration::from_millis(50);

impl TokenBucket {
    pub(crate) fn from_proto(message: ProtoTokenBucket) -> Result<Self> {
        let ProtoTokenBucket { max_tokens, tokens_per_fill, fill_interval } = message;
        let fill_interval = required(field::duration(fill_interval, "fill_interval")?, "fill_interval")?;
        if fill_interval < FILL_INTERVAL_MIN {
            return Err(FieldError::new("fill_interval", "value must be at least 50ms"));
        }
        Ok(Self { tokens_max: max_tokens, tokens_per_fill: field::u32_or(tokens_per_fill, 1), fill_interval })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    #[test]
    fn buckets_are_read() {
        let bucket = TokenBucket::from_proto(message("{max_tokens: 3, fill_interval: 0.05s}")).unwrap();
        assert_eq!(bucket, TokenBucket { tokens_max: 3, tokens_per_fill: 1, fill_interval: FILL_INTERVAL_MIN });
        let eager = TokenBucket::from_proto(message("{max_tokens: 3, fill_interval: 0.049s}"));
        assert_eq!(refusal(eager), "fill_interval: value must be at least 50ms");
    }
}
