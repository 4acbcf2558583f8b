//! What every conversion needs: durations, wrappers, enums, and refusing what is not supported, each with its path.
//!
//! The messages that come here have passed `weft_xds::validate`, so rules of range and presence that Envoy's protos
//! state are not stated again, except where a wrong value would be taken for something else or would panic.

use std::time::Duration;

use weft_xds::{
    FieldError, any,
    pb::google::protobuf::{Any, BoolValue, Duration as ProtoDuration, UInt32Value},
};

pub type Result<T, E = FieldError> = std::result::Result<T, E>;

/// The bound that Envoy and protobuf's JSON mapping set, ten thousand years: no sum of a few of them overflows.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;

/// Refuses each of the fields that is set at all. The fields are locals of their own names, so that a destructured
/// message shows at one glance what is read and what is refused.
macro_rules! refuse {
    ($($field:ident),+ $(,)?) => {
        $($crate::config::field::unset(&$field, stringify!($field))?;)+
    };
}
pub(crate) use refuse;

/// The refusal of what is well-formed, known to Envoy, and not done here.
pub(crate) fn unsupported(path: impl Into<String>) -> FieldError {
    FieldError::new(path, "not supported")
}

/// Refuses a field whose value differs from protobuf's default: it asks for something that is not supported.
pub(crate) fn unset<T: PartialEq + Default>(field: &T, path: &str) -> Result<()> {
    if *field == T::default() { Ok(()) } else { Err(unsupported(raw_name(path))) }
}

/// Refuses anything but the only value that is supported; absent stands for it.
pub(crate) fn only(field: Option<BoolValue>, supported: bool, path: &str) -> Result<()> {
    match field {
        Some(BoolValue { value }) if value != supported => {
            Err(FieldError::new(path, format!("{value} is not supported")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn required<T>(field: Option<T>, path: &str) -> Result<T> {
    field.ok_or_else(|| FieldError::new(path, "value is required"))
}

pub(crate) fn bool_or(field: Option<BoolValue>, default: bool) -> bool {
    field.map_or(default, |wrapper| wrapper.value)
}

pub(crate) fn u32_or(field: Option<UInt32Value>, default: u32) -> u32 {
    field.map_or(default, |wrapper| wrapper.value)
}

/// A number of which 0 means no limit, as does an absent one.
pub(crate) fn limit(field: Option<UInt32Value>) -> Option<u32> {
    field.map(|wrapper| wrapper.value).filter(|&value| value > 0)
}

pub(crate) fn duration(field: Option<ProtoDuration>, path: &str) -> Result<Option<Duration>> {
    let Some(ProtoDuration { seconds, nanos }) = field else { return Ok(None) };
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if seconds <= DURATION_SECONDS_MAX as u64 && nanos < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanos)))
        }
        (Ok(_), Ok(_)) => Err(FieldError::new(path, "duration out of range")),
        _ => Err(FieldError::new(path, "duration must not be negative")),
    }
}

pub(crate) fn duration_or(field: Option<ProtoDuration>, default: Duration, path: &str) -> Result<Duration> {
    Ok(duration(field, path)?.unwrap_or(default))
}

/// A bound in time that 0 switches off. `default` stands for an absent field.
pub(crate) fn timeout_or(
    field: Option<ProtoDuration>,
    default: Option<Duration>,
    path: &str,
) -> Result<Option<Duration>> {
    Ok(duration(field, path)?.map_or(default, |bound| Some(bound).filter(|bound| !bound.is_zero())))
}

/// A bound in time that Envoy applies as it stands, so that 0 would mean at once: refused as a mistake.
pub(crate) fn positive_duration(field: Option<ProtoDuration>, path: &str) -> Result<Option<Duration>> {
    match duration(field, path)? {
        Some(Duration::ZERO) => Err(FieldError::new(path, "value must be greater than 0s")),
        bound => Ok(bound),
    }
}

pub(crate) fn enumeration<E: TryFrom<i32>>(value: i32, path: &str) -> Result<E> {
    E::try_from(value).map_err(|_| FieldError::new(path, format!("{value} is not one of the defined enum values")))
}

pub(crate) fn port(value: u32, path: &str) -> Result<u16> {
    u16::try_from(value).map_err(|_| FieldError::new(path, format!("{value} is not a port number")))
}

pub(crate) fn header_value(text: &str, path: &str) -> Result<http::HeaderValue> {
    http::HeaderValue::from_str(text).map_err(|_| FieldError::new(path, "not a valid header value"))
}

