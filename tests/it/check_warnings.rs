//! What `check` warns of, and how its table fits a terminal.

use std::{fs, path::Path, process::Command};

use crate::harness::{Ran, check, portway, with_tools};

#[test]
fn a_service_that_strangers_abuse_is_a_warning_where_it_is_open_to_all() {
    for (spec, words) in [
        ("554:10.0.0.9:554", "RTSP"),
        ("8554:10.0.0.9:554", "RTSP"),
        ("5900:10.0.0.9:5900", "VNC"),
        ("3389:10.0.0.9:3389", "RDP"),
        ("53:10.0.0.9:53/udp", "DNS over UDP"),
        ("5353:10.0.0.9:53/tcp+udp", "DNS over UDP"),
        ("123:10.0.0.9:123/udp", "NTP"),
        ("389:10.0.0.9:389/udp", "LDAP"),
        ("1900:10.0.0.9:1900/udp", "SSDP"),
        ("11211:10.0.0.9:11211/udp", "memcached"),
        ("11200-11220:10.0.0.9:11200-11220/udp", "memcached"),
    ] {
        let mapping = |more: &str| format!("[[mapping]]\npublish = \"{spec}\"\n{more}");
        check(&mapping(""), &[]).exits(0).says("warning: ").says(words).says("with `allow`");
        check(&mapping(""), &["--strict"]).exits(78).says(words).says(": ok");
        check(&mapping("allow = \"10.0.0.0/8\"\n"), &["--strict"]).exits(0).never_says("warning");
        let local = mapping("").replace("publish = \"", "publish = \"127.0.0.1:");
        check(&local, &["--strict"]).exits(0).never_says("warning");
    }
    // The other protocol of these ports is another service.
    check("publish = [\"53:10.0.0.9:53\", \"554:10.0.0.9:554/udp\"]\n", &["--strict"]).exits(0);
}

#[test]
fn an_address_that_this_machine_does_not_have_is_a_warning() {
    let foreign = "[[mapping]]\npublish = \"192.0.2.77:8080:10.0.0.9:80\"\nsource = \"192.0.2.78\"\n\
                   [guard]\ntrap = [\"192.0.2.79:23\"]\nstate = \"/var/lib/portway/bans.json\"\n";
    let ran = check(foreign, &[]).exits(0);
    for warning in
        ["the listen address 192.0.2.77 is not", "the source 192.0.2.78 is not", "192.0.2.79 is not"]
    {
        assert!(ran.out.contains(warning), "{warning:?} is missing in {ran}");
    }
    check("[defaults]\nsource = \"192.0.2.78\"\n", &[]).exits(0).says("the source 192.0.2.78 is not");
    check(foreign, &["--strict"]).exits(78);
    check(foreign, &["--strict", "--json"]).exits(78).says("192.0.2.77 is not an address");
    let own = "[[mapping]]\nlisten = [\"8080\", \"127.0.0.1:8081\", \"0.0.0.0:8082\", \"[::1]:8083\"]\n\
               targets = [\"10.0.0.9:80\"]\nsource = \"127.0.0.9\"\n";
    check(own, &["--strict"]).exits(0).never_says("warning");
    let disabled = "[[mapping]]\npublish = \"192.0.2.77:8080:10.0.0.9:80\"\nenabled = false\n";
    check(disabled, &[]).exits(0).never_says("192.0.2.77 is not");
}

#[test]
fn a_protocol_that_answers_from_other_ports_is_a_warning() {
    check("publish = [\"69:10.0.0.9:69/udp\"]\n", &[]).exits(0).says("warning: ").says("TFTP");
    check("publish = [\"127.0.0.1:2121:10.0.0.9:21\"]\n", &[]).exits(0).says("warning: ").says("FTP server");
    check("publish = [\"127.0.0.1:2121:10.0.0.9:2121\"]\n", &["--strict"]).exits(0).never_says("FTP");
}

#[test]
fn a_pattern_that_matches_no_file_is_a_warning() {
    let text = "include = [\"conf.d/*.toml\"]\npublish = [\"127.0.0.1:8080:10.0.0.9:80\"]\n";
    check(text, &[]).exits(0).says("include conf.d/*.toml: no file matches");
    check(text, &["--strict"]).exits(78).says("no file matches");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.args(["check", "-p", "3389:10.0.0.9:3389"]).env("PORTWAY_STRICT", "yes");
    Ran::of(&mut command).exits(78).says("RDP");
}

#[test]
fn the_table_fits_the_terminal() {
    let text = "[[mapping]]\nname = \"a-mapping-with-a-rather-long-name\"\npublish = \"3389:workstation.example.org:3389\"\n\
                allow = [\"10.0.0.0/8\", \"192.168.0.0/16\", \"2001:db8::/32\"]\nidle_timeout = \"12h\"\nmax_sessions = 20\n\
                new_sessions_per_client = \"10/min\"\nrefuse = \"drop\"\n[[mapping]]\npublish = \"127.0.0.1:8080:10.0.0.9:80\"\n";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("portway.toml");
    fs::write(&file, text).expect("the test's own directory");
    let is_table = |line: &&str| !line.contains("mappings, ");
    for width in [40, 60, 80, 100, 120] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
        command.args(["check", "-c"]).arg(&file).env("COLUMNS", width.to_string());
        let ran = Ran::of(&mut command).exits(0);
        assert!(ran.out.lines().filter(is_table).all(|line| line.chars().count() <= width), "{width}: {ran}");
        let options = "allow=10.0.0.0/8,192.168.0.0/16,2001:db8::/32";
        assert!(
            width < 60 || ran.out.lines().any(|line| line.starts_with("    ") && line.contains(options)),
            "{width}: {ran}"
        );
    }
    // A pipe has no width: a row is a line there.
    let ran = portway([Path::new("check"), Path::new("-c"), &file]).exits(0);
    assert!(ran.out.lines().any(|line| line.contains("long-name") && line.contains("refuse=drop")), "{ran}");
    with_tools(&["script", "stty"], || {
        let line = format!("stty cols 72; {} check -c {}", env!("CARGO_BIN_EXE_portway"), file.display());
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &line, "/dev/null"]).env_remove("COLUMNS");
        let ran = Ran::of(command.stdin(std::process::Stdio::null())).exits(0);
        assert!(ran.out.lines().all(|line| line.trim_end().chars().count() <= 72), "{ran}");
        assert!(ran.out.contains("\n    idle_timeout=12h allow=10.0.0.0/8"), "{ran}");
    });
}
