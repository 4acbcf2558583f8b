//! Where weft-proxy differs from Envoy, each with the reason. Everything that is not here has to be the same, and what ours says
//! instead is held to, too.
//!
//! [`WANTED`] is on purpose, mostly because an RFC asks for it. [`DEFECTS`] are ours, known and to be mended: an entry
//! there keeps the rest of its case compared meanwhile.

use weft_tests::facts::{Difference, Extent};

/// The entries about a case.
pub(crate) fn of(case: &str) -> Vec<&'static Difference> {
    WANTED.iter().chain(DEFECTS).filter(|difference| difference.cases.contains(&case)).collect()
}

const WANTED: &[Difference] = &[
    Difference {
        cases: &[
            "NUL in a header",
            "bad chunk size",
            "folded header",
            "not http",
            "space before the colon",
            "two lengths",
            "unknown version",
        ],
        extent: Extent::Answer,
        ours: &[("outcome", "closed without an answer")],
        reason: "where a message ends is unclear, so nothing that follows on the connection means anything (RFC 9112 section 9.3)",
    },
    Difference {
        cases: &["negative length", "unknown transfer coding", "two hosts"],
        extent: Extent::Answer,
        ours: &[("status", "400")],
        reason: "RFC 9112 sections 3.2 and 6.3 ask for a refusal, in which a body is of no use",
    },
    Difference {
        cases: &["length and chunks"],
        extent: Extent::Answer,
        ours: &[("status", "200"), ("afterwards", "closes")],
        reason: "chunks count, the length is dropped and the connection ends (RFC 9112 section 6.3)",
    },
    Difference {
        cases: &["http 1.0", "http 1.0 keep alive", "http 1.0 without a host"],
        extent: Extent::Answer,
        ours: &[("status", "426"), ("body", "")],
        reason: "the refusal is in the version that its reader speaks",
    },
    Difference {
        cases: &["curl with HTTP/1.0"],
        extent: Extent::Facts,
        ours: &[("curl says", "426 HTTP/1 "), ("body", "")],
        reason: "the refusal is in the version that its reader speaks",
    },
    Difference {
        cases: &["unknown method"],
        extent: Extent::Answer,
        ours: &[("status", "200"), ("application saw method", "\"BREW\"")],
        reason: "methods are extensible (RFC 9110 section 9.1), so what a method means is for the application to say",
    },
    Difference {
        cases: &["no host", "connect"],
        extent: Extent::Facts,
        ours: &[("afterwards", "takes another request"), ("header connection", "absent")],
        reason: "it is clear where the request ended, so the connection can go on",
    },
    Difference {
        cases: &["pipelined requests"],
        extent: Extent::Facts,
        ours: &[("statuses in order", "Ok([200, 503, 204])")],
        reason: "an answer of the proxy's own to one request is no reason to drop those behind it",
    },
    Difference {
        cases: &["post in chunks with trailers"],
        extent: Extent::Facts,
        ours: &[("application saw trailers x-t", "1")],
        reason: "trailers belong to the message (RFC 9110 section 6.5); Envoy drops those of HTTP/1 unless told otherwise",
    },
    Difference {
        cases: &["answer with trailers"],
        extent: Extent::Facts,
        ours: &[("trailer x-origin-trailer", "sent")],
        reason: "trailers belong to the message (RFC 9110 section 6.5); Envoy drops those of HTTP/1 unless told otherwise",
    },
    Difference {
        cases: &["options"],
        extent: Extent::Facts,
        ours: &[("application saw headers content-length", "absent")],
        reason: "a request without a body needs no length (RFC 9110 section 8.6)",
    },
    Difference {
        cases: &["odd status"],
        extent: Extent::Facts,
        ours: &[("reason", "<none>")],
        reason: "reason phrases mean nothing (RFC 9112 section 4)",
    },
    Difference {
        cases: &["teapot"],
        extent: Extent::Facts,
        ours: &[("reason", "I'm a teapot")],
        reason: "reason phrases mean nothing (RFC 9112 section 4)",
    },
];

