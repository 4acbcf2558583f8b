//! Lays the descriptors out as the sections of `src/tables/layout.rs`.

use crate::layout::{
    ENUM_BYTES, ENUM_VALUE_BYTES, FIELD_BYTES, Kind, LOOKUP_BYTES, MESSAGE_BYTES, NO_ONEOF, ONEOF_BYTES, WellKnown,
    field_flag, message_flag, rule,
};
use crate::rules::{self, Patterns};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, FileDescriptor,
    MessageDescriptor,
};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;

/// The type index of a field that is neither a message nor an enum.
const NO_TYPE: u16 = u16::MAX;

#[derive(Default)]
pub(crate) struct Sections {
    names: Names,
    messages: Vec<u8>,
    fields: Vec<u8>,
    lookup: Vec<u8>,
    oneofs: Vec<u8>,
    enums: Vec<u8>,
    enum_values: Vec<u8>,
    rules: Vec<u8>,
    rules_seen: HashMap<Vec<u8>, u32>,
    patterns: Patterns,
}

/// Strings, each kept once.
#[derive(Default)]
struct Names {
    text: String,
    seen: HashMap<String, u32>,
}

impl Names {
    fn offset(&mut self, name: &str) -> Result<u32, Box<dyn Error>> {
        if let Some(offset) = self.seen.get(name) {
            return Ok(*offset);
        }
        let offset = u32::try_from(self.text.len())?;
        self.text.push_str(name);
        self.seen.insert(name.to_owned(), offset);
        Ok(offset)
    }
}

/// What the records refer to by number.
struct Index {
    messages: BTreeMap<String, (u16, MessageDescriptor)>,
    enums: BTreeMap<String, u16>,
    extensions: Extensions,
}

struct Extensions {
    rules: ExtensionDescriptor,
    required: ExtensionDescriptor,
    disabled: ExtensionDescriptor,
    ignored: ExtensionDescriptor,
}

impl Extensions {
    fn of(pool: &DescriptorPool) -> Result<Extensions, Box<dyn Error>> {
        let find = |name: &str| pool.get_extension_by_name(name).ok_or(format!("no extension {name}"));
        Ok(Extensions {
            rules: find("validate.rules")?,
            required: find("validate.required")?,
            disabled: find("validate.disabled")?,
            ignored: find("validate.ignored")?,
        })
    }

    fn says(&self, options: &DynamicMessage, extension: &ExtensionDescriptor) -> bool {
        options.has_extension(extension) && options.get_extension(extension).as_bool() == Some(true)
    }
}

