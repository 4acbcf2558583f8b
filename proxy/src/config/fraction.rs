//! `envoy.type.v3.FractionalPercent` and its runtime variant: how often something is done. There is no runtime to override a
//! share, so the default stands.

use weft_xds::pb::envoy::{
    config::core::v3::RuntimeFractionalPercent,
    r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
};

use crate::config::field::{self, Result, Within as _, required};

/// `numerator` of `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    pub numerator: u32,
    /// 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl Fraction {
    pub const ALWAYS: Fraction = Fraction { numerator: 100, denominator: 100 };
    pub const NEVER: Fraction = Fraction { numerator: 0, denominator: 100 };

    pub(crate) fn from_proto(message: FractionalPercent) -> Result<Self> {
        let FractionalPercent { numerator, denominator } = message;
        let denominator = match field::enumeration(denominator, "denominator")? {
            DenominatorType::Hundred => 100,
            DenominatorType::TenThousand => 10_000,
            DenominatorType::Million => 1_000_000,
        };
        Ok(Self { numerator, denominator })
    }

    pub(crate) fn from_runtime(message: RuntimeFractionalPercent) -> Result<Self> {
        let RuntimeFractionalPercent { default_value, runtime_key: _ } = message; // no runtime could hold the key
        Self::from_proto(required(default_value, "default_value")?).within("default_value")
    }

    /// Whether it is done this time. `random` is any number.
    pub fn includes(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }

    /// Draws only where the answer is open.
    pub fn draw(self, random: &mut fastrand::Rng) -> bool {
        self.numerator >= self.denominator || (self.numerator > 0 && self.includes(random.u64(..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_all_numbers_is_included() {
        let tenth = Fraction { numerator: 10, denominator: 100 };
        assert_eq!((0..1000).filter(|&random| tenth.includes(random)).count(), 100);
        let mut random = fastrand::Rng::with_seed(1);
        assert!((0..100).all(|_| Fraction::ALWAYS.draw(&mut random) && !Fraction::NEVER.draw(&mut random)));
        let drawn = (0..10_000).filter(|_| tenth.draw(&mut random)).count();
        assert!((900..1100).contains(&drawn), "{drawn}");
    }
}