const DEFECTS: &[Difference] = &[
    Difference {
        cases: &["headers of 100 KiB"],
        extent: Extent::Answer,
        ours: &[("outcome", "closed without an answer")],
        reason: "431 is not said yet",
    },
    Difference {
        cases: &["external envoy headers"],
        extent: Extent::Facts,
        ours: &[
            ("application saw headers x-envoy-max-retries", "1"),
            ("application saw headers x-envoy-upstream-rq-timeout-ms", "9000"),
        ],
        reason: "these are not removed from requests of external callers yet",
    },
    Difference {
        cases: &[
            "external: timeouts and retries are not passed on",
            "internal: timeouts and retries are not passed on",
        ],
        extent: Extent::Facts,
        ours: &[
            ("application saw headers x-envoy-max-retries", "1"),
            ("application saw headers x-envoy-upstream-rq-timeout-ms", "2000"),
        ],
        reason: "these are not removed from requests of external callers yet",
    },
    Difference {
        cases: &[
            "edge given forwarding headers",
            "edge given request id",
            "edge plain get",
            "external: timeouts and retries are not passed on",
            "internal: timeouts and retries are not passed on",
            "internal behind another proxy",
            "internal plain get",
        ],
        extent: Extent::Facts,
        ours: &[("application saw headers x-envoy-external-address", "absent")],
        reason: "the external address is not written yet",
    },
    Difference {
        cases: &["edge given request id", "edge plain get", "external: timeouts and retries are not passed on"],
        extent: Extent::Facts,
        ours: &[("application saw headers x-forwarded-for", "127.0.0.1")],
        reason: "for a caller on the loopback Envoy writes an address of the machine",
    },
    Difference {
        cases: &["edge given forwarding headers"],
        extent: Extent::Facts,
        ours: &[("application saw headers x-forwarded-for", "1.2.3.4,127.0.0.1")],
        reason: "for a caller on the loopback Envoy writes an address of the machine",
    },
    Difference {
        cases: &["h2 cookies in crumbs"],
        extent: Extent::Facts,
        ours: &[("application saw headers cookie", "a=1 | b=2")],
        reason: "crumbs are not joined yet for HTTP/1 (RFC 9113 section 8.2.3)",
    },
    Difference {
        cases: &["curl that offers an upgrade"],
        extent: Extent::Facts,
        ours: &[("curl says", "403 HTTP/1.1 "), ("body", "")],
        reason: "an offer of h2c is refused instead of overlooked (RFC 9110 section 7.8)",
    },
    Difference {
        cases: &["nobody listens", "h2 nobody listens", "h2 nobody listens to HTTP/2"],
        extent: Extent::Facts,
        ours: &[("body", CONNECTION_REFUSED), ("header content-length", "167"), ("log bytes sent", "167")],
        reason: "ours names the error that the system gave",
    },
    Difference {
        cases: &["nobody listens to a post"],
        extent: Extent::Facts,
        ours: &[
            ("body", CONNECTION_REFUSED),
            ("header content-length", "167"),
            ("log bytes sent", "167"),
            ("log bytes received", "0"),
        ],
        reason: "ours names the error that the system gave, and has not read a body that it could send nowhere",
    },
    Difference {
        cases: &["h2 grpc to nobody"],
        extent: Extent::Facts,
        ours: &[("header grpc-message", CONNECTION_REFUSED), ("log bytes received", "0")],
        reason: "ours names the error that the system gave, and has not read a body that it could send nowhere",
    },
    Difference {
        cases: &["head of a local answer"],
        extent: Extent::Facts,
        ours: &[("header content-length", "167")],
        reason: "ours names the error that the system gave",
    },
    Difference {
        cases: &["nobody, retried"],
        extent: Extent::Answer,
        ours: &[("status", "503"), ("log flags", "UF,URX")],
        reason: "ours names the error that the system gave",
    },
    Difference {
        cases: &[
            "no cluster",
            "no cluster for grpc",
            "virtual host without a route",
            "virtual host by suffix with a port",
            "h2 no cluster",
            "h2 no route",
            "h2 grpc without a cluster",
        ],
        extent: Extent::Facts,
        ours: &[
            ("log line", "missing"),
            ("log method", "absent"),
            ("log path", "absent"),
            ("log protocol", "absent"),
            ("log status", "absent"),
            ("log flags", "absent"),
            ("log bytes received", "absent"),
            ("log bytes sent", "absent"),
            ("log cluster", "absent"),
        ],
        reason: "the access log is not written yet where no route or no cluster was found",
    },
];

const CONNECTION_REFUSED: &str = "upstream connect error or disconnect/reset before headers. reset reason: remote connection \
     failure, transport failure reason: delayed connect error: Connection refused";