impl Sections {
    pub(crate) fn of(pool: &DescriptorPool) -> Result<Sections, Box<dyn Error>> {
        // These two describe options of the API itself; no configuration holds them.
        let about_options = |file: &FileDescriptor| {
            matches!(file.name(), "google/protobuf/descriptor.proto" | "validate/validate.proto")
        };
        let messages: BTreeMap<String, MessageDescriptor> = pool
            .all_messages()
            .filter(|message| !about_options(&message.parent_file()))
            .map(|message| (message.full_name().to_owned(), message))
            .collect();
        let enums: BTreeMap<String, EnumDescriptor> = pool
            .all_enums()
            .filter(|descriptor| !about_options(&descriptor.parent_file()))
            .map(|descriptor| (descriptor.full_name().to_owned(), descriptor))
            .collect();
        let numbered =
            |count: usize| u16::try_from(count).ok().filter(|count| *count < NO_TYPE).ok_or("too many types for a u16");
        numbered(messages.len())?;
        numbered(enums.len())?;
        let index = Index {
            messages: messages
                .into_iter()
                .zip(0..)
                .map(|((name, message), number)| (name, (number, message)))
                .collect(),
            enums: enums.keys().cloned().zip(0..).collect(),
            extensions: Extensions::of(pool)?,
        };
        let mut sections = Sections::default();
        sections.rules.push(rule::END); // offset 0: no rules
        for descriptor in enums.values() {
            sections.add_enum(descriptor)?;
        }
        let traits = Traits::of(&index);
        for (number, message) in index.messages.values() {
            sections.add_message(message, &index, traits.flags[usize::from(*number)])?;
        }
        Ok(sections)
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes);
        write("names.txt", self.names.text.as_bytes())?;
        write("messages.bin", &self.messages)?;
        write("fields.bin", &self.fields)?;
        write("lookup.bin", &self.lookup)?;
        write("oneofs.bin", &self.oneofs)?;
        write("enums.bin", &self.enums)?;
        write("enum_values.bin", &self.enum_values)?;
        write("rules.bin", &self.rules)?;
        write("patterns.rs", self.patterns.count().to_string().as_bytes())?;
        Ok(())
    }

    fn add_enum(&mut self, descriptor: &EnumDescriptor) -> Result<(), Box<dyn Error>> {
        let mut values: Vec<_> = descriptor.values().collect();
        values.sort_by_key(prost_reflect::EnumValueDescriptor::number); // stable: aliases stay as declared
        self.enums.extend(self.names.offset(descriptor.full_name())?.to_le_bytes());
        self.enums.extend(records(&self.enum_values, ENUM_VALUE_BYTES)?.to_le_bytes());
        self.enums.extend(u16::try_from(descriptor.full_name().len())?.to_le_bytes());
        self.enums.extend(u16::try_from(values.len())?.to_le_bytes());
        for value in values {
            self.enum_values.extend(value.number().to_le_bytes());
            self.enum_values.extend(self.names.offset(value.name())?.to_le_bytes());
            self.enum_values.extend(u16::try_from(value.name().len())?.to_le_bytes());
            self.enum_values.extend([0, 0]);
        }
        debug_assert_eq!(self.enums.len() % ENUM_BYTES, 0);
        Ok(())
    }

    fn add_message(&mut self, message: &MessageDescriptor, index: &Index, flags: u8) -> Result<(), Box<dyn Error>> {
        let mut fields: Vec<FieldDescriptor> = message.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
        let mut lookup = BTreeMap::new();
        for (position, field) in (0u16..).zip(&fields) {
            lookup.insert(field.json_name().to_owned(), position * 2 + 1);
            lookup.insert(field.name().to_owned(), position * 2);
        }
        self.messages.extend(self.names.offset(message.full_name())?.to_le_bytes());
        self.messages.extend(records(&self.fields, FIELD_BYTES)?.to_le_bytes());
        self.messages.extend(records(&self.lookup, LOOKUP_BYTES)?.to_le_bytes());
        self.messages.extend(records(&self.oneofs, ONEOF_BYTES)?.to_le_bytes());
        self.messages.extend(u16::try_from(message.full_name().len())?.to_le_bytes());
        self.messages.extend(u16::try_from(fields.len())?.to_le_bytes());
        self.messages.extend(u16::try_from(lookup.len())?.to_le_bytes());
        self.messages.extend([u8::try_from(oneofs.len())?, well_known(message.full_name()) as u8, flags, 0, 0, 0]);
        debug_assert_eq!(self.messages.len() % MESSAGE_BYTES, 0);
        self.lookup.extend(lookup.values().flat_map(|entry| entry.to_le_bytes()));
        for oneof in &oneofs {
            let required = index.extensions.says(&oneof.options(), &index.extensions.required);
            self.oneofs.extend(self.names.offset(oneof.name())?.to_le_bytes());
            self.oneofs.extend([u8::try_from(oneof.name().len())?, u8::from(required), 0, 0]);
        }
        for field in &fields {
            let oneof = field
                .containing_oneof()
                .and_then(|oneof| oneofs.iter().position(|known| *known == oneof))
                .map_or(Ok(NO_ONEOF), u8::try_from)?;
            self.add_field(field, oneof, index).map_err(|error| format!("{}: {error}", field.full_name()))?;
        }
        Ok(())
    }

    fn add_field(&mut self, field: &FieldDescriptor, oneof: u8, index: &Index) -> Result<(), Box<dyn Error>> {
        let kind = kind(field)?;
        let type_index = match field.kind() {
            prost_reflect::Kind::Message(message) => {
                index.messages.get(message.full_name()).ok_or("its type is not in the tables")?.0
            }
            prost_reflect::Kind::Enum(descriptor) => {
                *index.enums.get(descriptor.full_name()).ok_or("its enum is not in the tables")?
            }
            _ => NO_TYPE,
        };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(field.is_list() || field.is_map(), field_flag::REPEATED)
            | flag(field.is_map(), field_flag::MAP)
            | flag(field.is_packed(), field_flag::PACKED)
            | flag(field.supports_presence(), field_flag::PRESENCE);
        let rules = self.add_rules(field, kind, index)?;
        self.fields.extend(field.number().to_le_bytes());
        self.fields.extend(self.names.offset(field.name())?.to_le_bytes());
        self.fields.extend(self.names.offset(field.json_name())?.to_le_bytes());
        self.fields.extend(rules.to_le_bytes());
        self.fields.extend(type_index.to_le_bytes());
        self.fields.extend([u8::try_from(field.name().len())?, u8::try_from(field.json_name().len())?]);
        self.fields.extend([kind as u8, flags, oneof, 0]);
        debug_assert_eq!(self.fields.len() % FIELD_BYTES, 0);
        Ok(())
    }

    /// The offset of the field's rules, 0 if it has none.
    fn add_rules(&mut self, field: &FieldDescriptor, kind: Kind, index: &Index) -> Result<u32, Box<dyn Error>> {
        let options = field.options();
        if !options.has_extension(&index.extensions.rules) {
            return Ok(0);
        }
        let value = options.get_extension(&index.extensions.rules);
        let rules = value.as_message().ok_or("validate.rules is no message")?;
        rules::check_fit(rules, field, kind)?;
        let mut code = rules::compile(rules, &mut self.patterns)?;
        if code.is_empty() {
            return Ok(0);
        }
        code.push(rule::END);
        if let Some(offset) = self.rules_seen.get(&code) {
            return Ok(*offset);
        }
        let offset = u32::try_from(self.rules.len())?;
        self.rules.extend(&code);
        self.rules_seen.insert(code, offset);
        Ok(offset)
    }
}

