//! gRPC's status codes as statuses of HTTP, where something that knows only those is to judge. Pure.

/// By the mapping of `google.rpc.Code`; what is no code is as bad as an unknown error.
pub fn to_http(status: &[u8]) -> u16 {
    match status {
        b"0" => 200,
        b"1" => 499,
        b"3" | b"9" | b"11" => 400,
        b"4" => 504,
        b"5" => 404,
        b"6" | b"10" => 409,
        b"7" => 403,
        b"8" => 429,
        b"12" => 501,
        b"14" => 503,
        b"16" => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_statuses() {
        let codes = ["0", "1", "2", "7", "13", "14", "16", "17", "x"].map(|code| to_http(code.as_bytes()));
        assert_eq!(codes, [200, 499, 500, 403, 500, 503, 401, 500, 500]);
    }
}
