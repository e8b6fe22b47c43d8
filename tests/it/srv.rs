//! Targets by the name of SRV records, from a real name server.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
};

use crate::harness::{
    Client, Portway, Program, Setup, TcpTarget, eventually, in_own_network, messages, portway,
};

/// Lays the files of FILES over those of /etc, for the daemon alone.
const WITH_FILES: &str = r#"for file in "$FILES"/*; do
    [ -e "/etc/${file##*/}" ] && mount --bind "$file" "/etc/${file##*/}"
done
exec "$@""#;

/// The daemon with a name server on this address.
fn asking(setup: Setup, files: &Path, server: &str) -> Setup {
    let write = |name: &str, text: &str| std::fs::write(files.join(name), text).expect("a file");
    write("resolv.conf", &format!("nameserver {server}\noptions timeout:1 attempts:2\n"));
    write("nsswitch.conf", "hosts: files dns\n");
    setup
        .env("FILES", files.to_str().expect("a plain path"))
        .through(["unshare", "--mount", "--", "sh", "-c", WITH_FILES, "sh"])
}

/// A name server for the machines `a.test` and `b.test` (127.0.1.1 and 127.0.1.2), with these SRV records.
fn name_server(at: &str, records: &[&str]) -> Program {
    let own =
        ["--local-ttl=1", "--local=/test/", "--address=/a.test/127.0.1.1", "--address=/b.test/127.0.1.2"];
    let server = Program::name_server(at, &[&own[..], records].concat());
    eventually("the name server answers", || TcpStream::connect((at, 53)).ok());
    server
}

/// A target of `127.0.1.n` that says its letter.
fn says(n: u8, port: u16, letter: u8) -> TcpTarget {
    let addr = SocketAddr::from((Ipv4Addr::new(127, 0, 1, n), port));
    TcpTarget::serve_at(addr, move |mut stream| {
        let _ = stream.write_all(&[letter]);
    })
}

#[track_caller]
fn letter() -> char {
    char::from(Client::to(([127, 0, 0, 1], 8080).into()).hear(1)[0])
}

const CONFIG: &str = "publish = [\"127.0.0.1:8080:_mc._tcp.test\"]\n";

#[test]
fn the_records_say_machine_port_and_order_and_their_changes_are_followed() {
    in_own_network(&["mount", "dnsmasq"], || {
        let files = tempfile::tempdir().expect("a temporary directory");
        let (_a, b) = (says(1, 7001, b'a'), says(2, 7002, b'b'));
        let server = name_server(
            "127.0.0.1",
            &["--srv-host=_mc._tcp.test,a.test,7001,20,1", "--srv-host=_mc._tcp.test,b.test,7002,10,1"],
        );
        let portway = asking(Portway::with(CONFIG), files.path(), "127.0.0.1").start();
        for _ in 0..10 {
            assert_eq!(letter(), 'b', "the lower priority is first\n{}", portway.log());
        }
        drop(b);
        for _ in 0..3 {
            assert_eq!(letter(), 'a', "where that one does not answer, the next is tried");
        }
        let _b = says(2, 7002, b'b');
        eventually("it is back", || (letter() == 'b').then_some(()));
        drop(server);
        let server = name_server("127.0.0.1", &["--srv-host=_mc._tcp.test,a.test,7001,10,1"]);
        eventually("the new record is found", || (letter() == 'a').then_some(()));
        drop(server);
        // A TTL later nobody answers for the name.
        eventually("a lookup has failed", || {
            assert_eq!(letter(), 'a', "the last answer is kept");
            portway.log().contains("SRV name does not resolve").then_some(())
        });
    });
}

#[test]
fn weights_are_shares_and_another_name_server_in_resolv_conf_is_asked() {
    in_own_network(&["mount", "dnsmasq"], || {
        let files = tempfile::tempdir().expect("a temporary directory");
        let (_a, _b) = (says(1, 7001, b'a'), says(2, 7002, b'b'));
        let first = name_server(
            "127.0.0.1",
            &["--srv-host=_mc._tcp.test,a.test,7001,1,90", "--srv-host=_mc._tcp.test,b.test,7002,1,10"],
        );
        let portway = asking(Portway::with(CONFIG), files.path(), "127.0.0.1").start();
        let a = (0..200).filter(|_| letter() == 'a').count();
        assert!((150..200).contains(&a), "{a} of 200 with nine tenths of the weight\n{}", portway.log());
        drop(first);
        let _second = name_server("127.0.0.53", &["--srv-host=_mc._tcp.test,b.test,7002,1,1"]);
        std::fs::write(files.path().join("resolv.conf"), "nameserver 127.0.0.53\n").expect("a file");
        eventually("the other name server is asked", || (0..5).all(|_| letter() == 'b').then_some(()));
    });
}

#[test]
fn a_service_that_is_denied_ends_the_session_and_says_so() {
    in_own_network(&["mount", "dnsmasq"], || {
        let files = tempfile::tempdir().expect("a temporary directory");
        let _server = name_server("127.0.0.1", &["--srv-host=_mc._tcp.test,.,0,0,0"]);
        let mut portway = asking(Portway::with(CONFIG), files.path(), "127.0.0.1").start();
        Client::to(([127, 0, 0, 1], 8080).into()).until_closed();
        let line = portway.wait_log(messages::SESSION_ENDED, |_| true);
        assert_eq!((line.text("reason"), line.text("target.addr")), ("unreachable", "_mc._tcp.test"));
        assert!(line.text("error").contains("no such service"), "{}", line.raw());
    });
}

#[test]
fn an_srv_name_has_no_port() {
    portway(["check", "-p", "8080:_mc._tcp.test"]).exits(0).says("_mc._tcp.test");
    let ran = portway(["check", "-p", "8080:_mc._tcp.test:25565"]).exits(78);
    ran.says("the records of a service name have the port").says("leave the port out");
}
