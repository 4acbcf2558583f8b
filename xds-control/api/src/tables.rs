//! The descriptors of every message that Envoy's API has, as `build.rs` laid them out: read in place, with no start-up
//! work and no heap, so that a process pays for the pages that it touches only.
//!
//! [`Message`], [`Field`], [`Oneof`] and [`Enum`] are numbers of records. They come from the tables alone, so a look-up by them
//! cannot fail; only look-ups by a name or number from outside return an Option.

pub(crate) mod layout;

use layout::{
    ENUM_BYTES, ENUM_VALUE_BYTES, FIELD_BYTES, Kind, LOOKUP_BYTES, MESSAGE_BYTES, NO_ONEOF, ONEOF_BYTES, WellKnown,
    field_flag, message_flag,
};

macro_rules! section {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

static NAMES: &str = include_str!(concat!(env!("OUT_DIR"), "/names.txt"));
static MESSAGES: &[u8] = section!("messages.bin");
static FIELDS: &[u8] = section!("fields.bin");
static LOOKUP: &[u8] = section!("lookup.bin");
static ONEOFS: &[u8] = section!("oneofs.bin");
static ENUMS: &[u8] = section!("enums.bin");
static ENUM_VALUES: &[u8] = section!("enum_values.bin");
static RULES: &[u8] = section!("rules.bin");

/// How many regular expressions the rules have.
pub(crate) const PATTERNS: usize = include!(concat!(env!("OUT_DIR"), "/patterns.rs"));

/// A message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message(u16);

/// A field of a message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field(u32);

/// A oneof of a message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oneof(u32);

/// An enum type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enum(u16);

impl Message {
    /// The message of this full name, such as `envoy.config.core.v3.Address`.
    pub(crate) fn by_name(full_name: &str) -> Option<Message> {
        let (mut low, mut high) = (0, MESSAGES.len() / MESSAGE_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            let message = Message(u16::try_from(middle).ok()?);
            match message.full_name().cmp(full_name) {
                std::cmp::Ordering::Equal => return Some(message),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Every message of the tables, sorted by name.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Message> {
        (0..MESSAGES.len() / MESSAGE_BYTES)
            .map(|number| Message(u16::try_from(number).expect("build.rs numbers messages in 16 bits")))
    }

    fn at(self) -> usize {
        usize::from(self.0) * MESSAGE_BYTES
    }

    pub(crate) fn full_name(self) -> &'static str {
        name(u32_at(MESSAGES, self.at()), usize::from(u16_at(MESSAGES, self.at() + 16)))
    }

    /// The fields by number.
    pub(crate) fn fields(self) -> impl Iterator<Item = Field> + Clone {
        let first = u32_at(MESSAGES, self.at() + 4);
        (first..first + self.field_count()).map(Field)
    }

    fn field_count(self) -> u32 {
        u32::from(u16_at(MESSAGES, self.at() + 18))
    }

    /// The field with this number.
    pub(crate) fn field(self, number: u32) -> Option<Field> {
        let first = u32_at(MESSAGES, self.at() + 4);
        // Most messages number their fields 1, 2, 3 ... without a gap.
        if (1..=self.field_count()).contains(&number) {
            let guess = Field(first + number - 1);
            if guess.number() == number {
                return Some(guess);
            }
        }
        let (mut low, mut high) = (first, first + self.field_count());
        while low < high {
            let middle = low + (high - low) / 2;
            match Field(middle).number().cmp(&number) {
                std::cmp::Ordering::Equal => return Some(Field(middle)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The field with this proto or JSON name.
    pub(crate) fn field_by_name(self, wanted: &str) -> Option<Field> {
        let first = u32_at(MESSAGES, self.at() + 4);
        let entries = u32_at(MESSAGES, self.at() + 8);
        let (mut low, mut high) = (entries, entries + u32::from(u16_at(MESSAGES, self.at() + 20)));
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = u16_at(LOOKUP, middle as usize * LOOKUP_BYTES);
            let field = Field(first + u32::from(entry / 2));
            let name = if entry.is_multiple_of(2) { field.name() } else { field.json_name() };
            match name.cmp(wanted) {
                std::cmp::Ordering::Equal => return Some(field),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The real oneofs, not those that stand for `optional`.
    pub(crate) fn oneofs(self) -> impl Iterator<Item = Oneof> {
        let first = u32_at(MESSAGES, self.at() + 12);
        (first..first + u32::from(MESSAGES[self.at() + 22])).map(Oneof)
    }

    pub(crate) fn well_known(self) -> WellKnown {
        WellKnown::from_u8(MESSAGES[self.at() + 23])
    }

    fn has(self, flag: u8) -> bool {
        MESSAGES[self.at() + 24] & flag != 0
    }

    /// Whether validation can find anything in it, at any depth short of an Any.
    pub(crate) fn is_checked(self) -> bool {
        self.has(message_flag::CHECKED)
    }
}

impl Field {
    fn at(self) -> usize {
        self.0 as usize * FIELD_BYTES
    }

    pub(crate) fn number(self) -> u32 {
        u32_at(FIELDS, self.at())
    }

    /// The name in the .proto file: snake_case.
    pub(crate) fn name(self) -> &'static str {
        name(u32_at(FIELDS, self.at() + 4), usize::from(FIELDS[self.at() + 18]))
    }

    /// The name in JSON: lowerCamelCase.
    pub(crate) fn json_name(self) -> &'static str {
        name(u32_at(FIELDS, self.at() + 8), usize::from(FIELDS[self.at() + 19]))
    }

    pub(crate) fn kind(self) -> Kind {
        Kind::from_u8(FIELDS[self.at() + 20]).expect("build.rs writes the kinds that Kind has")
    }

    fn has(self, flag: u8) -> bool {
        FIELDS[self.at() + 21] & flag != 0
    }

    pub(crate) fn is_repeated(self) -> bool {
        self.has(field_flag::REPEATED)
    }

    pub(crate) fn is_map(self) -> bool {
        self.has(field_flag::MAP)
    }

    pub(crate) fn is_packed(self) -> bool {
        self.has(field_flag::PACKED)
    }

    /// Whether unset and zero differ.
    pub(crate) fn has_presence(self) -> bool {
        self.has(field_flag::PRESENCE)
    }

    /// The oneof that it is a member of.
    pub(crate) fn oneof(self, message: Message) -> Option<Oneof> {
        match FIELDS[self.at() + 22] {
            NO_ONEOF => None,
            local => Some(Oneof(u32_at(MESSAGES, message.at() + 12) + u32::from(local))),
        }
    }

    /// The message type of a field of [`Kind::Message`].
    pub(crate) fn message(self) -> Message {
        debug_assert_eq!(self.kind(), Kind::Message);
        Message(u16_at(FIELDS, self.at() + 16))
    }

    /// The enum type of a field of [`Kind::Enum`].
    pub(crate) fn enumeration(self) -> Enum {
        debug_assert_eq!(self.kind(), Kind::Enum);
        Enum(u16_at(FIELDS, self.at() + 16))
    }

    /// The key and value fields of a map.
    pub(crate) fn map_entry(self) -> (Field, Field) {
        debug_assert!(self.is_map());
        let first = u32_at(MESSAGES, self.message().at() + 4);
        (Field(first), Field(first + 1))
    }

    /// The opcodes of its validation rules ([`layout::rule`]).
    pub(crate) fn rules(self) -> Option<&'static [u8]> {
        match u32_at(FIELDS, self.at() + 12) {
            0 => None,
            offset => Some(&RULES[offset as usize..]),
        }
    }
}

impl Oneof {
    fn at(self) -> usize {
        self.0 as usize * ONEOF_BYTES
    }

    pub(crate) fn name(self) -> &'static str {
        name(u32_at(ONEOFS, self.at()), usize::from(ONEOFS[self.at() + 4]))
    }

    /// Whether validation wants one of its members.
    pub(crate) fn is_required(self) -> bool {
        ONEOFS[self.at() + 5] != 0
    }
}

impl Enum {
    fn at(self) -> usize {
        usize::from(self.0) * ENUM_BYTES
    }

    pub(crate) fn full_name(self) -> &'static str {
        name(u32_at(ENUMS, self.at()), usize::from(u16_at(ENUMS, self.at() + 8)))
    }

    /// Numbers and names, sorted by number; of two names for one number the first declared one comes first.
    pub(crate) fn values(self) -> impl Iterator<Item = (i32, &'static str)> + Clone {
        let first = u32_at(ENUMS, self.at() + 4) as usize;
        (first..first + usize::from(u16_at(ENUMS, self.at() + 10))).map(|value| {
            let at = value * ENUM_VALUE_BYTES;
            let number = i32::from_le_bytes(array(ENUM_VALUES, at));
            (number, name(u32_at(ENUM_VALUES, at + 4), usize::from(u16_at(ENUM_VALUES, at + 8))))
        })
    }

    pub(crate) fn number_of(self, wanted: &str) -> Option<i32> {
        self.values().find(|(_, name)| *name == wanted).map(|(number, _)| number)
    }

    pub(crate) fn name_of(self, wanted: i32) -> Option<&'static str> {
        self.values().find(|(number, _)| *number == wanted).map(|(_, name)| name)
    }

    /// Whether it is protobuf's `NullValue`, which JSON writes as null.
    pub(crate) fn is_null_value(self) -> bool {
        self.full_name() == "google.protobuf.NullValue"
    }
}

fn name(offset: u32, bytes: usize) -> &'static str {
    &NAMES[offset as usize..offset as usize + bytes]
}

fn u32_at(section: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(section, at))
}

fn u16_at(section: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(section, at))
}

