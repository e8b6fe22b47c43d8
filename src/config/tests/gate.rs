//! `[lists]`, `[geoip]`, `[guard]` and `[limits]`.

use super::*;
use crate::{
    fixture::mmdb,
    policy::{Country, ListName, ListSpec},
};

const ONE: &str = "publish = [\"80:9\"]\n";

#[test]
fn lists_are_written_out_or_kept_in_files_beside_the_configuration() {
    let text = format!(
        "{ONE}[lists]\noffice = [\"203.0.113.0/24\", \"2001:db8:7::/48\"]\none = \"192.0.2.7\"\nnone = []\nblocked = {{ file = \"lists/blocked.txt\" }}\n"
    );
    let files = Files::new(&[("portway.toml", text.as_bytes()), ("lists/blocked.txt", b"# empty so far\n")]);
    let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
    let gate = &loaded.gate;
    let name = |text: &str| ListName(text.into());
    assert_eq!(gate.spec.lists[&name("blocked")], ListSpec::File(files.path("lists/blocked.txt")));
    let nets = ["203.0.113.0/24", "2001:db8:7::/48"].map(|net| net.parse().unwrap());
    assert_eq!(gate.spec.lists[&name("office")], ListSpec::Inline(nets.to_vec()));
    let office = &gate.lists[&name("office")];
    assert_eq!(office.longest("203.0.113.9".parse().unwrap()), Some(24));
    assert_eq!(gate.lists.values().map(|set| set.len()).collect::<Vec<_>>(), [0, 0, 2, 1]);
    assert_eq!(loaded.read.files, [files.path("portway.toml")], "a list file is followed by itself");
}

#[test]
fn what_is_no_list_is_refused() {
    let found = problems(&format!(
        "{ONE}[lists]\na = 1\nb = [\"@a\", 7]\nc = {{ fil = \"x\" }}\nd = {{}}\ne = {{ file = \"\" }}\n\"f g\" = []\nh = \"/etc/blocked.txt\"\ni = {{ file = \"gone.txt\" }}\nj = {{ file = \".\" }}\n"
    ));
    let places = [
        "3:5 wrong-type",
        "4:7 invalid-entry",
        "4:12 wrong-type",
        "5:7 unknown-key",
        "6:5 missing-key",
        "7:15 empty",
        "8:1 invalid-name",
        "9:6 invalid-entry",
        "10:15 unreadable-file",
        "11:15 unreadable-file",
    ];
    assert_eq!(found, places);
}

#[test]
fn a_list_file_is_read_with_its_comments() {
    let text = format!("{ONE}[lists]\nx = {{ file = \"x.txt\" }}\n");
    let files = Files::new(&[
        ("portway.toml", text.as_bytes()),
        ("x.txt", b"\xef\xbb\xbf# caf\xe9\r\n203.0.113.0/24 # office\r\n\r\n2001:db8::1\r\n"),
    ]);
    let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
    let set = &loaded.gate.lists[&ListName("x".into())];
    assert_eq!((set.len(), set.longest("203.0.113.9".parse().unwrap())), (2, Some(24)));
    assert_eq!(read_list(&files.path("x.txt")).unwrap().set.len(), 2);
}

#[test]
fn a_broken_list_file_is_refused_at_its_own_lines() {
    let text = "[lists]\nx = { file = \"sub/x.txt\" }\nfoo = \"bar\"\n".to_owned()
        + "[[mapping]]\npublish = \"0:9\"\n";
    let files = Files::new(&[
        ("portway.toml", text.as_bytes()),
        ("sub/x.txt", b"203.0.113.0/24\n\t home # mine\n10.0.0.0/33\n"),
    ]);
    let places = [
        "portway.toml:3:8 invalid-entry",
        "portway.toml:5:12 invalid-spec",
        "sub/x.txt:2:3 invalid-entry",
        "sub/x.txt:3:1 invalid-entry",
    ];
    assert_eq!(files.problems(), places);
    let shown = files.load().unwrap_err().to_string();
    assert!(shown.contains("\n2 |   home # mine\n  |   ^^^^\n"), "{shown}");
    assert!(read_list(&files.path("sub/x.txt")).unwrap_err().to_string().starts_with("line 2: `home`"));
}

