use std::{net::IpAddr, ops::RangeInclusive};

use super::*;
use crate::config::{HostView, Source, load};

struct Nothing;

impl HostView for Nothing {
    fn env(&self, _: &str) -> Option<String> {
        None
    }
    fn service(&self, _: &str, _: Protocol) -> Option<u16> {
        None
    }
    fn is_local(&self, _: IpAddr) -> bool {
        false
    }
    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
        None
    }
}

fn specs(specs: &[&str]) -> Result<Loaded, Problems> {
    let publish = specs.iter().map(|s| (*s).to_owned()).collect();
    load(&Source { publish, ..Source::default() }, &Nothing)
}

fn file(text: &str) -> Result<Loaded, Problems> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portway.toml");
    std::fs::write(&path, text).unwrap();
    load(&Source { file: Some(path), ..Source::default() }, &Nothing)
}

#[test]
fn the_table_is_aligned_and_says_what_every_address_is() {
    let loaded = specs(&["8080:80", "127.0.0.1:53:10.0.0.53:53/udp", "0.0.0.0:81:nas.lan:80"]).unwrap();
    assert_eq!(
        table(&loaded),
        "MAPPING   PROTOCOL  LISTEN                           TARGET        OPTIONS\n\
         81/tcp    tcp       0.0.0.0:81 (every IPv4 address)  nas.lan:80\n\
         8080/tcp  tcp       [::]:8080 (every address)        127.0.0.1:80\n\
         53/udp    udp       127.0.0.1:53                     10.0.0.53:53\n\
         \n3 mappings, 3 listeners: ok\n"
    );
}

#[test]
fn a_range_is_one_row() {
    let shown = table(&specs(&["5000-5010:cam.lan:6000-6010/udp", "7000-7003:10.0.0.1:80"]).unwrap());
    assert!(
        shown.contains("5000-5010/udp  udp       [::]:5000-5010 (every address)  cam.lan:6000-6010\n"),
        "{shown}"
    );
    assert!(shown.contains("[::]:7000-7003 (every address)  10.0.0.1:80\n"), "{shown}");
    assert!(shown.ends_with("\n2 mappings, 15 listeners: ok\n"), "{shown}");
}

#[test]
fn neighbours_that_are_no_range_stay_apart() {
    let shown = table(&specs(&["8080:80", "8081:81", "8082:82"]).unwrap());
    assert!(shown.contains("8081/tcp") && shown.contains("127.0.0.1:81"), "{shown}");
    assert!(shown.ends_with("\n3 mappings, 3 listeners: ok\n"), "{shown}");
}

#[test]
fn a_named_mapping_counts_once_and_shows_its_options() {
    let loaded = file(
        "[[mapping]]\nname = \"mc\"\npublish = \"25565-25566:10.0.0.20:25565-25566/tcp+udp\"\n\
         idle_timeout = \"90s\"\nsource = \"10.0.0.1\"\n",
    );
    let shown = table(&loaded.unwrap());
    assert!(shown.contains("10.0.0.20:25565-25566  idle_timeout=90s source=10.0.0.1\n"), "{shown}");
    assert!(shown.ends_with("\n1 mapping, 4 listeners: ok\n"), "{shown}");
}

#[test]
fn warnings_stand_below_the_table() {
    let shown = table(&specs(&["3389:10.0.0.7:3389"]).unwrap());
    assert!(
        shown.contains("\nwarning: -p \"3389:10.0.0.7:3389\" (column 1): Remote Desktop (RDP), port 3389,"),
        "{shown}"
    );
}

#[test]
fn json_lists_every_listener_with_its_options() {
    let shown: serde_json::Value = serde_json::from_str(&json(&specs(&["8080:80/tcp+udp"]))).unwrap();
    assert_eq!(
        shown,
        serde_json::json!({
            "ok": true,
            "mappings": [
                { "name": "8080/tcp", "protocol": "tcp", "listen": "[::]:8080", "targets": ["127.0.0.1:80"],
                  "connect_timeout": "5s", "idle_timeout": "never", "half_close_timeout": "5m",
                  "keepalive": "1m", "source": null },
                { "name": "8080/udp", "protocol": "udp", "listen": "[::]:8080", "targets": ["127.0.0.1:80"],
                  "idle_timeout": "1m", "source": null },
            ],
            "warnings": [],
            "problems": [],
        })
    );
}

#[test]
fn json_lists_every_problem_with_its_place() {
    let shown: serde_json::Value = serde_json::from_str(&json(&specs(&["8080:0", "x:1"]))).unwrap();
    assert_eq!(shown["ok"], false);
    assert_eq!(
        shown["problems"][0],
        serde_json::json!({
            "file": "-p \"8080:0\"", "line": 1, "column": 6, "text": "0",
            "message": "port 0 cannot be connected to", "hint": "use a port from 1 to 65535",
        })
    );
    assert_eq!(shown["problems"].as_array().unwrap().len(), 2);
}