fn records(section: &[u8], record_bytes: usize) -> Result<u32, Box<dyn Error>> {
    Ok(u32::try_from(section.len() / record_bytes)?)
}

fn kind(field: &FieldDescriptor) -> Result<Kind, Box<dyn Error>> {
    let number = field.field_descriptor_proto().r#type() as i32;
    u8::try_from(number)
        .ok()
        .and_then(Kind::from_u8)
        .ok_or_else(|| format!("field type {number} is not supported").into())
}

/// The flags of every message, by its number.
struct Traits {
    flags: Vec<u8>,
}

impl Traits {
    fn of(index: &Index) -> Traits {
        let extensions = &index.extensions;
        let switched_off: Vec<bool> = index
            .messages
            .values()
            .map(|(_, message)| message.options())
            .map(|options| {
                extensions.says(&options, &extensions.disabled) || extensions.says(&options, &extensions.ignored)
            })
            .collect();
        let mut flags = vec![0; switched_off.len()];
        // CHECKED spreads from a message to those that contain it. Messages contain each other in cycles, so it spreads until
        // nothing changes; flags only ever grow.
        loop {
            let before = flags.clone();
            for (number, message) in index.messages.values() {
                let number = usize::from(*number);
                if !switched_off[number] && (has_rules(message, extensions) || holds_checked(message, index, &flags)) {
                    flags[number] |= message_flag::CHECKED;
                }
            }
            if flags == before {
                return Traits { flags };
            }
        }
    }
}

fn has_rules(message: &MessageDescriptor, extensions: &Extensions) -> bool {
    message.fields().any(|field| field.options().has_extension(&extensions.rules))
        || message.oneofs().any(|oneof| extensions.says(&oneof.options(), &extensions.required))
}

fn holds_checked(message: &MessageDescriptor, index: &Index, flags: &[u8]) -> bool {
    message
        .fields()
        .filter_map(|field| field.kind().as_message().and_then(|inner| index.messages.get(inner.full_name())))
        .any(|(inner, _)| flags[usize::from(*inner)] & message_flag::CHECKED != 0)
}

/// Which of the messages have a JSON form of their own.
fn well_known(full_name: &str) -> WellKnown {
    match full_name.strip_prefix("google.protobuf.") {
        Some("Any") => WellKnown::Any,
        Some("Duration") => WellKnown::Duration,
        Some("Timestamp") => WellKnown::Timestamp,
        Some("FieldMask") => WellKnown::FieldMask,
        Some("Struct") => WellKnown::Struct,
        Some("Value") => WellKnown::Value,
        Some("ListValue") => WellKnown::ListValue,
        Some(
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
            | "StringValue" | "BytesValue",
        ) => WellKnown::Wrapper,
        _ => WellKnown::None,
    }
}
