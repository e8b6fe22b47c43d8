//! Which client of the API may do what: tokens, logins, and pages of other sites.

use std::{fs, net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use crate::harness::{Api, Portway, mapping, own_addr};

const ADMIN: &str = "admin-token-of-this-test";
const READ: &str = "read-token-of-this-test";

/// The API with two tokens on `listen`.
fn with_tokens(listen: SocketAddr, dir: &tempfile::TempDir) -> String {
    let file = |role: &str, token: &str| {
        let path = dir.path().join(role);
        fs::write(&path, format!("{token}\n")).expect("the test's own directory");
        format!("{{ role = \"{role}\", file = \"{}\" }}", path.display())
    };
    let tokens = [file("admin", ADMIN), file("read", READ)].join(", ");
    format!(
        "{}[api]\nlisten = \"{listen}\"\nhosts = [\"nas.lan\"]\ntokens = [{tokens}]\n",
        mapping(own_addr(8080), own_addr(8000), "name = \"web\"")
    )
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

#[test]
fn a_token_is_needed_over_tcp_where_one_is_set_and_never_on_the_socket() {
    let (listen, dir) = (own_addr(7678), tempfile::tempdir().unwrap());
    let portway = Portway::with(&with_tokens(listen, &dir)).start();
    let api = Api::Tcp(listen);
    let none = api.get("/v1/status").is(401);
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let with = |method: &str, path: &str, token: &str| {
        let (name, value) = bearer(token);
        api.send(method, path, &[(name, &value)], None)
    };
    with("GET", "/v1/status", READ).is(200);
    with("GET", "/v1/status", ADMIN).is(200);
    assert_eq!(with("GET", "/v1/login", READ).is(200).json(), json!({ "role": "read" }));
    with("POST", "/v1/reload", READ).is(403);
    with("DELETE", "/v1/bans?client=192.0.2.1", READ).is(403);
    with("POST", "/v1/reload?dry_run=true", ADMIN).is(200);
    // What a container or a load balancer asks needs none.
    api.get("/healthz").is(200);
    api.get("/readyz").is(200);
    // A stranger does not learn which routes there are.
    api.get("/v1/nothing").is(401);
    portway.api().get("/v1/status").is(200);
    assert_eq!(portway.api().get("/v1/login").is(200).json(), json!({ "role": "admin" }));
}

#[test]
fn wrong_tokens_are_refused_after_the_same_time_and_many_of_them_not_heard() {
    let (listen, dir) = (own_addr(7678), tempfile::tempdir().unwrap());
    let _portway = Portway::with(&with_tokens(listen, &dir)).start();
    let api = Api::Tcp(listen);
    let long = "x".repeat(8_000);
    for wrong in ["x", &ADMIN[..5], &format!("{ADMIN}x"), &ADMIN.to_uppercase(), &long] {
        let (name, value) = bearer(wrong);
        let started = Instant::now();
        api.send("GET", "/v1/status", &[(name, &value)], None).is(401);
        assert!(started.elapsed() >= Duration::from_millis(200), "{wrong:?} in {:?}", started.elapsed());
    }
    let login = api.post("/v1/login", &json!({ "token": "wrong" })).is(401);
    assert_eq!(login.header("set-cookie"), None);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let (name, value) = bearer("wrong");
                let reply = api.send("GET", "/v1/status", &[(name, &value)], None);
                assert!(matches!(reply.status, 401 | 429), "{reply:?}");
            });
        }
    });
    let (name, value) = bearer(ADMIN);
    let limited = api.send("GET", "/v1/status", &[(name, &value)], None).is(429);
    assert!(limited.header("retry-after").is_some());
}