/// Converts the elements of a repeated field; an error names the element.
pub(crate) fn each<T, U>(
    items: impl IntoIterator<Item = T>,
    path: &str,
    mut convert: impl FnMut(T) -> Result<U>,
) -> Result<Vec<U>> {
    items.into_iter().enumerate().map(|(index, item)| convert(item).at(path, index)).collect()
}

/// Puts the outer part of a path before what an inner conversion reports. An empty inner path is the value itself.
pub(crate) trait Within {
    fn within(self, prefix: &str) -> Self;
    fn at(self, field: &str, index: usize) -> Self;
}

impl<T> Within for Result<T> {
    fn within(self, prefix: &str) -> Self {
        self.map_err(|error| error.within(prefix))
    }

    fn at(self, field: &str, index: usize) -> Self {
        self.within(&element(field, index))
    }
}

/// The path of one element of a repeated field.
pub(crate) fn element(field: &str, index: usize) -> String {
    format!("{field}[{index}]")
}

/// An extension's configuration and the name of its message, which is what chooses the extension: the name beside it is
/// for people.
pub(crate) struct Extension {
    typed_config: Any,
    type_name: String,
}

impl Extension {
    pub(crate) fn new(typed_config: Any) -> Result<Self> {
        let type_name = any::effective_type_name(&typed_config).within("typed_config")?;
        Ok(Self { typed_config, type_name })
    }

    pub(crate) fn is<T: prost::Name>(&self) -> bool {
        self.type_name.strip_prefix(T::PACKAGE).and_then(|rest| rest.strip_prefix('.')) == Some(T::NAME)
    }

    /// The validated message; errors stand below `typed_config`.
    pub(crate) fn unpack<T: prost::Name + Default>(&self) -> Result<T> {
        any::unpack_valid(&self.typed_config).within("typed_config")
    }

    /// The refusal of an extension of a type that is not known here.
    pub(crate) fn unsupported(&self) -> FieldError {
        FieldError::new("typed_config", format!("{} is not supported", self.type_name))
    }
}

/// Envoy finds extensions by the type of their configuration alone, so that a bare name is refused.
pub(crate) fn without_typed_config() -> FieldError {
    FieldError::new("typed_config", "value is required")
}

/// A field whose name is a Rust keyword comes here as `r#name`.
fn raw_name(path: &str) -> &str {
    path.strip_prefix("r#").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(seconds: i64, nanos: i32) -> Option<ProtoDuration> {
        Some(ProtoDuration { seconds, nanos })
    }

    #[test]
    fn durations_are_checked() {
        assert_eq!(duration(proto(1, 500_000_000), "d").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(duration(None, "d").unwrap(), None);
        for (seconds, nanos, reason) in [
            (-1, 0, "d: duration must not be negative"),
            (0, -1, "d: duration must not be negative"),
            (i64::MAX, 0, "d: duration out of range"),
            (0, i32::MAX, "d: duration out of range"),
        ] {
            assert_eq!(duration(proto(seconds, nanos), "d").unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn zero_switches_a_timeout_off_and_absence_takes_the_default() {
        let default = Some(Duration::from_secs(7));
        assert_eq!(timeout_or(proto(0, 0), default, "t").unwrap(), None);
        assert_eq!(timeout_or(None, default, "t").unwrap(), default);
        assert_eq!(timeout_or(proto(2, 0), default, "t").unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(positive_duration(proto(0, 0), "t").unwrap_err().to_string(), "t: value must be greater than 0s");
    }

    #[test]
    fn a_field_at_its_default_is_not_refused() {
        let (set, unset, r#type) = (vec![1], String::new(), 1_u32);
        let refuse_each = |set: Vec<i32>, unset: String, r#type: u32| -> Result<()> {
            refuse!(unset, set, r#type);
            Ok(())
        };
        assert_eq!(refuse_each(set, unset.clone(), r#type).unwrap_err().path(), "set");
        assert_eq!(refuse_each(Vec::new(), unset.clone(), r#type).unwrap_err().path(), "type");
        refuse_each(Vec::new(), unset, 0).unwrap();
    }

    #[test]
    fn a_wrapper_may_say_what_is_done_anyway() {
        only(None, false, "w").unwrap();
        only(Some(BoolValue { value: false }), false, "w").unwrap();
        let error = only(Some(BoolValue { value: true }), false, "w").unwrap_err();
        assert_eq!(error.to_string(), "w: true is not supported");
        assert_eq!(limit(Some(UInt32Value { value: 0 })), None);
    }
}
