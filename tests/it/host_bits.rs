//! An entry such as `192.168.1.5/24` stands for the whole network, and that is said wherever entries are read.

use std::{fs, path::Path};

use crate::harness::{Portway, mapping, messages, own_addr, portway};

#[test]
fn an_entry_with_host_bits_is_a_warning_that_names_the_network() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("portway.toml");
    fs::write(
        dir.path().join("list.txt"),
        "# ours\n203.0.113.0/24\n  203.0.113.77/25 # the door\n192.0.2.1\n",
    )
    .expect("the test's own directory");
    let text = "[defaults]\ndeny = [\"198.51.100.9/24\"]\n\
                [[mapping]]\npublish = \"127.0.0.1:8080:192.0.2.7:80\"\nallow = [\"192.168.1.5/24\", \"10.0.0.0/8\", \"@near\"]\n\
                deny = \"10.1.2.3/0\"\n\
                [lists]\nnear = [\"2001:db8:7::1/48\"]\nfar = { file = \"list.txt\" }\n\
                [guard]\nexempt = [\"172.16.5.4/12\", \"127.0.0.1/32\"]\nstate = \"/var/lib/portway/bans.json\"\n";
    fs::write(&file, text).expect("the test's own directory");
    let ran = portway([Path::new("check"), Path::new("-c"), &file]).exits(0);
    for (place, entry, network, address) in [
        ("portway.toml:2:10", "198.51.100.9/24", "198.51.100.0/24", "198.51.100.9"),
        ("portway.toml:5:11", "192.168.1.5/24", "192.168.1.0/24", "192.168.1.5"),
        ("portway.toml:6:9", "10.1.2.3/0", "0.0.0.0/0", "10.1.2.3"),
        ("portway.toml:8:10", "2001:db8:7::1/48", "2001:db8:7::/48", "2001:db8:7::1"),
        ("portway.toml:11:12", "172.16.5.4/12", "172.16.0.0/12", "172.16.5.4"),
        ("list.txt:3:3", "203.0.113.77/25", "203.0.113.0/25", "203.0.113.77"),
    ] {
        let warning = format!(
            "{place}: `{entry}` stands for the whole network {network}\n   = help: write {network}, or {address} for"
        );
        assert!(ran.out.contains(&warning), "{warning:?} is missing in {ran}");
    }
    assert_eq!(ran.out.matches("stands for the whole network").count(), 6, "{ran}");
    portway([Path::new("check"), Path::new("--strict"), Path::new("-c"), &file]).exits(78);
}

#[test]
fn a_list_that_is_read_again_has_the_same_warning_in_the_log() {
    let at = own_addr(8080);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let list = dir.path().join("blocked.txt");
    fs::write(&list, "192.0.2.1\n").expect("the test's own directory");
    let config = mapping(at, own_addr(8000), "deny = \"@blocked\"")
        + &format!("[lists]\nblocked = {{ file = {list:?} }}\n");
    let mut portway = Portway::with(&config).start();
    fs::write(&list, "192.0.2.0/24\n192.0.3.9/24\n192.0.4.9/24\n").expect("the test's own directory");
    let line = portway.wait_log(messages::ENTRY_HAS_HOST_BITS, |_| true);
    assert_eq!((line.text("list"), line.number("line"), line.number("left_out")), ("blocked", 2, 1));
    assert!(line.text("entry").contains("whole network 192.0.3.0/24"), "{}", line.raw());
}
