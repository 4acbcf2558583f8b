//! `weft proxy-config secrets`: the certificates of secrets, by what is public in them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;

use crate::dump::{Dumped, State};
use crate::table::table;

pub(crate) fn table_of(secrets: &[Dumped]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let rows = secrets.iter().flat_map(|secret| rows(secret, now)).collect::<Vec<_>>();
    table(&["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"], &rows)
}

/// A row for each certificate in a secret, or one that says why there is none. `now` is in seconds since 1970.
fn rows(secret: &Dumped, now: i64) -> Vec<Vec<String>> {
    let (kind, source) = if let Some(certificate) = secret.resource.get("tls_certificate") {
        ("Cert Chain", &certificate["certificate_chain"])
    } else if let Some(context) = secret.resource.get("validation_context") {
        ("CA", &context["trusted_ca"])
    } else if secret.resource.get("session_ticket_keys").is_some() {
        ("Ticket Keys", &Value::Null)
    } else {
        ("Generic", &Value::Null)
    };
    let status = match secret.state {
        State::Active => "ACTIVE",
        State::Warming => "WARMING",
    };
    let row = |rest: [String; 4]| {
        let head = [secret.name.clone(), kind.to_owned(), status.to_owned()];
        head.into_iter().chain(rest).collect::<Vec<_>>()
    };
    let Some(pem) = inline(source) else {
        let place = source["filename"].as_str().unwrap_or("-").to_owned();
        return vec![row(["-".to_owned(), place, "-".to_owned(), "-".to_owned()])];
    };
    let certificates = Pem::iter_from_buffer(&pem).map(|block| {
        let block = block.ok()?;
        let certificate = block.parse_x509().ok()?;
        let (validity, serial) = (certificate.validity(), certificate.raw_serial_as_string());
        let is_valid = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
        Some(row([is_valid.to_string(), serial.replace(':', ""), date(validity.not_after), date(validity.not_before)]))
    });
    let unreadable = || row(["false".to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned()]);
    let rows = certificates.map(|certificate| certificate.unwrap_or_else(unreadable)).collect::<Vec<_>>();
    if rows.is_empty() { vec![unreadable()] } else { rows }
}

/// What a data source holds itself.
fn inline(source: &Value) -> Option<Vec<u8>> {
    let text = source["inline_string"].as_str().map(|text| text.as_bytes().to_vec());
    text.or_else(|| BASE64_STANDARD.decode(source["inline_bytes"].as_str()?).ok())
}

fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    let (date, month) = (time.date(), u8::from(time.month()));
    format!(
        "{:04}-{month:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(resource: Value) -> Dumped {
        Dumped { name: "s".to_owned(), resource, state: State::Active }
    }

    #[test]
    fn a_row_for_each_certificate_says_whether_it_is_valid_now() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(vec![0x12, 0xab].into());
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 2), rcgen::date_time_ymd(2027, 3, 4));
        let pem = params.self_signed(&key).unwrap().pem();
        let chain = secret(json!({"tls_certificate": {"certificate_chain": {"inline_string": pem.repeat(2)}}}));
        let in_2026 = 1_780_000_000;
        let row = ["s", "Cert Chain", "ACTIVE", "true", "12ab", "2027-03-04T00:00:00Z", "2026-01-02T00:00:00Z"];
        assert_eq!(rows(&chain, in_2026), [row, row]);
        let root = json!({"validation_context": {"trusted_ca": {"inline_bytes": BASE64_STANDARD.encode(&pem)}}});
        assert_eq!(rows(&secret(root), 0)[0][1..4], ["CA", "ACTIVE", "false"]);
    }

    #[test]
    fn what_holds_no_certificate_is_shown_all_the_same() {
        let file = json!({"tls_certificate": {"certificate_chain": {"filename": "/etc/certs/chain.pem"}}});
        assert_eq!(rows(&secret(file), 0)[0][3..5], ["-", "/etc/certs/chain.pem"]);
        let garbage = json!({"tls_certificate": {"certificate_chain": {"inline_string": "x"}}});
        assert_eq!(rows(&secret(garbage), 0)[0][3], "false");
        assert_eq!(rows(&secret(json!({"session_ticket_keys": "[redacted]"})), 0)[0][1], "Ticket Keys");
    }
}