#[test]
fn of_a_list_file_that_is_no_list_twenty_lines_are_shown() {
    let text = format!("{ONE}[lists]\nx = {{ file = \"x.txt\" }}\n");
    let files =
        Files::new(&[("portway.toml", text.as_bytes()), ("x.txt", "nonsense\n".repeat(5000).as_bytes())]);
    let found = files.problems();
    assert_eq!(found.len(), 21);
    assert_eq!(found[20], "x.txt:5000:1 invalid-entry");
    assert!(files.load().unwrap_err().to_string().contains("4980 more"));
}

#[test]
fn countries_come_from_the_database_beside_the_configuration() {
    let text = "[geoip]\ndatabase = \"geo/countries.mmdb\"\n[defaults]\nallow_countries = [\"de\", \"uk\"]\n\
                [[mapping]]\npublish = \"3389:10.0.0.7:3389\"\ndeny_countries = \"Fr\"\n";
    let files = Files::new(&[
        ("portway.toml", text.as_bytes()),
        ("geo/countries.mmdb", &mmdb::database(&[("192.0.2.0/24", "DE")])),
    ]);
    let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
    let access = &loaded.plan.mappings.values().next().unwrap().policy.access;
    let codes = |codes: &[&str]| codes.iter().filter_map(|code| Country::new(code)).collect();
    assert_eq!(access.allow_countries, Some(codes(&["DE", "UK"])));
    assert_eq!(access.deny_countries, codes(&["FR"]));
    assert_eq!(loaded.gate.spec.geoip, Some(files.path("geo/countries.mmdb")));
    let country = loaded.gate.countries.unwrap().country("192.0.2.9".parse().unwrap());
    assert_eq!(country, Country::new("DE"));
    let warned: Vec<_> = loaded.warnings.iter().map(|w| files.line(w)).collect();
    assert_eq!(warned, ["portway.toml:4:27 invalid-entry"]);
}

#[test]
fn a_list_and_an_included_file_are_regular_files() {
    let found = problems(&format!("{ONE}include = \"/dev/null\"\n[lists]\na = {{ file = \"/dev/zero\" }}\n"));
    assert_eq!(found, ["2:12 unreadable-file", "4:15 unreadable-file"]);
    assert_eq!(read_list(Path::new("/dev/zero")).unwrap_err().to_string(), "it is not a regular file");
}

#[test]
fn tables_of_the_main_file_are_refused_in_an_included_one() {
    let files = Files::new(&[
        ("portway.toml", b"include = \"a.toml\"\npublish = [\"80:9\"]\n"),
        ("a.toml", b"[guard]\ntrap = [\"23\"]\n[limits]\n[geoip]\ndatabase = \"x\"\n[router]\n"),
    ]);
    assert_eq!(files.problems(), [1, 3, 4, 6].map(|line| format!("a.toml:{line}:2 misplaced-key")));
}

#[test]
fn lists_of_included_files_are_lists_like_any_other() {
    let files = Files::new(&[
        (
            "portway.toml",
            b"include = [\"conf.d/*.toml\"]\n[lists]\nmine = \"192.0.2.1\"\nx = { file = \"x.txt\" }\n[guard]\nexempt = \"@office\"\nstate = \"/b\"\n",
        ),
        ("x.txt", b"192.0.2.9\n"),
        ("conf.d/a.toml", b"include = \"more/b.toml\"\n[lists]\noffice = [\"203.0.113.0/24\"]\nblocked = { file = \"blocked.txt\" }\n"),
        ("conf.d/blocked.txt", b"198.51.100.1\n198.51.100.2\n"),
        ("conf.d/more/b.toml", b"[[mapping]]\npublish = \"80:9\"\nallow = [\"@mine\", \"@office\", \"@deep\"]\ndeny = \"@blocked\"\n[lists]\ndeep = { file = \"../deep.txt\" }\n"),
        ("conf.d/deep.txt", b""),
    ]);
    let gate = files.load().unwrap_or_else(|e| panic!("{e}")).gate;
    let sizes: Vec<_> = gate.lists.iter().map(|(name, set)| (&*name.0, set.len())).collect();
    assert_eq!(sizes, [("blocked", 2), ("deep", 0), ("mine", 1), ("office", 1), ("x", 1)]);
    let file = |name: &str| match &gate.spec.lists[&ListName(name.into())] {
        ListSpec::File(path) => path.clone(),
        ListSpec::Inline(_) => panic!("{name} is a file"),
    };
    assert_eq!(file("blocked"), files.path("conf.d/blocked.txt"));
    assert_eq!(file("deep"), files.path("conf.d/more/../deep.txt"));
    assert_eq!(file("x"), files.path("x.txt"));
}

