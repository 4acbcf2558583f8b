//! Why a response is what it is, as access logs and metrics show it. The short forms are Envoy's.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseFlags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $short:literal,)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: ResponseFlags = ResponseFlags(1 << $bit);)*
        }
        const SHORT: &[(ResponseFlags, &str)] = &[$((ResponseFlags::$name, $short),)*];
    };
}

flags! {
    NO_HEALTHY_UPSTREAM = 0 "UH",
    UPSTREAM_CONNECTION_FAILURE = 1 "UF",
    UPSTREAM_OVERFLOW = 2 "UO",
    NO_ROUTE_FOUND = 3 "NR",
    UPSTREAM_REQUEST_TIMEOUT = 4 "UT",
    UPSTREAM_REMOTE_RESET = 5 "UR",
    UPSTREAM_CONNECTION_TERMINATION = 6 "UC",
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 7 "URX",
    DOWNSTREAM_CONNECTION_TERMINATION = 8 "DC",
    STREAM_IDLE_TIMEOUT = 9 "SI",
    UPSTREAM_PROTOCOL_ERROR = 10 "UPE",
    NO_CLUSTER_FOUND = 11 "NC",
    DOWNSTREAM_PROTOCOL_ERROR = 12 "DPE",
    LOCAL_RESET = 13 "LR",
    DURATION_TIMEOUT = 14 "DT",
}

impl ResponseFlags {
    #[must_use]
    pub fn with(self, other: ResponseFlags) -> ResponseFlags {
        ResponseFlags(self.0 | other.0)
    }

    pub fn contains(self, other: ResponseFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::fmt::Display for ResponseFlags {
    /// `-` for none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut set = SHORT.iter().filter(|(flag, _)| self.contains(*flag)).peekable();
        if set.peek().is_none() {
            return f.write_str("-");
        }
        for (at, (_, short)) in set.enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(short)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        assert_eq!(ResponseFlags::default().to_string(), "-");
        let both = ResponseFlags::UPSTREAM_CONNECTION_FAILURE.with(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        assert_eq!(both.to_string(), "UF,URX");
    }
}
