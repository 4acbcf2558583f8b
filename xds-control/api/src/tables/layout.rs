//! The layout of the descriptor tables: what `build.rs` writes and what [`super`] reads. Compiled into both, so that the two
//! sides cannot disagree.
//!
//! Invariants: all integers are little endian; records have a fixed size; an offset into a section counts records for the
//! record sections and bytes for the string and rule sections.

/// One message: name offset u32, first field u32, first look-up entry u32, first oneof u32, name length u16, fields u16,
/// look-up entries u16, oneofs u8, well-known kind u8, flags u8, padding.
pub(crate) const MESSAGE_BYTES: usize = 28;
/// One field: number u32, name offset u32, JSON name offset u32, rules offset u32, type index u16, name length u8,
/// JSON name length u8, kind u8, flags u8, oneof u8, padding.
pub(crate) const FIELD_BYTES: usize = 24;
/// One look-up entry of a message, sorted by name: field index within the message times two, plus one for the JSON name.
pub(crate) const LOOKUP_BYTES: usize = 2;
/// One oneof: name offset u32, name length u8, required u8, padding.
pub(crate) const ONEOF_BYTES: usize = 8;
/// One enum: name offset u32, first value u32, name length u16, values u16.
pub(crate) const ENUM_BYTES: usize = 12;
/// One enum value: number i32, name offset u32, name length u16, padding. Sorted by number, the first declared one first.
pub(crate) const ENUM_VALUE_BYTES: usize = 12;

/// "Not a member of a oneof."
pub(crate) const NO_ONEOF: u8 = u8::MAX;

/// Flags of a message.
pub(crate) mod message_flag {
    /// Something in it, at any depth short of an Any, has a validation rule, and `(validate.disabled)` or `(validate.ignored)`
    /// does not switch its rules off.
    pub(crate) const CHECKED: u8 = 1;
}

/// Flags of a field.
pub(crate) mod field_flag {
    /// A list, maps included.
    pub(crate) const REPEATED: u8 = 1;
    /// The field's type is a map entry.
    pub(crate) const MAP: u8 = 2;
    /// Written packed.
    pub(crate) const PACKED: u8 = 4;
    /// Unset and zero differ: messages, oneof members, `optional` scalars.
    pub(crate) const PRESENCE: u8 = 8;
}

/// The declared type of a field. The numbers are those of `FieldDescriptorProto.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Double = 1,
    Float = 2,
    Int64 = 3,
    Uint64 = 4,
    Int32 = 5,
    Fixed64 = 6,
    Fixed32 = 7,
    Bool = 8,
    String = 9,
    Message = 11,
    Bytes = 12,
    Uint32 = 13,
    Enum = 14,
    Sfixed32 = 15,
    Sfixed64 = 16,
    Sint32 = 17,
    Sint64 = 18,
}

impl Kind {
    pub(crate) fn from_u8(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            11 => Kind::Message,
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => Kind::Enum,
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            _ => return None,
        })
    }
}

/// Messages that have a JSON form of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WellKnown {
    None = 0,
    Any = 1,
    Duration = 2,
    Timestamp = 3,
    FieldMask = 4,
    Struct = 5,
    Value = 6,
    ListValue = 7,
    Wrapper = 8,
}

impl WellKnown {
    pub(crate) fn from_u8(number: u8) -> WellKnown {
        match number {
            1 => WellKnown::Any,
            2 => WellKnown::Duration,
            3 => WellKnown::Timestamp,
            4 => WellKnown::FieldMask,
            5 => WellKnown::Struct,
            6 => WellKnown::Value,
            7 => WellKnown::ListValue,
            8 => WellKnown::Wrapper,
            _ => WellKnown::None,
        }
    }
}

/// Opcodes of the validation rules. A field's rules are a run of opcodes with their operands, ended by [`rule::END`].
/// Operands: `n` = 16-byte i128 (integers; durations and timestamps in nanoseconds), `f` = f64 bits, `u` = u64,
/// `s` = u16 length and bytes, `list` = u16 count and that many, `block` = u32 length and a run of opcodes of its own.
pub(crate) mod rule {
    pub(crate) const END: u8 = 0;
    /// Must be set.
    pub(crate) const REQUIRED: u8 = 1;
    /// The message's own fields are not checked.
    pub(crate) const SKIP: u8 = 2;
    /// The rules that follow hold only for a value that is not zero or empty.
    pub(crate) const IGNORE_EMPTY: u8 = 3;

