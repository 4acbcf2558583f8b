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
        cases: &[
            "buffer: too large",
            "web: bad base64",
            "web: cut base64",
            "duration: while the request comes",
            "path: escaped zero",
            "slashes: not redirected for grpc",
            "slashes: refused",
            "slashes: refused backslash",
            "strict: bad retries",
            "strict: bad timeout",
            "strict: condition of grpc",
            "strict: negative timeout of a try",
            "strict: unknown condition",
            "strict: unknown condition of grpc",
            "underscores: refused",
        ],
        extent: Extent::Facts,
        ours: &[("header connection", "absent")],
        reason: "what the request asked for was refused, not how it was framed, so the connection can go on",
    },
    Difference {
        cases: &["headers: of a direct response"],
        extent: Extent::Facts,
        ours: &[("header x-place", "table 200")],
        reason: "the status of a local reply is known when its headers are written",
    },
    Difference {
        cases: &["headers: of a local reply"],
        extent: Extent::Facts,
        ours: &[("header x-place", "table 503")],
        reason: "the status of a local reply is known when its headers are written",
    },
    Difference {
        cases: &["reply: empty"],
        extent: Extent::Facts,
        ours: &[("header content-length", "absent"), ("header content-type", "absent"), ("log bytes sent", "0")],
        reason: "204 has no body (RFC 9110 section 15.3.5), so none is described or counted",
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
        cases: &["options", "cors: preflight of another origin"],
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
        extent: Extent::Facts,
        ours: &[
            ("body", ""),
            ("header content-length", "0"),
            ("header content-type", "absent"),
            ("header date", "absent"),
            ("header server", "absent"),
        ],
        reason: "the refusal is the codec's own and bare",
    },
    Difference {
        cases: &["nobody listens to a post", "h2 grpc to nobody"],
        extent: Extent::Facts,
        ours: &[("log bytes received", "0")],
        reason: "ours has not read a body that it could send nowhere",
    },
];
