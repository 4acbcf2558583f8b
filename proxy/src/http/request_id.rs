//! `x-request-id`: a random UUID (RFC 9562 section 5.4).

use http::HeaderValue;

pub fn generate(random: &mut fastrand::Rng) -> HeaderValue {
    let mut bits = random.u128(..);
    bits = (bits & !(0xf << 76)) | (4 << 76); // version 4
    bits = (bits & !(0b11 << 62)) | (0b10 << 62); // variant 10
    let mut text = [b'-'; 36];
    for (at, byte) in PLACES.into_iter().zip(bits.to_be_bytes()) {
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 0xf)];
    }
    let mut value = HeaderValue::from_bytes(&text).expect("hex digits and dashes");
    // Never the same twice: kept out of HPACK's dynamic table, which it would only churn.
    value.set_sensitive(true);
    value
}

const DIGITS: [u8; 16] = *b"0123456789abcdef";
/// Where each byte stands in the text.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_version_4_uuid_and_none_is_like_another() {
        let mut random = fastrand::Rng::with_seed(3);
        let ids: Vec<String> = (0..100).map(|_| generate(&mut random).to_str().expect("ASCII").to_owned()).collect();
        let form = regex::Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$");
        let form = form.expect("a regex");
        assert!(ids.iter().all(|id| form.is_match(id)), "{ids:?}");
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 100);
    }
}
