//! The texts of `Duration` ("1.5s") and `Timestamp` (RFC 3339), both as seconds and nanoseconds on the wire.

use crate::error::{FieldError, wrong};

/// Ten thousand years, the bound that duration.proto sets.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const TIMESTAMP_SECONDS_MIN: i64 = -62_135_596_800;
const TIMESTAMP_SECONDS_MAX: i64 = 253_402_300_799;

/// Seconds and nanoseconds of a duration such as `-1.5s`; both carry the sign.
pub(crate) fn parse_duration(text: &str) -> Result<(i64, i32), FieldError> {
    let invalid =
        || FieldError::new("", format!("{text:?} is not a duration: write seconds with an s, such as \"1.5s\""));
    let number = text.strip_suffix('s').ok_or_else(invalid)?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let nanos = fraction.map_or(Some(0), parse_fraction).ok_or_else(invalid)?;
    let seconds: i64 = whole.parse().unwrap_or(i64::MAX);
    check_duration(seconds, nanos)?;
    Ok(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// The text of a duration, with 0, 3, 6 or 9 decimals as protobuf prints it.
pub(crate) fn print_duration(seconds: i64, nanos: i32) -> Result<String, FieldError> {
    check_duration(seconds, nanos)?;
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    Ok(format!("{sign}{}{}s", seconds.unsigned_abs(), print_fraction(nanos.unsigned_abs())))
}

/// Whether it is a duration at all: in range, and the two parts of one sign.
pub(crate) fn check_duration(seconds: i64, nanos: i32) -> Result<(), FieldError> {
    if !(-DURATION_SECONDS_MAX..=DURATION_SECONDS_MAX).contains(&seconds) {
        return wrong("duration is out of range: at most 315576000000s");
    }
    if nanos.unsigned_abs() >= 1_000_000_000 {
        return wrong("duration has more than 999999999 nanoseconds");
    }
    if (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0) {
        return wrong("duration's seconds and nanoseconds differ in sign");
    }
    Ok(())
}

/// Seconds since 1970 and nanoseconds of an RFC 3339 time.
pub(crate) fn parse_timestamp(text: &str) -> Result<(i64, i32), FieldError> {
    let invalid =
        || FieldError::new("", format!("{text:?} is not a time of RFC 3339, such as \"2026-01-31T12:00:00Z\""));
    let (seconds, nanos) = rfc3339(text).ok_or_else(invalid)?;
    check_timestamp(seconds, nanos)?;
    Ok((seconds, nanos))
}

pub(crate) fn print_timestamp(seconds: i64, nanos: i32) -> Result<String, FieldError> {
    check_timestamp(seconds, nanos)?;
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = print_fraction(nanos.unsigned_abs());
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
}

pub(crate) fn check_timestamp(seconds: i64, nanos: i32) -> Result<(), FieldError> {
    if !(TIMESTAMP_SECONDS_MIN..=TIMESTAMP_SECONDS_MAX).contains(&seconds) {
        return wrong("timestamp is out of range: years 1 to 9999");
    }
    if !(0..1_000_000_000).contains(&nanos) {
        return wrong("timestamp's nanoseconds are out of range");
    }
    Ok(())
}

/// Up to nine decimals as nanoseconds.
fn parse_fraction(digits: &str) -> Option<i32> {
    let count = u32::try_from(digits.len()).ok().filter(|count| (1..=9).contains(count))?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse::<i32>().ok()? * 10i32.pow(9 - count))
}

fn print_fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        _ if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1_000) => format!(".{:06}", nanos / 1_000),
        _ => format!(".{nanos:09}"),
    }
}

fn rfc3339(text: &str) -> Option<(i64, i32)> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't'])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let (year, month, day) = (digits(date, 0, 4)?, digits(date, 5, 2)?, digits(date, 8, 2)?);
    let (hour, minute, second) = (digits(clock, 0, 2)?, digits(clock, 3, 2)?, digits(clock, 6, 2)?);
    let separated = date.as_bytes()[4] == b'-'
        && date.as_bytes()[7] == b'-'
        && clock.as_bytes()[2] == b':'
        && clock.as_bytes()[5] == b':';
    if !separated
        || !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let (nanos, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            (parse_fraction(&rest[..end])?, &rest[end..])
        }
        None => (0, rest),
    };
    let offset = zone_offset_seconds(zone)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some((seconds, nanos))
}

fn zone_offset_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" || zone == "z" {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = (digits(zone, 1, 2)?, digits(zone, 4, 2)?);
    let well_formed = zone.len() == 6 && zone.as_bytes()[3] == b':' && hours <= 23 && minutes <= 59;
    well_formed.then_some(sign * (hours * 3600 + minutes * 60))
}

fn digits(text: &str, at: usize, count: usize) -> Option<i64> {
    let part = text.get(at..at + count)?;
    part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten()
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years start in March, so that the leap day is the last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, parts, printed) in [
            ("1.5s", (1, 500_000_000), "1.500s"),
            ("0s", (0, 0), "0s"),
            ("-0.25s", (0, -250_000_000), "-0.250s"),
            ("3600s", (3600, 0), "3600s"),
            ("0.000001s", (0, 1000), "0.000001s"),
            ("1.000000001s", (1, 1), "1.000000001s"),
            ("-315576000000s", (-315_576_000_000, 0), "-315576000000s"),
        ] {
            assert_eq!(parse_duration(text).unwrap(), parts, "{text}");
            assert_eq!(print_duration(parts.0, parts.1).unwrap(), printed);
        }
    }

    #[test]
    fn bad_durations_are_refused() {
        for text in [
            "",
            "s",
            "1",
            "1m",
            "1.s",
            ".5s",
            "+1s",
            "1.0000000001s",
            "1e3s",
            " 1s",
            "--1s",
            "315576000001s",
            "99999999999999999999s",
            "-s",
            "1.-5s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(print_duration(1, -1).is_err());
        assert!(print_duration(0, 1_000_000_000).is_err());
    }

    #[test]
    fn timestamps_read_and_print() {
        for (text, parts, printed) in [
            ("1970-01-01T00:00:00Z", (0, 0), "1970-01-01T00:00:00Z"),
            ("2024-02-29T23:59:59.5Z", (1_709_251_199, 500_000_000), "2024-02-29T23:59:59.500Z"),
            ("2026-11-20T13:00:00+02:00", (1_795_172_400, 0), "2026-11-20T11:00:00Z"),
            ("0001-01-01T00:00:00Z", (TIMESTAMP_SECONDS_MIN, 0), "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", (TIMESTAMP_SECONDS_MAX, 999_999_999), "9999-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(parse_timestamp(text).unwrap(), parts, "{text}");
            assert_eq!(print_timestamp(parts.0, parts.1).unwrap(), printed);
        }
    }

    #[test]
    fn bad_timestamps_are_refused() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00+0200",
            "0001-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00Zé",
            "é026-01-01T00:00:00Z",
        ] {
            assert!(parse_timestamp(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_calendar_agrees_with_itself() {
        for days in (-719_162..2_932_896).step_by(97) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
