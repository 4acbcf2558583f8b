//! The groups of cells and their names. A name is what stands behind `envoy_<group>_` in Prometheus text.

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
    /// `envoy_cluster_*`, label `envoy_cluster_name`.
    ClusterStat {
        CxTotal "upstream_cx_total" Counter,
        CxActive "upstream_cx_active" Gauge,
        CxHttp1Total "upstream_cx_http1_total" Counter,
        CxHttp2Total "upstream_cx_http2_total" Counter,
        CxConnectFail "upstream_cx_connect_fail" Counter,
        CxConnectTimeout "upstream_cx_connect_timeout" Counter,
        CxConnectAttemptsExceeded "upstream_cx_connect_attempts_exceeded" Counter,
        CxOverflow "upstream_cx_overflow" Counter,
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
        RqTimeout "upstream_rq_timeout" Counter,
        RqPerTryTimeout "upstream_rq_per_try_timeout" Counter,
        RqPerTryIdleTimeout "upstream_rq_per_try_idle_timeout" Counter,
        RqRxReset "upstream_rq_rx_reset" Counter,
        RqTxReset "upstream_rq_tx_reset" Counter,
        RqRetry "upstream_rq_retry" Counter,
        RqRetryBackoffExponential "upstream_rq_retry_backoff_exponential" Counter,
        RqRetryBackoffRateLimited "upstream_rq_retry_backoff_ratelimited" Counter,
        RqRetrySuccess "upstream_rq_retry_success" Counter,
        RqRetryOverflow "upstream_rq_retry_overflow" Counter,
        RqRetryLimitExceeded "upstream_rq_retry_limit_exceeded" Counter,
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
    /// `envoy_http_*`, label `envoy_http_conn_manager_prefix`.
    HttpStat {
        CxTotal "downstream_cx_total" Counter,
        CxActive "downstream_cx_active" Gauge,
        CxHttp1Total "downstream_cx_http1_total" Counter,
        CxHttp1Active "downstream_cx_http1_active" Gauge,
        CxHttp2Total "downstream_cx_http2_total" Counter,
        CxHttp2Active "downstream_cx_http2_active" Gauge,
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
        CorsOriginValid "cors_origin_valid" Counter,
        CorsOriginInvalid "cors_origin_invalid" Counter,
        FaultDelaysInjected "fault_delays_injected" Counter,
        FaultAbortsInjected "fault_aborts_injected" Counter,
        FaultResponseRateLimitInjected "fault_response_rl_injected" Counter,
        FaultOverflow "fault_faults_overflow" Counter,
        FaultActive "fault_active_faults" Gauge,
    }
}

group! {
    /// `envoy_http2_*` of all downstream connections, and `envoy_cluster_http2_*`.
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
    /// `envoy_tcp_*`, label `envoy_tcp_prefix`.
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
    /// `envoy_listener_*`, label `envoy_listener_address`.
    ListenerStat {
        CxTotal "downstream_cx_total" Counter,
        CxActive "downstream_cx_active" Gauge,
        CxDestroy "downstream_cx_destroy" Counter,
        CxTransportSocketConnectTimeout "downstream_cx_transport_socket_connect_timeout" Counter,
        PreCxActive "downstream_pre_cx_active" Gauge,
        PreCxTimeout "downstream_pre_cx_timeout" Counter,
        ListenerFilterRemoteClose "downstream_listener_filter_remote_close" Counter,
        ListenerFilterError "downstream_listener_filter_error" Counter,
        NoFilterChainMatch "no_filter_chain_match" Counter,
        TlsHandshake "ssl_handshake" Counter,
        TlsConnectionError "ssl_connection_error" Counter,
        TlsSessionReused "ssl_session_reused" Counter,
        TlsNoCertificate "ssl_no_certificate" Counter,
        TlsFailVerifyNoCertificate "ssl_fail_verify_no_cert" Counter,
        TlsFailVerifyError "ssl_fail_verify_error" Counter,
        TlsFailVerifyName "ssl_fail_verify_san" Counter,
        TlsFailVerifyHash "ssl_fail_verify_cert_hash" Counter,
    }
}

group! {
    /// `envoy_tls_inspector_*`, without labels.
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
    /// `envoy_http_inspector_*`, without labels.
    HttpInspectorStat {
        Http10Found "http10_found" Counter,
        Http11Found "http11_found" Counter,
        Http2Found "http2_found" Counter,
        NotFound "http_not_found" Counter,
    }
}

group! {
    /// `envoy_proxy_proto_*`, label `envoy_proxy_protocol_prefix` where there is a prefix. The versions' cells are written out
    /// with a label of their own.
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
    /// `envoy_listener_local_ratelimit_*`, label `envoy_local_listener_ratelimit_prefix`; `envoy_local_rate_limit_*`, label
    /// `envoy_local_network_ratelimit_prefix`.
    RateLimitStat {
        RateLimited "rate_limited" Counter,
    }
}

group! {
    /// `envoy_connection_limit_*`, label `envoy_connection_limit_prefix`.
    ConnectionLimitStat {
        LimitedConnections "limited_connections" Counter,
        ActiveConnections "active_connections" Gauge,
    }
}

group! {
    /// `envoy_server_*` and the managers', without labels. Written by the main thread.
    ServerStat {
        ListenersAdded "listener_manager_listener_added" Counter,
        ListenersModified "listener_manager_listener_modified" Counter,
        ListenersRemoved "listener_manager_listener_removed" Counter,
        ListenerCreateFailure "listener_manager_listener_create_failure" Counter,
    }
}