#[test]
fn a_list_is_there_once_over_all_files() {
    let files = Files::new(&[
        ("portway.toml", b"publish = \"80:9\"\ninclude = [\"a.toml\", \"b.toml\"]\n[lists]\nx = []\n"),
        ("a.toml", b"[lists]\ny = []\nx = \"192.0.2.1\"\n"),
        ("b.toml", b"[lists]\ny = { file = \"gone.txt\" }\n"),
    ]);
    assert_eq!(files.problems(), ["a.toml:3:1 duplicate-name", "b.toml:2:1 duplicate-name"]);
}

#[test]
fn a_list_that_may_stand_in_a_file_that_is_not_there_is_not_called_unknown() {
    let files = Files::new(&[(
        "portway.toml",
        b"include = \"gone.toml\"\n[[mapping]]\npublish = \"80:9\"\nallow = \"@x\"\nallow_countries = \"DE\"\n",
    )]);
    assert_eq!(files.problems(), ["portway.toml:1:12 unreadable-file", "portway.toml:5:1 missing-key"]);
}

#[test]
fn a_mapping_of_an_included_file_uses_the_lists_of_the_main_one() {
    let files = Files::new(&[
        ("portway.toml", b"include = \"sub/a.toml\"\n[lists]\nx = \"192.0.2.0/24\"\n"),
        ("sub/a.toml", b"[[mapping]]\npublish = \"80:9\"\nallow = [\"@x\", \"@y\"]\n"),
    ]);
    assert_eq!(files.problems(), ["sub/a.toml:3:17 unknown-list"]);
}

#[test]
fn a_list_that_may_stand_in_a_broken_line_is_not_called_unknown() {
    assert_eq!(
        problems(
            "[lists]\nx = \n[[mapping]]\npublish = \"80:9\"\nallow = \"@x\"\nallow_countries = \"DE\"\n"
        )
        .len(),
        1
    );
}

#[test]
fn geoip_needs_a_database() {
    assert_eq!(problems(&format!("{ONE}[geoip]\n")), ["2:1 missing-key"]);
    assert_eq!(problems(&format!("{ONE}[geoip]\ndatbase = \"x\"\n")), ["3:1 unknown-key"]);
    let found = problems(&format!("{ONE}[geoip]\ndatabase = \"gone.mmdb\"\n"));
    assert_eq!(found, ["3:13 unreadable-file"]);
}

#[test]
fn the_guard_has_usual_terms_and_its_own() {
    let text = format!("{ONE}[guard]\nstate = \"bans.json\"\n");
    let files = file(&text);
    let guard = files.load().unwrap().gate.spec.guard.unwrap();
    assert_eq!((guard.refusals.count.get(), guard.refusals.per), (10, Duration::from_secs(60)));
    assert_eq!((guard.ban, guard.state), (Duration::from_secs(3600), Some(files.path("bans.json"))));
    let loaded = loaded(&format!(
        "{ONE}[guard]\nrefusals = \"3/h\"\nban = \"30d\"\nexempt = [\"@office\", \"127.0.0.0/8\"]\nstate = \"/b\"\n[lists]\noffice = []\n"
    ));
    let guard = loaded.gate.spec.guard.unwrap();
    assert_eq!((guard.refusals.count.get(), guard.refusals.per), (3, Duration::from_secs(3600)));
    assert_eq!(guard.ban, Duration::from_secs(30 * 86_400));
    assert_eq!((guard.exempt.nets.len(), guard.exempt.lists.len()), (1, 1));
    assert!(super::loaded(ONE).gate.spec.guard.is_none());
}