fn array<const N: usize>(section: &[u8], at: usize) -> [u8; N] {
    *section[at..].first_chunk().expect("records lie within their section")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use prost::Name;

    #[test]
    fn every_message_is_found_by_its_name() {
        let mut count = 0;
        for message in Message::all() {
            assert_eq!(Message::by_name(message.full_name()), Some(message));
            count += 1;
        }
        assert!(count > 1500, "{count}");
        for name in ["", "a", "envoy.config.cluster.v3.Clustee", "zzz"] {
            assert_eq!(Message::by_name(name), None);
        }
    }

    #[test]
    fn every_field_is_found_by_number_and_by_both_names() {
        for message in Message::all() {
            let mut before = 0;
            for field in message.fields() {
                assert!(field.number() > before, "{} is not sorted", message.full_name());
                before = field.number();
                assert_eq!(message.field(field.number()), Some(field));
                assert_eq!(message.field_by_name(field.name()), Some(field));
                assert_eq!(message.field_by_name(field.json_name()), Some(field));
            }
            assert_eq!(message.field(before + 1), None);
            assert_eq!(message.field_by_name("no such field"), None);
        }
    }

    #[test]
    fn a_known_message_is_as_its_proto_says() {
        let cluster = Message::by_name("envoy.config.cluster.v3.Cluster").unwrap();
        let field = cluster.field_by_name("perConnectionBufferLimitBytes").unwrap();
        assert_eq!((field.number(), field.name()), (5, "per_connection_buffer_limit_bytes"));
        assert_eq!(field.message().well_known(), WellKnown::Wrapper);
        let discovery_type = cluster.field_by_name("type").unwrap();
        assert_eq!(discovery_type.oneof(cluster).unwrap().name(), "cluster_discovery_type");
        assert_eq!(discovery_type.enumeration().number_of("EDS"), Some(3));
        assert_eq!(discovery_type.enumeration().name_of(3), Some("EDS"));
        assert!(cluster.is_checked());
        let options = cluster.field_by_name("typed_extension_protocol_options").unwrap();
        assert!(options.is_map());
        let (key, value) = options.map_entry();
        assert_eq!((key.kind(), value.message().full_name()), (Kind::String, "google.protobuf.Any"));
    }

    #[test]
    fn oneofs_that_stand_for_optional_are_none() {
        for message in Message::all() {
            assert!(message.oneofs().all(|oneof| !oneof.name().starts_with('_')), "{}", message.full_name());
        }
    }

    /// The typed messages and the tables come from one descriptor set, and prost's name for a type is the table's.
    #[test]
    fn the_typed_messages_are_in_the_tables() {
        fn known<T: Name>() {
            assert_eq!(Message::by_name(&T::full_name()).map(Message::full_name), Some(T::full_name().as_str()));
            assert_eq!(T::type_url(), crate::type_url::of::<T>());
        }
        known::<pb::envoy::config::bootstrap::v3::Bootstrap>();
        known::<pb::envoy::config::cluster::v3::cluster::RingHashLbConfig>();
        known::<pb::envoy::config::cluster::v3::Cluster>();
        known::<pb::envoy::config::core::v3::Node>();
        known::<pb::envoy::config::endpoint::v3::ClusterLoadAssignment>();
        known::<pb::envoy::config::listener::v3::Listener>();
        known::<pb::envoy::config::rbac::v3::Rbac>();
        known::<pb::envoy::config::route::v3::route_match::ConnectMatcher>();
        known::<pb::envoy::config::route::v3::RouteConfiguration>();
        known::<pb::envoy::admin::v3::ConfigDump>();
        known::<pb::envoy::admin::v3::ServerInfo>();
        known::<pb::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication>();
        known::<pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager>();
        known::<pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy>();
        known::<pb::envoy::extensions::transport_sockets::tls::v3::Secret>();
        known::<pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions>();
        known::<pb::envoy::r#type::matcher::v3::StringMatcher>();
        known::<pb::envoy::service::discovery::v3::DeltaDiscoveryResponse>();
        known::<pb::envoy::service::discovery::v3::DiscoveryRequest>();
        known::<pb::envoy::service::runtime::v3::Runtime>();
        known::<pb::envoy::service::status::v3::ClientConfig>();
        known::<pb::google::protobuf::Any>();
        known::<pb::google::protobuf::Struct>();
        known::<pb::google::rpc::Status>();
        known::<pb::io::prometheus::client::MetricFamily>();
        known::<pb::opentelemetry::proto::common::v1::AnyValue>();
        known::<pb::cel::expr::ParsedExpr>();
        known::<pb::xds::core::v3::ResourceLocator>();
        known::<pb::xds::r#type::matcher::v3::Matcher>();
    }
}
