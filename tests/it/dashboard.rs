//! The dashboard in a real browser. A browser takes seconds to start, so each test makes several claims.

use std::{net::SocketAddr, time::Duration};

use fantoccini::key::Key;
use rustix::process::Signal;

use crate::harness::{
    Browser, Client, Portway, TcpTarget, echoes, eventually_within, mapping, own_addr, portway,
    with_accessibility_rules, with_tools,
};

/// How soon the page shows what happened: a second, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(3);

/// A configuration with an API on `api`.
fn config(api: SocketAddr, mappings: &str) -> String {
    format!("{mappings}[api]\nlisten = \"{api}\"\n")
}

fn named(name: &str, listen: SocketAddr, target: SocketAddr) -> String {
    mapping(listen, target, &format!("name = \"{name}\""))
}

#[test]
fn the_page_shows_sessions_ends_them_lifts_bans_and_reloads() {
    with_tools(&Browser::TOOLS, || {
        let target = TcpTarget::echo();
        let (api, listen, other) = (own_addr(7678), own_addr(8080), own_addr(8081));
        let first = config(api, &named("games", listen, target.addr));
        let portway = Portway::with(&first).start();
        let browser = Browser::start(1280, 900);
        browser.open(&format!("http://{api}/"));

        // It is up, and this is the address for a friend.
        browser.wait_text("#headline", "Everything is up.");
        browser.wait_text("[data-mapping=games] .address", &listen.to_string());
        browser.wait_text("[data-mapping=games] .badge", "Up");
        browser.wait_text("#sessions-more", "No client is connected.");
        browser.click("[data-mapping=games] .copy");
        browser.wait_text("#toast", &format!("Copied {listen}"));

        // A session appears within a second, moves, and ends by a click and a "yes".
        let mut client = Client::to(listen);
        let own = client.0.local_addr().expect("a connected socket").to_string();
        eventually_within(SOON, "the page shows the session", || {
            browser.text("#sessions-table").contains(&own).then_some(())
        });
        client.ping();
        browser.wait_text("[data-session] td[data-title=Out]", "4 B");
        browser.wait_text("#sessions-count", "1");
        browser.click("[data-session] button");
        browser.wait_text("#ask", &own);
        browser.press(Key::Escape);
        browser.wait_gone("#ask[open]");
        client.ping();
        browser.click("[data-session] button");
        browser.click("#ask-yes");
        client.until_closed();
        browser.wait_gone("[data-session]");
        browser.wait_text("#events-list", "session ended");

        // A ban comes and goes.
        browser.click("#ban");
        browser.fill("#b-client", "not an address");
        browser.click("#ban-dialog button[type=submit]");
        browser.wait_text("#b-problems", "not an address");
        browser.fill("#b-client", "198.51.100.7");
        browser.fill("#b-reason", "<b>cheats</b>");
        browser.click("#ban-dialog button[type=submit]");
        browser.wait_text("#bans-table", "198.51.100.7");
        browser.click("[data-client='198.51.100.7'] button");
        browser.wait_text("#bans-more", "No client is banned.");

        // A reload is shown before it is done.
        let second = config(api, &(named("games", listen, target.addr) + &named("more", other, target.addr)));
        portway.write_config(&second);
        browser.click("#reload");
        browser.wait_text("#reload-body", &other.to_string());
        assert!(!echoes(other), "the dry run opened the port");
        browser.click("#reload-apply");
        browser.wait_text("[data-mapping=more] .badge", "Up");
        assert!(echoes(other), "the reload was not applied");

        // One that is refused is shown with its place.
        portway.write_config(&second.replace("publish", "publsh"));
        browser.click("#reload");
        browser.wait_text("#reload-body", "publsh");
        browser.wait_text("#reload-body .place", "portway.toml:2:1");
        browser.press(Key::Escape);

        assert_eq!(errors(&browser), [""; 0]);
    });
}

