use proptest::prelude::*;

use super::*;

fn table(names: &[&'static str]) -> HostTable<&'static str> {
    let mut table = HostTable::default();
    for name in names {
        table.insert(name, *name).unwrap();
    }
    table
}

#[test]
fn an_exact_name_wins_and_then_the_longest_wildcard() {
    let table = table(&["*.example.org", "a.example.org", "*.b.example.org", "example.net", "*.org"]);
    for (name, expected) in [
        ("a.example.org", Some("a.example.org")),
        ("A.Example.ORG.", Some("a.example.org")),
        ("c.example.org", Some("*.example.org")),
        ("x.a.example.org", Some("*.example.org")),
        ("b.example.org", Some("*.example.org")),
        ("x.b.example.org", Some("*.b.example.org")),
        ("x.y.B.example.org", Some("*.b.example.org")),
        ("example.org", Some("*.org")),
        ("aexample.org", Some("*.org")),
        ("org", None),
        ("example.net", Some("example.net")),
        ("x.example.net", None),
        ("", None),
        (".", None),
        (".org", None),
        ("..org", Some("*.org")),
        ("*.example.org", None),
        ("*.org", None),
    ] {
        assert_eq!(table.get(name).copied(), expected, "{name}");
        assert_eq!(table.find(name).map(|(key, _)| key), expected, "{name}");
    }
    let long = format!("{}.example.org", "x".repeat(300));
    assert_eq!(table.get(&long), None);
    assert_eq!(table.get("m\u{fc}nchen.example.org"), Some(&"*.example.org"));
}

#[test]
fn an_address_may_be_a_host() {
    let table = table(&["203.0.113.9", "[2001:DB8:0::1]", "::1"]);
    for name in ["203.0.113.9", "2001:db8::1", "::1"] {
        assert!(table.get(name).is_some(), "{name}");
    }
}

#[test]
fn a_name_is_there_once() {
    let mut table = table(&["a.example.org", "*.example.org"]);
    for name in ["a.example.org", "A.example.org."] {
        assert_eq!(table.insert(name, ""), Err(HostError::Twice("a.example.org".into())));
    }
    assert_eq!(table.insert("*.EXAMPLE.org", ""), Err(HostError::Twice("*.example.org".into())));
    assert_eq!(table.len(), 2);
}

#[test]
fn what_no_client_asks_for_is_refused() {
    let refused = |name: &str| HostTable::default().insert(name, ()).unwrap_err();
    assert_eq!(refused("*"), HostError::Every);
    assert_eq!(refused("*."), HostError::Every);
    for name in ["a.*.example.org", "*a.example.org", "a*", "*.*.example.org", "**.example.org"] {
        assert_eq!(refused(name), HostError::Wildcard, "{name}");
    }
    for name in
        ["", ".", "a..b", ".a", "a b", "a/b", "a:80", "https://a", &"x".repeat(64), "*.[::1]", "*.::1"]
    {
        assert_eq!(refused(name), HostError::Malformed, "{name}");
    }
    assert_eq!(refused("M\u{fc}nchen.example"), HostError::Unicode("xn--mnchen-3ya.example".into()));
    assert_eq!(refused("*.m\u{fc}nchen.example"), HostError::Unicode("*.xn--mnchen-3ya.example".into()));
}

#[test]
fn tables_with_the_same_names_are_equal() {
    assert_eq!(table(&["a", "b"]), table(&["b", "a"]));
    assert_ne!(table(&["a", "b"]), table(&["a"]));
    assert!(table(&["b", "a"]).iter().eq([("b", &"b"), ("a", &"a")]), "in the order given");
}

/// The rule as a walk over all names.
fn model<'a>(table: &'a HostTable<String>, name: &str) -> Option<&'a String> {
    let takes = |key: &str| match key.strip_prefix('*') {
        Some(rest) => name.len() > rest.len() && name.ends_with(rest),
        None => key == name,
    };
    let found = table.iter().filter(|(key, _)| takes(key));
    found.max_by_key(|(key, _)| (!key.starts_with('*'), key.len())).map(|(_, value)| value)
}

proptest! {
    #[test]
    fn a_lookup_finds_what_a_walk_over_all_names_does(
        names in proptest::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,3}", 0..12),
        wanted in proptest::collection::vec("[ab](\\.[ab]){0,5}", 1..20),
    ) {
        let mut table = HostTable::default();
        for name in names {
            let _ = table.insert(&name, name.clone());
        }
        for name in wanted {
            prop_assert_eq!(table.get(&name), model(&table, &name), "{}", name);
        }
    }

    #[test]
    fn any_name_is_looked_up(names in proptest::collection::vec(".{0,12}", 0..5), name in ".{0,20}") {
        let mut table = HostTable::default();
        for name in names {
            let _ = table.insert(&name, ());
        }
        table.get(&name);
    }
}