#[test]
fn the_guard_is_refused_with_what_would_be_right() {
    assert_eq!(
        problems(&format!(
            "{ONE}[guard]\nrefusals = \"unlimited\"\nban = \"31d\"\ntrap = [23, \"0\"]\nexempt = \"@x\"\nstate = \"\"\ntraps = []\n"
        )),
        [
            "3:13 invalid-value",
            "4:8 invalid-value",
            "5:9 wrong-type",
            "5:14 invalid-spec",
            "6:11 unknown-list",
            "7:10 empty",
            "8:1 unknown-key"
        ]
    );
    assert_eq!(
        problems(&format!("{ONE}[guard]\nrefusals = \"10\"\nban = \"never\"\n")),
        ["3:13 invalid-value", "4:8 invalid-value"]
    );
    assert_eq!(problems(&format!("{ONE}[guard]\nban = \"0s\"\n")).len(), 1);
    let no_tables = "guard = 1\nlists = []\ngeoip = \"x\"\nlimits = 3\nrouter = true\n";
    assert_eq!(
        problems(no_tables),
        [9, 9, 9, 10, 10]
            .iter()
            .zip(1..)
            .map(|(column, line)| format!("{line}:{column} wrong-type"))
            .collect::<Vec<_>>()
    );
}

#[test]
fn bans_without_a_file_are_a_warning() {
    assert_eq!(warnings(&format!("{ONE}[guard]\ntrap = \"23\"\n")), ["2:1 not-persisted"]);
}

#[test]
fn the_state_directory_of_the_service_keeps_the_bans() {
    struct Service;
    impl HostView for Service {
        fn env(&self, name: &str) -> Option<String> {
            (name == "STATE_DIRECTORY").then(|| "/var/lib/portway:/var/lib/other".into())
        }
        fn service(&self, _: &str, _: Protocol) -> Option<u16> {
            None
        }
        fn addresses(&self) -> HashSet<IpAddr> {
            HashSet::new()
        }
        fn broadcasts(&self) -> HashSet<IpAddr> {
            HashSet::new()
        }

        fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
            None
        }
    }
    let files = file(&format!("{ONE}[guard]\n"));
    let source = Source { file: Some(files.path("portway.toml")), ..Source::default() };
    let loaded = load(&source, &Service).unwrap();
    let state = loaded.gate.spec.guard.unwrap().state;
    assert_eq!(state, Some(PathBuf::from("/var/lib/portway/bans.json")));
    assert!(loaded.warnings.is_empty());
}

#[test]
fn decoys_are_listeners_of_the_plan() {
    let loaded = loaded(&format!(
        "{ONE}[guard]\ntrap = [\"23\", \"127.0.0.1:1000-1001\", \"https\"]\nstate = \"/b\"\n[defaults]\nmax_sessions = 5\n"
    ));
    let traps: Vec<_> = loaded
        .plan
        .listeners
        .iter()
        .filter(|(_, listener)| listener.service == Service::Trap)
        .map(|(key, listener)| format!("{} {key}", listener.name))
        .collect();
    assert_eq!(
        traps,
        [
            "1000-1001/tcp 127.0.0.1:1000/tcp",
            "1000-1001/tcp 127.0.0.1:1001/tcp",
            "23/tcp [::]:23/tcp",
            "443/tcp [::]:443/tcp"
        ]
    );
    assert_eq!(loaded.plan.listeners.len(), 5);
}

#[test]
fn a_decoy_takes_no_port_that_a_mapping_has() {
    assert_eq!(
        problems(
            "[guard]\ntrap = [\"80\", \"22-24\", \"24\"]\nstate = \"/b\"\n[[mapping]]\npublish = \"80:9/tcp+udp\"\n[[mapping]]\nname = \"22/tcp\"\npublish = \"81:9\"\n"
        ),
        ["2:10 port-in-use", "2:25 port-in-use", "7:9 duplicate-name"]
    );
    assert_eq!(
        loaded("publish = [\"80:9/udp\"]\n[guard]\ntrap = \"80\"\nstate = \"/b\"\n").plan.listeners.len(),
        2
    );
}

#[test]
fn decoys_alone_forward_something_else_than_nothing() {
    let loaded = loaded("[guard]\ntrap = \"23\"\nstate = \"/b\"\n");
    assert_eq!(loaded.plan.listeners.len(), 1);
}

#[test]
fn limits_are_numbers_or_auto() {
    let limits = loaded(&format!("{ONE}[limits]\nsessions = 500\nflows = \"auto\"\n")).settings.limits;
    assert_eq!((limits.sessions.map(NonZeroU32::get), limits.flows), (Some(500), None));
    assert_eq!(
        problems(&format!("{ONE}[limits]\nsessions = 0\nflows = \"many\"\nflow = 1\n")),
        ["3:12 invalid-value", "4:10 invalid-value", "5:1 unknown-key"]
    );
}