#[test]
fn the_page_lists_who_is_let_in_by_a_knock_and_ends_a_grant() {
    with_tools(&Browser::TOOLS, || {
        let target = TcpTarget::echo();
        let keys = tempfile::tempdir().expect("a temporary directory");
        let dir = keys.path().display().to_string();
        portway(["key", "new", "anna", "-o", &dir]).exits(0);
        let (api, listen, door) = (own_addr(7678), own_addr(8080), own_addr(62201));
        let text = config(api, &mapping(listen, target.addr, "name = \"desktop\"\nknock = true"))
            + &format!(
                "[knock]\nlisten = \"{door}\"\nkeys = [{{ name = \"anna\", key_file = \"{dir}/anna.pub\" }}]\n\
                 state = \"{dir}/knocks.json\"\n"
            );
        let _portway = Portway::with(&text).start();
        let browser = Browser::start(1280, 900);
        browser.open(&format!("http://{api}/"));
        browser.wait_text("#headline", "Everything is up.");
        assert_eq!(browser.text("#grants"), "", "no one has knocked");
        portway(["knock", &door.to_string(), "--key", &format!("{dir}/anna.key")]).exits(0);
        browser.wait_text("#grants-table", "anna");
        browser.wait_text("[data-grant='127.0.0.1'] .client", "127.0.0.1");
        browser.click("[data-grant='127.0.0.1'] button");
        browser.wait_text("#toast", "has to knock again");
        browser.wait_gone("[data-grant]");
        assert_eq!(errors(&browser), [""; 0]);
    });
}

#[test]
fn the_page_says_that_the_daemon_is_gone_and_comes_back_by_itself() {
    with_tools(&Browser::TOOLS, || {
        let target = TcpTarget::echo();
        let (api, listen) = (own_addr(7678), own_addr(8080));
        let text = config(api, &named("games", listen, target.addr));
        let portway = Portway::with(&text).start();
        let browser = Browser::start(390, 844);
        browser.open(&format!("http://{api}/"));
        browser.wait_text("#headline", "Everything is up.");
        portway.signal(Signal::KILL);
        let _ = portway.exit();
        browser.wait_text("#gone", "does not answer");
        let _again = Portway::with(&text).start();
        browser.wait_gone("#gone:not([hidden])");
        browser.wait_text("#headline", "Everything is up.");
        let _client = Client::to(listen);
        browser.wait_text("#sessions-count", "1");
        browser.wait_text("#events-list", "session started");
    });
}

#[test]
fn the_page_has_no_barriers_and_its_login_keeps_a_reader_from_changes() {
    with_accessibility_rules(|axe| {
        let target = TcpTarget::echo();
        let (api, listen) = (own_addr(7678), own_addr(8080));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut tokens = String::new();
        for (role, token) in [("read", "the-token-of-a-reader"), ("admin", "the-token-of-an-admin")] {
            let path = dir.path().join(role);
            std::fs::write(&path, token).expect("a token");
            tokens += &format!("{{ role = \"{role}\", file = \"{}\" }},", path.display());
        }
        let text = config(api, &named("games", listen, target.addr)) + &format!("tokens = [{tokens}]\n");
        let _portway = Portway::with(&text).start();
        let browser = Browser::start(1280, 900);
        browser.open(&format!("http://{api}/"));
        let check = |what: &str| {
            for scheme in ["light", "dark"] {
                browser.prefer(scheme);
                assert_eq!(browser.barriers(axe), [""; 0], "{what}, {scheme}");
            }
        };

        browser.wait_text("#login", "Log in");
        check("the login");
        browser.fill("#token", "a wrong token");
        browser.press(Key::Enter);
        browser.wait_text("#login-error", "not one of them");
        browser.fill("#token", "the-token-of-a-reader");
        browser.press(Key::Enter);
        browser.wait_text("[data-mapping=games] .badge", "Up");
        let _client = Client::to(listen);
        browser.wait_text("#sessions-count", "1");
        browser.wait_text("#footer", "read only");
        assert_eq!(browser.text("#actions"), "");
        assert_eq!(browser.text("[data-session] button"), "");
        check("the page of a reader");

        browser.script("return fetch('/v1/logout', { method: 'POST' }).then(() => location.reload())");
        browser.wait_text("#login", "Log in");
        browser.fill("#token", "the-token-of-an-admin");
        browser.press(Key::Enter);
        browser.wait_text("#actions", "Add mapping");
        check("the page of an administrator");
        for (opens, dialog) in
            [("#add", "#mapping-dialog"), ("#ban", "#ban-dialog"), ("#reload", "#reload-dialog")]
        {
            browser.click(opens);
            browser.wait_text(dialog, "Cancel");
            check(dialog);
            browser.press(Key::Escape);
            browser.wait_gone(&format!("{dialog}[open]"));
            let focus = browser.script("return '#' + document.activeElement.id");
            assert_eq!(focus, opens, "the focus is back where it was");
        }
        browser.resize(390, 844);
        check("a telephone");
        let wide = browser.script("return document.documentElement.scrollWidth");
        assert_eq!(wide, 390, "the page is wider than a telephone");
    });
}

