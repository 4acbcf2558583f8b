//! Clients that people use: curl and nghttp.

use anyhow::Result;
use weft_tests::facts::Facts;
use weft_tests::process::Launch;

use crate::Case;
use crate::pair::Target;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        curl("curl", &["http://PROXY/headers"]),
        curl("curl over HTTP/2 with prior knowledge", &["--http2-prior-knowledge", "http://PROXY/headers"]),
        curl("curl that offers an upgrade", &["--http2", "http://PROXY/"]),
        curl("curl with HTTP/1.0", &["--http1.0", "http://PROXY/"]),
        curl("curl head", &["--head", "http://PROXY/bytes/10"]),
        curl("curl post", &["--data", "a=1", "http://PROXY/echo"]),
        curl(
            "curl upload in chunks",
            &["--header", "transfer-encoding: chunked", "--data", "abc", "http://PROXY/echo"],
        ),
        curl("curl to HTTP/2 behind", &["--data", "abc", "http://PROXY/h2/", "--header", "x-origin-do: echo"]),
        curl("curl no cluster", &["http://PROXY/to-unknown"]),
        tool("nghttp", "nghttp", &["--no-dep", "http://PROXY/chunks/3"]),
        tool("nghttp upload", "nghttp", &["--no-dep", "--data=/etc/debian_version", "http://PROXY/echo"]),
    ]
}

/// The status, the protocol, the number of headers and the body, as curl tells them.
fn curl(name: &'static str, args: &'static [&'static str]) -> Case {
    const SHOWN: [&str; 4] =
        ["--silent", "--show-error", "--write-out", "\n%{http_code} HTTP/%{http_version} %{content_type}"];
    let observe = move |target: &Target| {
        let output =
            run(target, "curl", &[&SHOWN[..], &["--max-time", "8", "--header", "host: any.test"], args].concat())?;
        let (body, told) = output.rsplit_once('\n').unwrap_or(("", &output));
        let mut facts = Facts::default();
        facts.add("curl says", told);
        // A HEAD's answer is printed as headers, some of which change.
        if !args.contains(&"--head") {
            facts.add_body(body.as_bytes());
        }
        Ok(facts)
    };
    Case { name, observe: Box::new(observe) }
}

fn tool(name: &'static str, program: &'static str, args: &'static [&'static str]) -> Case {
    let observe = move |target: &Target| {
        let mut facts = Facts::default();
        facts.add("printed", run(target, program, args)?);
        Ok(facts)
    };
    Case { name, observe: Box::new(observe) }
}

/// Runs on the thread that is in the namespace already, so it needs no other way in.
fn run(target: &Target, program: &str, args: &[&str]) -> Result<String> {
    let address = target.ports.http().to_string();
    let args = args.iter().map(|arg| arg.replace("PROXY", &address));
    Launch::new(weft_tests::peers::tool(program)?).args(args).run()
}
