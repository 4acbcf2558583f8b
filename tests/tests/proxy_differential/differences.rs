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
        cases: &["two hosts", "empty host"],
        extent: Extent::Answer,
        ours: &[("status", "400")],
        reason: "RFC 9112 section 3.2 and RFC 9110 section 4.2.1 ask for a refusal",
    },
    Difference {
        cases: &[
            "carriage return in a value",
            "chunk that ends in a line feed",
            "chunk that is longer than its size",
            "control character in an extension",
            "tabs for spaces",
            "a space at the end",
            "brackets in the path",
        ],
        extent: Extent::Answer,
        ours: &[("status", "400"), ("afterwards", "closes")],
        reason: "the grammar of RFC 9112 and RFC 3986: whoever reads on after this may read another message than the next hop",
    },
    Difference {
        cases: &["unasked-switch", "only-here"],
        extent: Extent::Answer,
        ours: &[("status", "502"), ("log flags", "UPE")],
        reason: "nobody switches protocols unasked (RFC 9110 section 15.2.2)",
    },
    Difference {
        cases: &["field-nominated"],
        extent: Extent::Facts,
        ours: &[("header x-a", "absent")],
        reason: "what `connection` names goes no further, in answers too (RFC 9110 section 7.6.1)",
    },
    Difference {
        cases: &["lenient: 199"],
        extent: Extent::Facts,
        ours: &[("interim", "[199]")],
        reason: "interim responses are passed on, whatever they mean (RFC 9110 section 15.2)",
    },
    Difference {
        cases: &["lenient: hints"],
        extent: Extent::Facts,
        ours: &[("interim", "[103, 103]")],
        reason: "each of them is passed on (RFC 9110 section 15.2)",
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
];

const DEFECTS: &[Difference] = &[
    Difference {
        cases: &[
            "announces less than it sends",
            "announces more than it sends",
            "closes within the body",
            "resets within the body",
            "sends a frame that is too large",
            "sends a status in trailers",
            "sends trailers that end nothing",
        ],
        extent: Extent::Facts,
        ours: &[("outcome", "closed without an answer")],
        reason: "the HTTP/1 codec drops a head that is not written yet when the body fails at once",
    },
    Difference {
        cases: &["nobody listens to a post", "h2 grpc to nobody"],
        extent: Extent::Facts,
        ours: &[("log bytes received", "0")],
        reason: "ours has not read a body that it could send nowhere",
    },
];