#[test]
fn the_page_adds_a_mapping_that_forwards_and_shows_what_is_wrong_with_another() {
    with_tools(&Browser::TOOLS, || {
        let target = TcpTarget::echo();
        let (api, listen, made) = (own_addr(7678), own_addr(8080), own_addr(8081));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let managed = format!("managed = \"{}/managed.toml\"\n", dir.path().display());
        let text = config(api, &named("games", listen, target.addr)) + &managed;
        let _portway = Portway::with(&text).start();
        let browser = Browser::start(1280, 900);
        browser.open(&format!("http://{api}/"));
        browser.wait_text("#headline", "Everything is up.");

        // A bad one is shown with its problems, and the form stays.
        browser.click("#add");
        browser.fill("#m-listen", &made.to_string());
        browser.fill("#m-host", &target.addr.ip().to_string());
        browser.fill("#m-port", &target.addr.port().to_string());
        browser.fill("#m-name", "friends");
        browser.fill("#m-allow", "@nobody");
        browser.wait_text("#m-toml", &format!("publish = \"{made}:{}\"", target.addr));
        browser.click("#mapping-dialog button[type=submit]");
        browser.wait_text("#m-problems [data-code]", "nobody");
        browser.fill("#m-allow", "127.0.0.0/8");
        browser.click("#mapping-dialog button[type=submit]");
        browser.wait_text("[data-mapping=friends] .badge", "Up");
        assert!(echoes(made), "the mapping does not forward");

        // It pauses, resumes, and goes.
        let steer = "[data-mapping=friends] .steer button";
        browser.click(steer);
        browser.click("#ask-yes");
        browser.wait_text("[data-mapping=friends] .badge", "Paused");
        assert!(!echoes(made), "a paused mapping forwards");
        browser.click(steer);
        browser.wait_text("[data-mapping=friends] .badge", "Up");
        assert!(echoes(made), "the mapping is not open again");
        // Nothing could try it from outside: the dialog says what is missing.
        browser.click(&format!("{steer}:nth-child(3)"));
        browser.wait_text("#outside-body", "no other portway is known that could try it");
        browser.click("#outside-dialog button[data-close]");
        browser.click(&format!("{steer}:nth-child(2)"));
        browser.click("#ask-yes");
        browser.wait_gone("[data-mapping=friends]");
        assert!(!echoes(made), "a mapping that was removed forwards");

        // What a file declares has no such button.
        assert_eq!(browser.text("[data-mapping=games] .steer button:nth-child(2)"), "");
    });
}

/// What the console says, without the answers that the test asks for: those with a failure.
fn errors(browser: &Browser) -> Vec<String> {
    browser.console().into_iter().filter(|line| !line.contains("Failed to load resource")).collect()
}
