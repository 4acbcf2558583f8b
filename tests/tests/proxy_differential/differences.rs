//! Where weft-proxy differs from Envoy, each with the reason. Everything that is not here has to be the same.
//!
//! An entry that does not hold any more, because ours says something else or the same as Envoy, fails the comparison, too:
//! the table is true or the tests are red. Cases of HTTP/2 are named with `h2` in front.

use weft_tests::facts::{Difference, Extent};

/// The entries about a case.
pub(crate) fn of(case: &str) -> Vec<&'static Difference> {
    DIFFERENCES.iter().filter(|difference| difference.cases.contains(&case)).collect()
}

const DIFFERENCES: &[Difference] = &[];