#[test]
fn a_browser_logs_in_once_and_out_again() {
    let (listen, dir) = (own_addr(7678), tempfile::tempdir().unwrap());
    let mut portway = Portway::with(&with_tokens(listen, &dir)).start();
    let api = Api::Tcp(listen);
    let log_in = |token: &str| {
        let reply = api.post("/v1/login", &json!({ "token": token })).is(200);
        let cookie = reply.header("set-cookie").expect("a cookie").to_owned();
        for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.split("; ").any(|own| own == part), "{part} is missing in {cookie}");
        }
        cookie.split(';').next().unwrap().to_owned()
    };
    let get = |cookie: &str| api.send("GET", "/v1/login", &[("cookie", cookie)], None);
    let (reader, admin) = (log_in(READ), log_in(ADMIN));
    assert_eq!(get(&reader).is(200).json(), json!({ "role": "read" }));
    assert_eq!(get(&format!("other=1; {admin}")).is(200).json(), json!({ "role": "admin" }));
    get("portway_7678=0123456789abcdef").is(401);
    api.send("POST", "/v1/reload?dry_run=true", &[("cookie", &reader)], None).is(403);
    api.send("POST", "/v1/reload?dry_run=true", &[("cookie", &admin)], None).is(200);

    let out = api.send("POST", "/v1/logout", &[("cookie", &admin)], None).is(204);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    get(&admin).is(401);

    // A login ends with its token.
    fs::write(dir.path().join("read"), "another-token-to-read").unwrap();
    portway.reload_with(&with_tokens_kept(listen, &dir));
    crate::harness::eventually("the login has ended", || (get(&reader).status == 401).then_some(()));
}

/// The same configuration, without writing the files again.
fn with_tokens_kept(listen: SocketAddr, dir: &tempfile::TempDir) -> String {
    let kept = fs::read(dir.path().join("read")).expect("the test's own file");
    let config = with_tokens(listen, dir);
    fs::write(dir.path().join("read"), kept).expect("the test's own directory");
    config
}

#[test]
fn a_name_of_another_site_that_leads_here_is_refused() {
    let (listen, dir) = (own_addr(7678), tempfile::tempdir().unwrap());
    let portway = Portway::with(&with_tokens(listen, &dir)).start();
    let api = Api::Tcp(listen);
    let (name, value) = bearer(ADMIN);
    let with_host = |host: &str| api.send("GET", "/v1/status", &[(name, &value), ("host", host)], None);
    for host in ["127.0.0.1", "localhost:7678", "[::1]:7678", "nas.lan", "NAS.LAN:80"] {
        with_host(host).is(200);
    }
    for host in ["evil.example", "evil.example:7678", "localhost.evil.example", "nas.lan.evil.example"] {
        with_host(host).is(421);
        api.send("GET", "/healthz", &[("host", host)], None).is(421);
    }
    let target = format!("GET http://evil.example/v1/status HTTP/1.1\r\nhost: {listen}\r\n");
    let bytes = format!("{target}authorization: {value}\r\nconnection: close\r\n\r\n");
    api.raw(bytes.as_bytes()).expect("a reply").is(421);
    // No browser speaks to a unix socket.
    portway.api().send("GET", "/v1/status", &[("host", "anything.example")], None).is(200);
}

#[test]
fn a_page_of_another_site_changes_nothing_and_reads_nothing() {
    let listen = own_addr(7678);
    let config = format!(
        "{}[api]\nlisten = \"{listen}\"\n",
        mapping(own_addr(8080), own_addr(8000), "name = \"web\"")
    );
    let _portway = Portway::with(&config).start();
    let api = Api::Tcp(listen);
    let own = format!("http://{listen}");
    let send = |method: &str, headers: &[(&str, &str)]| {
        api.send(method, "/v1/reload?dry_run=true", headers, None).status
    };
    assert_eq!(send("POST", &[]), 200, "a program");
    assert_eq!(send("POST", &[("origin", &own), ("sec-fetch-site", "same-origin")]), 200, "our page");
    for origin in ["http://evil.example", "null", "https://127.0.0.1"] {
        assert_eq!(send("POST", &[("origin", origin)]), 403, "{origin}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(send("POST", &[("sec-fetch-site", site)]), 403, "{site}");
        let get = api.send("GET", "/v1/status", &[("sec-fetch-site", site)], None);
        assert_eq!(get.status, 403, "a script of a page of {site}");
    }
    let form = [("content-type", "text/plain")];
    api.send("POST", "/v1/bans", &form, Some("{\"client\": \"192.0.2.1\"}")).is(415);
}

#[test]
fn every_answer_keeps_a_browser_from_doing_more_with_it() {
    let listen = own_addr(7678);
    let config = format!("{}[api]\nlisten = \"{listen}\"\n", mapping(own_addr(8080), own_addr(8000), ""));
    let _portway = Portway::with(&config).start();
    for path in ["/v1/status", "/nothing"] {
        let reply = Api::Tcp(listen).get(path);
        assert!(reply.header("content-security-policy").unwrap().contains("default-src 'none'"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("x-frame-options"), Some("DENY"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}
