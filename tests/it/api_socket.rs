//! The socket file of the API: whose it is, and what stands in its place.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixListener,
    },
    path::Path,
};

use crate::harness::{Api, Portway, Setup, TcpTarget, echoes, mapping, messages, own_addr, with_tools};

/// A daemon with the API on this socket.
fn with_socket(path: &Path) -> Setup {
    let mapping = mapping(own_addr(8080), own_addr(8000), "name = \"web\"");
    Portway::with(&format!("{mapping}[api]\nsocket = \"{}\"\n", path.display()))
}

#[test]
fn the_directory_is_made_and_a_socket_of_an_earlier_run_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/portway.sock");
    let portway = with_socket(&path).start();
    Api::unix(&path).get("/healthz").is(200);
    portway.kill();
    assert!(path.exists(), "a kill leaves it behind");
    let portway = with_socket(&path).start();
    Api::unix(&path).get("/healthz").is(200);
    portway.stop().with(0);
    assert!(!path.exists());
}

#[test]
fn the_socket_of_a_daemon_that_runs_is_not_taken_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portway.sock");
    let first = with_socket(&path).start();
    let second = with_socket(&path).launch().exit().with(1);
    let expected =
        format!("[api] socket {}: another process ({}) listens on it", path.display(), first.pid());
    assert!(second.log.contains(&expected), "{expected:?} is missing in {}", second.log);
    Api::unix(&path).get("/healthz").is(200);
}

#[test]
fn a_usual_socket_that_cannot_be_made_is_one_warning_and_forwarding_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = UnixListener::bind(dir.path().join("portway.sock")).unwrap();
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut portway = Portway::with(&mapping(at, target.addr, ""))
        .env("RUNTIME_DIRECTORY", dir.path().to_str().unwrap())
        .start();
    portway.wait_log(messages::API_HAS_NO_SOCKET, |line| line.text("error").contains("another process"));
    assert!(echoes(at));
    portway.reload_with(&mapping(at, target.addr, "max_sessions = 5"));
    assert_eq!(portway.count(messages::API_HAS_NO_SOCKET), 1);
    drop(first);
    portway.stop().with(0);
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portway.sock");
    fs::write(&path, "precious").unwrap();
    with_socket(&path).launch().exit().with(1).says("a file that is not a socket has this name");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_socket_of_another_user_is_said_to_be_that() {
    with_tools(&["setpriv"], || {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = dir.path().join("portway.sock");
        let _of_root = UnixListener::bind(&path).unwrap();
        chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let exit = with_socket(&path).user(65_534).launch().exit().with(1);
        assert!(exit.log.contains("user 0 owns it"), "{}", exit.log);
        let closed = dir.path().join("none/portway.sock");
        let exit = with_socket(&closed).user(65_534).launch().exit().with(1);
        assert!(exit.log.contains("create the directory"), "{}", exit.log);
    });
}