    /// n
    pub(crate) const INT_CONST: u8 = 10;
    /// flags u8 ([`super::bound`]), n lower, n upper
    pub(crate) const INT_RANGE: u8 = 11;
    /// list of n
    pub(crate) const INT_IN: u8 = 12;
    /// list of n
    pub(crate) const INT_NOT_IN: u8 = 13;
    /// f
    pub(crate) const FLOAT_CONST: u8 = 14;
    /// flags u8, f lower, f upper
    pub(crate) const FLOAT_RANGE: u8 = 15;
    /// list of f
    pub(crate) const FLOAT_IN: u8 = 16;
    /// list of f
    pub(crate) const FLOAT_NOT_IN: u8 = 17;
    /// u8
    pub(crate) const BOOL_CONST: u8 = 18;
    /// The number must be one of the enum's.
    pub(crate) const ENUM_DEFINED_ONLY: u8 = 19;

    /// s
    pub(crate) const CONST: u8 = 30;
    /// u: Unicode characters
    pub(crate) const CHARS: u8 = 31;
    pub(crate) const MIN_CHARS: u8 = 32;
    pub(crate) const MAX_CHARS: u8 = 33;
    /// u
    pub(crate) const BYTES: u8 = 34;
    pub(crate) const MIN_BYTES: u8 = 35;
    pub(crate) const MAX_BYTES: u8 = 36;
    /// index u16 into the compiled patterns, s
    pub(crate) const PATTERN: u8 = 37;
    /// s
    pub(crate) const PREFIX: u8 = 38;
    pub(crate) const SUFFIX: u8 = 39;
    pub(crate) const CONTAINS: u8 = 40;
    pub(crate) const NOT_CONTAINS: u8 = 41;
    /// list of s
    pub(crate) const IN: u8 = 42;
    pub(crate) const NOT_IN: u8 = 43;
    /// format u8 ([`super::Format`])
    pub(crate) const FORMAT: u8 = 44;

    /// u
    pub(crate) const MIN_ITEMS: u8 = 50;
    pub(crate) const MAX_ITEMS: u8 = 51;
    pub(crate) const UNIQUE: u8 = 52;
    /// block
    pub(crate) const ITEMS: u8 = 53;
    /// u
    pub(crate) const MIN_PAIRS: u8 = 54;
    pub(crate) const MAX_PAIRS: u8 = 55;
    /// block
    pub(crate) const KEYS: u8 = 56;
    pub(crate) const VALUES: u8 = 57;

    /// list of s: type URLs
    pub(crate) const ANY_IN: u8 = 60;
    pub(crate) const ANY_NOT_IN: u8 = 61;
}

/// Flags of a range rule.
pub(crate) mod bound {
    pub(crate) const LOWER: u8 = 1;
    pub(crate) const LOWER_INCLUSIVE: u8 = 2;
    pub(crate) const UPPER: u8 = 4;
    pub(crate) const UPPER_INCLUSIVE: u8 = 8;
}

/// Textual forms that a string or bytes rule can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Format {
    Email = 1,
    Hostname = 2,
    Ip = 3,
    Ipv4 = 4,
    Ipv6 = 5,
    Uri = 6,
    UriRef = 7,
    Address = 8,
    Uuid = 9,
    HeaderName = 10,
    HeaderNameLoose = 11,
    HeaderValue = 12,
    HeaderValueLoose = 13,
}

impl Format {
    pub(crate) fn from_u8(number: u8) -> Option<Format> {
        Some(match number {
            1 => Format::Email,
            2 => Format::Hostname,
            3 => Format::Ip,
            4 => Format::Ipv4,
            5 => Format::Ipv6,
            6 => Format::Uri,
            7 => Format::UriRef,
            8 => Format::Address,
            9 => Format::Uuid,
            10 => Format::HeaderName,
            11 => Format::HeaderNameLoose,
            12 => Format::HeaderValue,
            13 => Format::HeaderValueLoose,
            _ => return None,
        })
    }
}
