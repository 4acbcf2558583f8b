//! The groups of cells and their names: what stands behind the name of the scope that has them. They are Envoy's.

use crate::stats::{StatGroup, StatKind, StatKind::Counter, StatKind::Gauge};

macro_rules! group {
    ($(#[$doc:meta])* $name:ident { $($stat:ident $text:literal $kind:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($stat,)* }
        impl StatGroup for $name {
            const CELLS: &'static [(Self, &'static str, StatKind)] = &[$(($name::$stat, $text, $kind),)*];
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

group! {
    /// `cluster.NAME.*`.
    ClusterStat {
        CxTotal "upstream_cx_total" Counter,
        CxActive "upstream_cx_active" Gauge,
        CxHttp1Total "upstream_cx_http1_total" Counter,
        CxHttp2Total "upstream_cx_http2_total" Counter,
        CxConnectFail "upstream_cx_connect_fail" Counter,
        CxConnectTimeout "upstream_cx_connect_timeout" Counter,
        CxConnectAttemptsExceeded "upstream_cx_connect_attempts_exceeded" Counter,
        CxOverflow "upstream_cx_overflow" Counter,
        BindErrors "bind_errors" Counter,
        CxPoolOverflow "upstream_cx_pool_overflow" Counter,
        OriginalDstHostInvalid "original_dst_host_invalid" Counter,
        CxDestroy "upstream_cx_destroy" Counter,
        CxNoneHealthy "upstream_cx_none_healthy" Counter,
        CxIdleTimeout "upstream_cx_idle_timeout" Counter,
        CxMaxRequests "upstream_cx_max_requests" Counter,
        CxRxBytesTotal "upstream_cx_rx_bytes_total" Counter,
        CxTxBytesTotal "upstream_cx_tx_bytes_total" Counter,
        UpdateAttempt "update_attempt" Counter,
        AssignmentUpdate "update_success" Counter,
        UpdateFailure "update_failure" Counter,
        UpdateEmpty "update_empty" Counter,
        UpdateNoRebuild "update_no_rebuild" Counter,
        RqTotal "upstream_rq_total" Counter,
        RqActive "upstream_rq_active" Gauge,
        RqPendingTotal "upstream_rq_pending_total" Counter,
        RqPendingActive "upstream_rq_pending_active" Gauge,
        RqPendingOverflow "upstream_rq_pending_overflow" Counter,
        RqPendingFailureEject "upstream_rq_pending_failure_eject" Counter,
        RqCancelled "upstream_rq_cancelled" Counter,
        RqTimeout "upstream_rq_timeout" Counter,
        RqPerTryTimeout "upstream_rq_per_try_timeout" Counter,
        RqPerTryIdleTimeout "upstream_rq_per_try_idle_timeout" Counter,
        RqRxReset "upstream_rq_rx_reset" Counter,
        RqTxReset "upstream_rq_tx_reset" Counter,
        RqRetry "upstream_rq_retry" Counter,
        RqRetryBackoffExponential "upstream_rq_retry_backoff_exponential" Counter,
        RqRetryBackoffRatelimited "upstream_rq_retry_backoff_ratelimited" Counter,
        RqRetrySuccess "upstream_rq_retry_success" Counter,
        RqRetryOverflow "upstream_rq_retry_overflow" Counter,
        RqRetryLimitExceeded "upstream_rq_retry_limit_exceeded" Counter,
        RedirectFailed "upstream_internal_redirect_failed_total" Counter,
        RedirectSucceeded "upstream_internal_redirect_succeeded_total" Counter,
        RateLimitOk "ratelimit.ok" Counter,
        RateLimitError "ratelimit.error" Counter,
        RateLimitOverLimit "ratelimit.over_limit" Counter,
        RateLimitFailureModeAllowed "ratelimit.failure_mode_allowed" Counter,
        LbHealthyPanic "lb_healthy_panic" Counter,
        MembershipChange "membership_change" Counter,
        MembershipTotal "membership_total" Gauge,
        MembershipHealthy "membership_healthy" Gauge,
        MembershipDegraded "membership_degraded" Gauge,
        MembershipExcluded "membership_excluded" Gauge,
        LbSubsetsActive "lb_subsets_active" Gauge,
        LbSubsetsSelected "lb_subsets_selected" Counter,
        LbSubsetsFallback "lb_subsets_fallback" Counter,
        LbSubsetsFallbackPanic "lb_subsets_fallback_panic" Counter,
    }
}

group! {
    /// `envoy_cluster_outlier_detection_*`, of clusters that have it.
    OutlierStat {
        EjectionsActive "ejections_active" Gauge,
        Consecutive5xx "ejections_consecutive_5xx" Counter,
        Detected5xx "ejections_detected_consecutive_5xx" Counter,
        DetectedGatewayFailure "ejections_detected_consecutive_gateway_failure" Counter,
        DetectedLocalOriginFailure "ejections_detected_consecutive_local_origin_failure" Counter,
        DetectedDegradation "ejections_detected_degradation" Counter,
        DetectedFailurePercentage "ejections_detected_failure_percentage" Counter,
        DetectedLocalOriginFailurePercentage "ejections_detected_local_origin_failure_percentage" Counter,
        DetectedLocalOriginSuccessRate "ejections_detected_local_origin_success_rate" Counter,
        DetectedSuccessRate "ejections_detected_success_rate" Counter,
        Enforced5xx "ejections_enforced_consecutive_5xx" Counter,
        EnforcedGatewayFailure "ejections_enforced_consecutive_gateway_failure" Counter,
        EnforcedLocalOriginFailure "ejections_enforced_consecutive_local_origin_failure" Counter,
        EnforcedFailurePercentage "ejections_enforced_failure_percentage" Counter,
        EnforcedLocalOriginFailurePercentage "ejections_enforced_local_origin_failure_percentage" Counter,
        EnforcedLocalOriginSuccessRate "ejections_enforced_local_origin_success_rate" Counter,
        EnforcedSuccessRate "ejections_enforced_success_rate" Counter,
        EnforcedTotal "ejections_enforced_total" Counter,
        EjectionsOverflow "ejections_overflow" Counter,
        SuccessRate "ejections_success_rate" Counter,
        EjectionsTotal "ejections_total" Counter,
    }
}

group! {
    /// `envoy_cluster_health_check_*`, of clusters whose hosts are checked.
    HealthCheckStat {
        Attempt "attempt" Counter,
        Success "success" Counter,
        Failure "failure" Counter,
        PassiveFailure "passive_failure" Counter,
        NetworkFailure "network_failure" Counter,
        VerifyCluster "verify_cluster" Counter,
        Healthy "healthy" Gauge,
        Degraded "degraded" Gauge,
    }
}

group! {
    /// A host's, in `/clusters`.
    HostStat {
        CxTotal "cx_total" Counter,
        CxActive "cx_active" Gauge,
        CxConnectFail "cx_connect_fail" Counter,
        RqTotal "rq_total" Counter,
        RqActive "rq_active" Gauge,
        RqSuccess "rq_success" Counter,
        RqError "rq_error" Counter,
        RqTimeout "rq_timeout" Counter,
    }
}

group! {
    /// `http.PREFIX.*`.
    HttpStat {
        CxTotal "downstream_cx_total" Counter,
        CxActive "downstream_cx_active" Gauge,
        CxHttp1Total "downstream_cx_http1_total" Counter,
        CxHttp1Active "downstream_cx_http1_active" Gauge,
        CxHttp2Total "downstream_cx_http2_total" Counter,
        CxHttp2Active "downstream_cx_http2_active" Gauge,
        CxSslTotal "downstream_cx_ssl_total" Counter,
        CxSslActive "downstream_cx_ssl_active" Gauge,
        CxRxBytesTotal "downstream_cx_rx_bytes_total" Counter,
        CxTxBytesTotal "downstream_cx_tx_bytes_total" Counter,
        CxDestroy "downstream_cx_destroy" Counter,
        CxDrainClose "downstream_cx_drain_close" Counter,
        CxIdleTimeout "downstream_cx_idle_timeout" Counter,
        CxMaxDuration "downstream_cx_max_duration_reached" Counter,
        CxProtocolError "downstream_cx_protocol_error" Counter,
        RqTotal "downstream_rq_total" Counter,
        RqActive "downstream_rq_active" Gauge,
        RqCompleted "downstream_rq_completed" Counter,
        RqHttp1Total "downstream_rq_http1_total" Counter,
        RqHttp2Total "downstream_rq_http2_total" Counter,
        RqTimeout "downstream_rq_timeout" Counter,
        RqHeaderTimeout "downstream_rq_header_timeout" Counter,
        RqIdleTimeout "downstream_rq_idle_timeout" Counter,
        RqRxReset "downstream_rq_rx_reset" Counter,
        RqTxReset "downstream_rq_tx_reset" Counter,
        RqTooManyPrematureResets "downstream_rq_too_many_premature_resets" Counter,
        RqDirectResponse "rq_direct_response" Counter,
        RqTotalRouted "rq_total" Counter,
        NoRoute "no_route" Counter,
        NoCluster "no_cluster" Counter,
        RqFailedPathNormalization "downstream_rq_failed_path_normalization" Counter,
        RqRedirectedWithNormalizedPath "downstream_rq_redirected_with_normalized_path" Counter,
        RqMaxDurationReached "downstream_rq_max_duration_reached" Counter,
        RedirectBadLocation "passthrough_internal_redirect_bad_location" Counter,
        RedirectNoRoute "passthrough_internal_redirect_no_route" Counter,
        RedirectPredicate "passthrough_internal_redirect_predicate" Counter,
        RedirectTooMany "passthrough_internal_redirect_too_many_redirects" Counter,
        RedirectUnsafeScheme "passthrough_internal_redirect_unsafe_scheme" Counter,
        CorsOriginValid "cors.origin_valid" Counter,
        CorsOriginInvalid "cors.origin_invalid" Counter,
        CsrfMissingSourceOrigin "csrf.missing_source_origin" Counter,
        CsrfRequestInvalid "csrf.request_invalid" Counter,
        CsrfRequestValid "csrf.request_valid" Counter,
        SetMetadataOverwriteDenied "set_metadata.overwrite_denied" Counter,
        FaultDelaysInjected "fault.delays_injected" Counter,
        FaultAbortsInjected "fault.aborts_injected" Counter,
        FaultResponseRateLimitInjected "fault.response_rl_injected" Counter,
        FaultOverflow "fault.faults_overflow" Counter,
        FaultActive "fault.active_faults" Gauge,
    }
}

group! {
    /// `http2.*` of all downstream connections, and `cluster.NAME.http2.*`.
    Http2Stat {
        GoawaySent "goaway_sent" Counter,
        HeaderListSizeTooLarge "header_list_size_too_large" Counter,
        HeaderOverflow "header_overflow" Counter,
        InboundEmptyFramesFlood "inbound_empty_frames_flood" Counter,
        InboundPriorityFramesFlood "inbound_priority_frames_flood" Counter,
        InboundWindowUpdateFramesFlood "inbound_window_update_frames_flood" Counter,
        KeepaliveTimeout "keepalive_timeout" Counter,
        OutboundControlFlood "outbound_control_flood" Counter,
        OutboundFlood "outbound_flood" Counter,
        RxMessagingError "rx_messaging_error" Counter,
        RxReset "rx_reset" Counter,
        StreamRefusedErrors "stream_refused_errors" Counter,
        StreamsActive "streams_active" Gauge,
        Trailers "trailers" Counter,
        TxFlushTimeout "tx_flush_timeout" Counter,
        TxReset "tx_reset" Counter,
    }
}

group! {
    /// `tcp.PREFIX.*`.
    TcpStat {
        CxTotal "downstream_cx_total" Counter,
        CxNoRoute "downstream_cx_no_route" Counter,
        CxDrainClose "downstream_cx_drain_close" Counter,
        CxRxBytesTotal "downstream_cx_rx_bytes_total" Counter,
        CxTxBytesTotal "downstream_cx_tx_bytes_total" Counter,
        FlowControlPaused "downstream_flow_control_paused_reading_total" Counter,
        FlowControlResumed "downstream_flow_control_resumed_reading_total" Counter,
        EarlyDataReceived "early_data_received_count_total" Counter,
        IdleTimeout "idle_timeout" Counter,
        MaxDuration "max_downstream_connection_duration" Counter,
    }
}

group! {
    /// `listener.ADDRESS.*`.
    ListenerStat {
        CxTotal "downstream_cx_total" Counter,
        CxActive "downstream_cx_active" Gauge,
        CxDestroy "downstream_cx_destroy" Counter,
        CxOverflow "downstream_cx_overflow" Counter,
        GlobalCxOverflow "downstream_global_cx_overflow" Counter,
        CxTransportSocketConnectTimeout "downstream_cx_transport_socket_connect_timeout" Counter,
        PreCxActive "downstream_pre_cx_active" Gauge,
        PreCxTimeout "downstream_pre_cx_timeout" Counter,
        ListenerFilterRemoteClose "downstream_listener_filter_remote_close" Counter,
        ListenerFilterError "downstream_listener_filter_error" Counter,
        NoFilterChainMatch "no_filter_chain_match" Counter,
        TlsHandshake "ssl.handshake" Counter,
        TlsConnectionError "ssl.connection_error" Counter,
        TlsSessionReused "ssl.session_reused" Counter,
        TlsNoCertificate "ssl.no_certificate" Counter,
        TlsFailVerifyNoCertificate "ssl.fail_verify_no_cert" Counter,
        TlsFailVerifyError "ssl.fail_verify_error" Counter,
        TlsFailVerifyName "ssl.fail_verify_san" Counter,
        TlsFailVerifyHash "ssl.fail_verify_cert_hash" Counter,
    }
}

group! {
    /// `tls_inspector.*`.
    TlsInspectorStat {
        TlsFound "tls_found" Counter,
        TlsNotFound "tls_not_found" Counter,
        SniFound "sni_found" Counter,
        SniNotFound "sni_not_found" Counter,
        AlpnFound "alpn_found" Counter,
        AlpnNotFound "alpn_not_found" Counter,
        ClientHelloTooLarge "client_hello_too_large" Counter,
    }
}

group! {
    /// `http_inspector.*`.
    HttpInspectorStat {
        Http10Found "http10_found" Counter,
        Http11Found "http11_found" Counter,
        Http2Found "http2_found" Counter,
        NotFound "http_not_found" Counter,
    }
}

group! {
    /// `proxy_proto.[PREFIX.]*`. The versions' cells have a tag of their own.
    ProxyProtocolStat {
        NotFoundAllowed "not_found_allowed" Counter,
        NotFoundDisallowed "not_found_disallowed" Counter,
        V1Found "found" Counter,
        V1Disallowed "disallowed" Counter,
        V1Error "error" Counter,
        V2Found "found" Counter,
        V2Disallowed "disallowed" Counter,
        V2Error "error" Counter,
        Error "downstream_cx_proxy_proto_error" Counter,
    }
}

group! {
    /// `listener_local_ratelimit.PREFIX.*`, and `local_rate_limit.PREFIX.*` of the network filter.
    RateLimitStat {
        RateLimited "rate_limited" Counter,
    }
}

group! {
    /// `cluster.NAME.MATCH.*`: of `transport_socket_matches`.
    TransportMatchStat {
        TotalMatchCount "total_match_count" Counter,
    }
}

group! {
    /// `connection_limit.PREFIX.*`.
    ConnectionLimitStat {
        LimitedConnections "limited_connections" Counter,
        ActiveConnections "active_connections" Gauge,
    }
}

group! {
    /// `http.PREFIX.rbac.[RULES_PREFIX.]*` and `PREFIX.rbac.*` of the network filter.
    RbacStat {
        Allowed "allowed" Counter,
        Denied "denied" Counter,
    }
}

group! {
    /// The same of shadow rules.
    RbacShadowStat {
        Allowed "shadow_allowed" Counter,
        Denied "shadow_denied" Counter,
    }
}

group! {
    /// `http.PREFIX.basic_auth.*`.
    BasicAuthStat {
        Allowed "allowed" Counter,
        Denied "denied" Counter,
    }
}

group! {
    /// `http.PREFIX.ext_authz.[PREFIX.]*`.
    ExtAuthzStat {
        Ok "ok" Counter,
        Denied "denied" Counter,
        Error "error" Counter,
        Disabled "disabled" Counter,
        FailureModeAllowed "failure_mode_allowed" Counter,
        Invalid "invalid" Counter,
        IgnoredDynamicMetadata "ignored_dynamic_metadata" Counter,
    }
}

group! {
    /// `http.PREFIX.jwt_authn.[PREFIX.]*`.
    JwtStat {
        Allowed "allowed" Counter,
        CorsPreflightBypassed "cors_preflight_bypassed" Counter,
        Denied "denied" Counter,
        JwksFetchSuccess "jwks_fetch_success" Counter,
        JwksFetchFailed "jwks_fetch_failed" Counter,
    }
}

group! {
    /// Of the process. Written by the main thread.
    ServerStat {
        ListenersAdded "listener_manager.listener_added" Counter,
        ListenersModified "listener_manager.listener_modified" Counter,
        ListenersRemoved "listener_manager.listener_removed" Counter,
        ListenerCreateFailure "listener_manager.listener_create_failure" Counter,
        ListenerCreateSuccess "listener_manager.listener_create_success" Counter,
        ListenersStopped "listener_manager.listener_stopped" Counter,
        ListenerInPlaceUpdated "listener_manager.listener_in_place_updated" Counter,
        ClustersAdded "cluster_manager.cluster_added" Counter,
        ClustersModified "cluster_manager.cluster_modified" Counter,
        ClustersRemoved "cluster_manager.cluster_removed" Counter,
    }
}

group! {
    /// `listener.ADDRESS.http.PREFIX.*`: what a connection manager answered to the connections of a listener.
    ListenerHttpStat {
        Rq1xx "downstream_rq_1xx" Counter,
        Rq2xx "downstream_rq_2xx" Counter,
        Rq3xx "downstream_rq_3xx" Counter,
        Rq4xx "downstream_rq_4xx" Counter,
        Rq5xx "downstream_rq_5xx" Counter,
        RqCompleted "downstream_rq_completed" Counter,
    }
}

impl ListenerHttpStat {
    pub fn of_class(status: http::StatusCode) -> Option<Self> {
        match status.as_u16() / 100 {
            1 => Some(Self::Rq1xx),
            2 => Some(Self::Rq2xx),
            3 => Some(Self::Rq3xx),
            4 => Some(Self::Rq4xx),
            5 => Some(Self::Rq5xx),
            _ => None,
        }
    }
}
