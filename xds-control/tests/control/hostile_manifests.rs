//! Manifests that mean no good: each is refused with its place, the last good state of its file stays, everybody else goes on,
//! and memory stays within bounds.

use weft_control::translate::resource::Kind;

use crate::harness::{DEADLINE, Process, cluster_name, page, service, sotw_of};

/// Of the process, at most, whatever it was given to read.
const MEMORY_MAX_KIB: u64 = 300 * 1024;
const DEEP: usize = 100_000;

fn nested(open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(DEEP), close.repeat(DEEP))
}

/// Replaces a good file by this one; `said` is what the problem says of it.
async fn check(file: &str, text: &[u8], said: &str) {
    let good = |last: u8| service("a", "10.96.0.1", &[&format!("10.0.0.{last}")]);
    let before = if file.ends_with("json") {
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.2", "ports": [{"name": "http", "port": 80}]}}"#
            .to_owned()
    } else {
        service("bad", "10.96.0.2", &["10.0.1.1"])
    };
    let process = Process::start(&[("a.yaml", &good(1)), (file, &before)]);
    let mut client = sotw_of(process.xds).await;
    let mesh = client.subscribe().await;
    assert_eq!(mesh[&Kind::Endpoints].resources.len(), 2);

    process.write_bytes(file, text);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let problem = loop {
        let (_, registry) = page(process.monitoring, "/debug/registry").await;
        let registry = serde_json::from_str::<serde_json::Value>(&registry).unwrap();
        if let Some(problem) = registry["problems"].as_array().unwrap().first() {
            break problem.clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing is said of {file}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(problem["file"], file);
    let (path, reason) = (problem["path"].as_str().unwrap(), problem["reason"].as_str().unwrap());
    assert!(format!("{path}: {reason}").contains(said), "{problem}");
    assert!(reason.len() < 1000, "a reason is read by people: {} bytes", reason.len());

    process.write("a.yaml", &good(9));
    let news = client.expect(Kind::Endpoints).await;
    assert_eq!(news.resources.len(), 1, "the other Service stays as it was");
    let names = [cluster_name("a"), cluster_name("bad")];
    client.ask(Kind::Endpoints, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let peak = process.memory_kib("VmHWM");
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB for {file}");
}

#[tokio::test]
async fn a_truncated_file() {
    let whole = service("bad", "10.96.0.2", &["10.0.1.1", "10.0.1.2"]);
    check("b.yaml", &whole.as_bytes()[..whole.find("ports").unwrap()], "line 4").await;
}

#[tokio::test]
async fn nesting_in_flow_style() {
    check("b.yaml", nested("[", "]").as_bytes(), "line 1").await;
}

#[tokio::test]
async fn nesting_of_maps() {
    check("b.yaml", nested("{a: ", "}").as_bytes(), "line 1").await;
}

#[tokio::test]
async fn nesting_in_block_style() {
    check("b.yaml", nested("- ", "").as_bytes(), "line 1").await;
}

#[tokio::test]
async fn nesting_without_an_end() {
    check("b.yaml", "[".repeat(DEEP).as_bytes(), "line 1").await;
}

#[tokio::test]
async fn nesting_in_json() {
    check("b.json", nested("[", "]").as_bytes(), "recursion limit").await;
}

#[tokio::test]
async fn a_file_of_fifty_megabytes() {
    let text = service("bad", "10.96.0.2", &["10.0.1.1"]) + &"# nothing\n".repeat(5 << 20);
    assert!(text.len() > 50 << 20);
    check("b.yaml", text.as_bytes(), "is 52429").await;
}

#[tokio::test]
async fn thirty_megabytes_of_values() {
    let text = format!("[{}]", "x, ".repeat(10 << 20));
    check("b.yaml", text.as_bytes(), "line 1").await;
}

#[tokio::test]
async fn aliases_that_multiply() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    check("b.yaml", bomb.as_bytes(), "line").await;
}

#[tokio::test]
async fn the_same_name_twice() {
    let twice = service("bad", "10.96.0.2", &[]) + "---\n" + &service("bad", "10.96.0.3", &[]);
    check("b.yaml", twice.as_bytes(), "Service shop/bad is already defined in document 1").await;
}

#[tokio::test]
async fn an_address_that_is_none() {
    let text = service("bad", "10.96.0.300", &["10.0.1.1"]);
    check("b.yaml", text.as_bytes(), "spec.clusterIP: \"10.96.0.300\" is not an IP address").await;
    let text = service("bad", "10.96.0.2", &["10.0.1.1", "10.0.1.x"]);
    check("b.yaml", text.as_bytes(), "endpoints[1].addresses[0]: \"10.0.1.x\" is not an IP").await;
}

#[tokio::test]
async fn a_port_out_of_range() {
    for port in ["0", "65536", "-1", "99999999999999999999"] {
        let text = service("bad", "10.96.0.2", &[]).replace("port: 80,", &format!("port: {port},"));
        check("b.yaml", text.as_bytes(), "spec.ports[0].port: ").await;
    }
}

#[tokio::test]
async fn a_kind_that_is_unknown() {
    let text =
        service("bad", "10.96.0.2", &["10.0.1.1"]) + "---\n{apiVersion: v9, kind: Servise, metadata: {name: x}}\n";
    check("b.yaml", text.as_bytes(), "apiVersion \"v9\" with kind \"Servise\" is not known").await;
}

#[tokio::test]
async fn bytes_that_are_no_text() {
    check("b.yaml", b"apiVersion: v1\nkind: \xff\xfe\n", "valid UTF-8").await;
    check("b.yaml", b"apiVersion: v1\nkind: Ser\0vice\n", "line 2").await;
}
