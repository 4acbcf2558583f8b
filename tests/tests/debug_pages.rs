//! The control plane's debugging pages: open on loopback, for holders of the token elsewhere, for nobody else.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::http1::Connection;
use weft_tests::netns::Namespace;
use weft_tests::process::{Launch, Process};
use weft_tests::slot::Slot;
use weft_tests::{peers, wait};

const PATIENCE: Duration = Duration::from_secs(10);
const OWN: &str = "10.7.0.9:15014";

#[test]
fn others_than_loopback_need_the_token() -> Result<()> {
    let slot = Slot::acquire("weft-debug")?;
    let namespace = Namespace::create(&format!("{}-net", slot.prefix()))?;
    namespace.ip(&["addr add 10.7.0.9/32 dev lo"])?;
    let (manifests, token) = (slot.work().join("manifests"), slot.work().join("token"));
    fs::create_dir(&manifests)?;
    fs::write(&token, "open sesame\n")?;
    let launch = Launch::new(peers::weft("weft-control")?)
        .args(["serve", "--plaintext-xds-address", "15010", "--monitoring-address", "0.0.0.0:15014"])
        .args(["--manifests".as_ref(), manifests.as_os_str(), "--debug-token-file".as_ref(), token.as_os_str()])
        .inside(&namespace);
    let _control = Process::spawn("weft-control", &launch, &slot.work().join("control.log"))?;
    let status = |address: &str, path: &str, headers: &[(&str, &str)]| {
        let address: SocketAddr = address.parse()?;
        namespace.enter(|| Ok(Connection::open(address, PATIENCE)?.get("control", path, headers)?.status))
    };
    wait::until("it serves", PATIENCE, || {
        let ready = status(OWN, "/ready", &[])?;
        ensure!(ready == 200, "{ready}");
        Ok(())
    })?;
    assert_eq!(status("127.0.0.1:15014", "/debug/syncz", &[])?, 200);
    for path in ["/debug/syncz", "/debug/registry", "/debug/config_dump?node=x"] {
        assert_eq!(status(OWN, path, &[])?, 401, "{path}");
        assert_eq!(status(OWN, path, &[("authorization", "Bearer open")])?, 401, "{path}");
    }
    assert_eq!(status(OWN, "/debug/syncz", &[("authorization", "Bearer open sesame")])?, 200);
    assert_eq!(status(OWN, "/metrics", &[])?, 200);

    let weft = |args: &[&str]| -> Result<Option<i32>> {
        let output = namespace.command(peers::weft("weft")?).args(["--control", OWN]).args(args).output()?;
        Ok(output.status.code())
    };
    let token = token.to_string_lossy();
    assert_eq!(weft(&["proxy-status"])?, Some(1));
    assert_eq!(weft(&["--token-file", &token, "proxy-status"])?, Some(0));
    Ok(())
}
