//! The opcodes of `tables::layout::rule`, decoded one by one.

use crate::tables::layout::{Format, rule};

/// One validation rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    Required,
    Skip,
    IgnoreEmpty,
    IntConst(i128),
    IntRange { bounds: u8, lower: i128, upper: i128 },
    IntIn(Ints),
    IntNotIn(Ints),
    FloatConst(f64),
    FloatRange { bounds: u8, lower: f64, upper: f64 },
    FloatIn(Floats),
    FloatNotIn(Floats),
    BoolConst(bool),
    EnumDefinedOnly,
    Const(&'static [u8]),
    Chars(u64),
    MinChars(u64),
    MaxChars(u64),
    Bytes(u64),
    MinBytes(u64),
    MaxBytes(u64),
    Pattern { number: u16, text: &'static [u8] },
    Prefix(&'static [u8]),
    Suffix(&'static [u8]),
    Contains(&'static [u8]),
    NotContains(&'static [u8]),
    In(Texts),
    NotIn(Texts),
    Format(Format),
    MinItems(u64),
    MaxItems(u64),
    Unique,
    Items(Rules),
    MinPairs(u64),
    MaxPairs(u64),
    Keys(Rules),
    Values(Rules),
    AnyIn(Texts),
    AnyNotIn(Texts),
}

/// The rules of a field, or of a list's items or a map's keys or values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    code: &'static [u8],
}

impl Rules {
    pub(super) const NONE: Rules = Rules { code: &[rule::END] };

    pub(super) fn new(code: &'static [u8]) -> Rules {
        Rules { code }
    }

    /// Whether one of the rules is [`Rule::Required`].
    pub(super) fn require(self) -> bool {
        self.into_iter().any(|rule| matches!(rule, Rule::Required))
    }

    /// Whether one of the rules is [`Rule::Skip`].
    pub(super) fn skip(self) -> bool {
        self.into_iter().any(|rule| matches!(rule, Rule::Skip))
    }
}

impl IntoIterator for Rules {
    type Item = Rule;
    type IntoIter = Decoder;

    fn into_iter(self) -> Decoder {
        Decoder { code: self.code }
    }
}

pub(super) struct Decoder {
    code: &'static [u8],
}

impl Iterator for Decoder {
    type Item = Rule;

    fn next(&mut self) -> Option<Rule> {
        let opcode = self.byte();
        Some(match opcode {
            rule::END => {
                self.code = &[rule::END];
                return None;
            }
            rule::REQUIRED => Rule::Required,
            rule::SKIP => Rule::Skip,
            rule::IGNORE_EMPTY => Rule::IgnoreEmpty,
            rule::INT_CONST => Rule::IntConst(self.int()),
            rule::INT_RANGE => Rule::IntRange { bounds: self.byte(), lower: self.int(), upper: self.int() },
            rule::INT_IN => Rule::IntIn(self.ints()),
            rule::INT_NOT_IN => Rule::IntNotIn(self.ints()),
            rule::FLOAT_CONST => Rule::FloatConst(self.float()),
            rule::FLOAT_RANGE => Rule::FloatRange { bounds: self.byte(), lower: self.float(), upper: self.float() },
            rule::FLOAT_IN => Rule::FloatIn(self.floats()),
            rule::FLOAT_NOT_IN => Rule::FloatNotIn(self.floats()),
            rule::BOOL_CONST => Rule::BoolConst(self.byte() != 0),
            rule::ENUM_DEFINED_ONLY => Rule::EnumDefinedOnly,
            rule::CONST => Rule::Const(self.text()),
            rule::CHARS => Rule::Chars(self.count()),
            rule::MIN_CHARS => Rule::MinChars(self.count()),
            rule::MAX_CHARS => Rule::MaxChars(self.count()),
            rule::BYTES => Rule::Bytes(self.count()),
            rule::MIN_BYTES => Rule::MinBytes(self.count()),
            rule::MAX_BYTES => Rule::MaxBytes(self.count()),
            rule::PATTERN => Rule::Pattern { number: u16::from_le_bytes(self.array()), text: self.text() },
            rule::PREFIX => Rule::Prefix(self.text()),
            rule::SUFFIX => Rule::Suffix(self.text()),
            rule::CONTAINS => Rule::Contains(self.text()),
            rule::NOT_CONTAINS => Rule::NotContains(self.text()),
            rule::IN => Rule::In(self.texts()),
            rule::NOT_IN => Rule::NotIn(self.texts()),
            rule::FORMAT => {
                Rule::Format(Format::from_u8(self.byte()).expect("build.rs writes the formats that Format has"))
            }
            rule::MIN_ITEMS => Rule::MinItems(self.count()),
            rule::MAX_ITEMS => Rule::MaxItems(self.count()),
            rule::UNIQUE => Rule::Unique,
            rule::ITEMS => Rule::Items(self.block()),
            rule::MIN_PAIRS => Rule::MinPairs(self.count()),
            rule::MAX_PAIRS => Rule::MaxPairs(self.count()),
            rule::KEYS => Rule::Keys(self.block()),
            rule::VALUES => Rule::Values(self.block()),
            rule::ANY_IN => Rule::AnyIn(self.texts()),
            rule::ANY_NOT_IN => Rule::AnyNotIn(self.texts()),
            other => unreachable!("build.rs writes no opcode {other}"),
        })
    }
}

impl Decoder {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (value, rest) = self.code.split_first_chunk().expect("build.rs writes complete operands");
        self.code = rest;
        *value
    }

    fn slice(&mut self, bytes: usize) -> &'static [u8] {
        let (value, rest) = self.code.split_at(bytes);
        self.code = rest;
        value
    }

    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn int(&mut self) -> i128 {
        i128::from_le_bytes(self.array())
    }

    fn float(&mut self) -> f64 {
        f64::from_bits(u64::from_le_bytes(self.array()))
    }

    fn count(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn text(&mut self) -> &'static [u8] {
        let bytes = usize::from(u16::from_le_bytes(self.array()));
        self.slice(bytes)
    }

    fn block(&mut self) -> Rules {
        let bytes = u32::from_le_bytes(self.array());
        Rules { code: self.slice(bytes as usize) }
    }

    fn ints(&mut self) -> Ints {
        let count = usize::from(u16::from_le_bytes(self.array()));
        Ints { code: self.slice(count * 16) }
    }

    fn floats(&mut self) -> Floats {
        let count = usize::from(u16::from_le_bytes(self.array()));
        Floats { code: self.slice(count * 8) }
    }

    fn texts(&mut self) -> Texts {
        let count = u16::from_le_bytes(self.array());
        let list = Texts { code: self.code, count };
        for _ in 0..count {
            self.text();
        }
        list
    }
}

/// The integers of an `in` or `not_in` rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ints {
    code: &'static [u8],
}

impl Ints {
    pub(super) fn iter(self) -> impl Iterator<Item = i128> {
        self.code.as_chunks::<16>().0.iter().map(|bytes| i128::from_le_bytes(*bytes))
    }
}

/// The floating point numbers of an `in` or `not_in` rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floats {
    code: &'static [u8],
}

impl Floats {
    pub(super) fn iter(self) -> impl Iterator<Item = f64> {
        self.code.as_chunks::<8>().0.iter().map(|bytes| f64::from_bits(u64::from_le_bytes(*bytes)))
    }
}

/// The strings or bytes of an `in` or `not_in` rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts {
    code: &'static [u8],
    count: u16,
}

impl Texts {
    pub(super) fn iter(self) -> impl Iterator<Item = &'static [u8]> {
        let mut decoder = Decoder { code: self.code };
        (0..self.count).map(move |_| decoder.text())
    }
}
