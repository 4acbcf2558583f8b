//! The Mersenne Twister of 32 bits (Matsumoto and Nishimura, 1998), which bounded loads shuffle hosts by: for a mixed
//! fleet to agree, each proxy has to draw the same numbers.

pub(super) struct Mt19937 {
    state: [u32; WORDS],
    next: usize,
}

const WORDS: usize = 624;
const SHIFT: usize = 397;

impl Mt19937 {
    pub(super) fn new(seed: u32) -> Mt19937 {
        let mut state = [seed; WORDS];
        for at in 1..WORDS {
            let before = state[at - 1];
            state[at] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(at as u32);
        }
        Mt19937 { state, next: WORDS }
    }

    pub(super) fn draw(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Uniformly less than `bound`, which is at least 1.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        let bucket = (1_u64 << 32) / u64::from(bound);
        loop {
            let drawn = u64::from(self.draw()) / bucket;
            if drawn < u64::from(bound) {
                return drawn as u32;
            }
        }
    }

    fn twist(&mut self) {
        for at in 0..WORDS {
            let joined = (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % WORDS] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + SHIFT) % WORDS] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_thousandth_number_is_the_one_of_the_standard() {
        let mut random = Mt19937::new(5489);
        let drawn = (0..10_000).map(|_| random.draw()).last();
        assert_eq!(drawn, Some(4_123_659_995), "C++, [rand.predef]");
        assert!((0..1000).all(|_| random.below(7) < 7));
    }
}
