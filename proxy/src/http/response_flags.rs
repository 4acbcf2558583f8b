//! Why a response is what it is, as access logs and metrics show it. The short and long forms are Envoy's.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseFlags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $short:literal $long:literal,)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: ResponseFlags = ResponseFlags(1 << $bit);)*
        }
        /// In the order in which Envoy lists them.
        const FORMS: &[(ResponseFlags, &str, &str)] = &[$((ResponseFlags::$name, $short, $long),)*];
    };
}

flags! {
    FAILED_LOCAL_HEALTH_CHECK = 14 "LH" "FailedLocalHealthCheck",
    NO_HEALTHY_UPSTREAM = 0 "UH" "NoHealthyUpstream",
    UPSTREAM_REQUEST_TIMEOUT = 4 "UT" "UpstreamRequestTimeout",
    LOCAL_RESET = 13 "LR" "LocalReset",
    UPSTREAM_REMOTE_RESET = 5 "UR" "UpstreamRemoteReset",
    UPSTREAM_CONNECTION_FAILURE = 1 "UF" "UpstreamConnectionFailure",
    UPSTREAM_CONNECTION_TERMINATION = 6 "UC" "UpstreamConnectionTermination",
    UPSTREAM_OVERFLOW = 2 "UO" "UpstreamOverflow",
    NO_ROUTE_FOUND = 3 "NR" "NoRouteFound",
    DELAY_INJECTED = 15 "DI" "DelayInjected",
    FAULT_INJECTED = 16 "FI" "FaultInjected",
    RATE_LIMITED = 17 "RL" "RateLimited",
    UNAUTHORIZED_EXTERNAL_SERVICE = 18 "UAEX" "UnauthorizedExternalService",
    RATE_LIMIT_SERVICE_ERROR = 19 "RLSE" "RateLimitServiceError",
    DOWNSTREAM_CONNECTION_TERMINATION = 8 "DC" "DownstreamConnectionTermination",
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 7 "URX" "UpstreamRetryLimitExceeded",
    STREAM_IDLE_TIMEOUT = 9 "SI" "StreamIdleTimeout",
    INVALID_ENVOY_REQUEST_HEADERS = 20 "IH" "InvalidEnvoyRequestHeaders",
    DOWNSTREAM_PROTOCOL_ERROR = 12 "DPE" "DownstreamProtocolError",
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 21 "UMSDR" "UpstreamMaxStreamDurationReached",
    RESPONSE_FROM_CACHE_FILTER = 22 "RFCF" "ResponseFromCacheFilter",
    NO_FILTER_CONFIG_FOUND = 23 "NFCF" "NoFilterConfigFound",
    DURATION_TIMEOUT = 24 "DT" "DurationTimeout",
    UPSTREAM_PROTOCOL_ERROR = 10 "UPE" "UpstreamProtocolError",
    NO_CLUSTER_FOUND = 11 "NC" "NoClusterFound",
    OVERLOAD_MANAGER = 25 "OM" "OverloadManagerTerminated",
    DNS_RESOLUTION_FAILURE = 26 "DF" "DnsResolutionFailed",
    DROP_OVERLOAD = 27 "DO" "DropOverload",
    DOWNSTREAM_REMOTE_RESET = 28 "DR" "DownstreamRemoteReset",
    UNCONDITIONAL_DROP_OVERLOAD = 29 "UDO" "UnconditionalDropOverload",
}

impl ResponseFlags {
    #[must_use]
    pub fn with(self, other: ResponseFlags) -> ResponseFlags {
        ResponseFlags(self.0 | other.0)
    }

    pub fn contains(self, other: ResponseFlags) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn intersects(self, other: ResponseFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// One flag by its short form.
    pub fn parse(short: &str) -> Option<ResponseFlags> {
        FORMS.iter().find(|(_, form, _)| *form == short).map(|(flag, ..)| *flag)
    }

    /// The long forms, joined by commas; `-` for none.
    pub fn long(self) -> String {
        let set: Vec<&str> = FORMS.iter().filter(|(flag, ..)| self.contains(*flag)).map(|(_, _, long)| *long).collect();
        if set.is_empty() { "-".to_owned() } else { set.join(",") }
    }
}

impl std::fmt::Display for ResponseFlags {
    /// `-` for none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut set = FORMS.iter().filter(|(flag, ..)| self.contains(*flag)).peekable();
        if set.peek().is_none() {
            return f.write_str("-");
        }
        for (at, (_, short, _)) in set.enumerate() {
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
    fn short_and_long_forms() {
        assert_eq!((ResponseFlags::default().to_string(), ResponseFlags::default().long()), ("-".into(), "-".into()));
        let both = ResponseFlags::UPSTREAM_CONNECTION_FAILURE.with(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        assert_eq!(both.to_string(), "UF,URX");
        assert_eq!(both.long(), "UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
        assert!(both.intersects(ResponseFlags::UPSTREAM_CONNECTION_FAILURE));
        assert!(!both.intersects(ResponseFlags::NO_ROUTE_FOUND));
    }

    #[test]
    fn every_form_is_found_again_and_no_two_share_a_bit() {
        for (flag, short, _) in FORMS {
            assert_eq!(ResponseFlags::parse(short), Some(*flag));
        }
        let all = FORMS.iter().fold(0, |all, (flag, ..)| all | flag.0);
        assert_eq!(all.count_ones() as usize, FORMS.len());
        assert_eq!(ResponseFlags::parse("XX"), None);
    }
}
