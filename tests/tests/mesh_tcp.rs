//! TCP through two sidecars: bytes both ways, half-closing, servers that speak first, ends that are passed on.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::mesh::{Mesh, Plan, Sidecars};
use weft_tests::peers;
use weft_tests::services::{CLIENT, DATABASE, DATABASE_UNKNOWN, TCP_ECHO};

fn mesh() -> Result<Mesh> {
    let manifests = vec![peers::demo_manifests(), peers::test_manifests()];
    Mesh::start(&Plan { family: "weft-test", manifests, sidecars: Sidecars::Weft })
}

/// A connection from the client's pod. The thread's namespace decides where it lives; from then on anybody may use it.
fn connect(mesh: &Mesh, address: SocketAddr) -> Result<TcpStream> {
    mesh.pod(CLIENT)?.namespace().enter(|| {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

#[test]
fn lines_go_there_and_back_until_one_side_has_said_all() -> Result<()> {
    let mesh = mesh()?;
    let mut stream = connect(&mesh, TCP_ECHO)?;
    stream.write_all(b"one\ntwo\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert_eq!(answer, "tcp-echo v1: one\ntcp-echo v1: two\n");
    Ok(())
}

#[test]
fn megabytes_arrive_whole_and_in_order() -> Result<()> {
    let mesh = mesh()?;
    let mut stream = connect(&mesh, TCP_ECHO)?;
    let lines: Vec<String> = (0..200_000).map(|number| format!("line {number:06} {}", "x".repeat(40))).collect();
    let mut writer = stream.try_clone()?;
    let said = lines.join("\n") + "\n";
    let writing = std::thread::spawn(move || -> Result<()> {
        writer.write_all(said.as_bytes())?;
        Ok(writer.shutdown(Shutdown::Write)?)
    });
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    writing.join().expect("the writer does not panic")?;
    let answered: Vec<&str> = answer.lines().map(|line| line.trim_start_matches("tcp-echo v1: ")).collect();
    assert_eq!(answered.len(), lines.len());
    assert!(answered == lines, "an answer differs from what was said");
    Ok(())
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() -> Result<()> {
    let mesh = mesh()?;
    let started = Instant::now();
    let mut stream = connect(&mesh, DATABASE)?;
    let mut greeting = [0; 20];
    stream.read_exact(&mut greeting)?;
    let took = started.elapsed();
    assert_eq!(&greeting, b"hello from database\n");
    // Waiting for the client's first bytes would take until a timeout.
    ensure!(took < Duration::from_secs(1), "the greeting took {took:?}");
    Ok(())
}

/// Without dialling ahead, each of the two sidecars would wait for the client's first bytes until its time is up (100 ms).
#[test]
fn a_server_that_speaks_first_on_a_port_of_unknown_protocol_is_heard_at_once() -> Result<()> {
    let mesh = mesh()?;
    let greeted = || -> Result<Duration> {
        let started = Instant::now();
        let mut stream = connect(&mesh, DATABASE_UNKNOWN)?;
        let mut greeting = [0; 20];
        stream.read_exact(&mut greeting)?;
        let took = started.elapsed();
        ensure!(&greeting == b"hello from database\n", "{}", String::from_utf8_lossy(&greeting));
        // The conversation goes on as any other.
        stream.write_all(b"one\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer == "database v1: one\n", "{answer}");
        Ok(took)
    };
    // The machine may be busy now and then; a timeout would be there each time.
    let took = (0..20).map(|_| greeted()).collect::<Result<Vec<_>>>()?.into_iter().min();
    ensure!(took.is_some_and(|took| took < Duration::from_millis(25)), "the greeting took {took:?} at best");
    Ok(())
}

/// A client that speaks first on such a port has its protocol detected.
#[test]
fn a_client_that_speaks_first_on_a_port_of_unknown_protocol_is_detected() -> Result<()> {
    let mesh = mesh()?;
    let mut stream = connect(&mesh, DATABASE_UNKNOWN)?;
    stream.write_all(b"one\ntwo\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert_eq!(answer, "hello from database\ndatabase v1: one\ndatabase v1: two\n");
    Ok(())
}

#[test]
fn a_server_that_is_gone_ends_the_connection() -> Result<()> {
    let mut mesh = mesh()?;
    let mut stream = connect(&mesh, TCP_ECHO)?;
    stream.write_all(b"one\n")?;
    let mut answer = [0; 17];
    stream.read_exact(&mut answer)?;
    mesh.pod_mut("tcp-echo")?.application()?.kill()?;
    assert!(matches!(stream.read(&mut answer), Ok(0) | Err(_)), "bytes from a server that is gone");

    let mut stream = connect(&mesh, TCP_ECHO)?;
    assert!(matches!(stream.read(&mut answer), Ok(0) | Err(_)), "bytes from a server that is gone");
    Ok(())
}

#[test]
fn many_connections_at_a_time_do_not_mix() -> Result<()> {
    let mesh = mesh()?;
    let mut streams = (0..200).map(|_| connect(&mesh, TCP_ECHO)).collect::<Result<Vec<_>>>()?;
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("{number:03}\n").as_bytes())?;
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut answer = [0; 17];
        stream.read_exact(&mut answer)?;
        assert_eq!(String::from_utf8_lossy(&answer), format!("tcp-echo v1: {number:03}\n"));
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(15);
