//! `[lists]`, `[geoip]`, `[guard]` and `[limits]`.

use super::*;
use crate::policy::{Country, ListName, ListSpec};

#[path = "../../policy/country/builder.rs"]
#[allow(clippy::duplicate_mod, reason = "the tests of the policy keep it to themselves")]
#[expect(dead_code, reason = "those tests need the rest of it")]
mod builder;

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
    let brief: Vec<_> = found.iter().map(|p| p.split(" ? ").next().unwrap().to_owned()).collect();
    assert_eq!(brief[0], "3:5: `a` is a list of addresses, or { file = \"...\" }, not an integer");
    assert!(brief[1].starts_with("4:7: `@a` is "), "{found:?}");
    assert_eq!(found[2], "4:12: `b` is a string, not an integer");
    assert_eq!(found[3], "5:7: unknown key `fil` of a list ? did you mean `file`?");
    assert_eq!(found[4], "6:5: a list without a `file` ? as in d = { file = \"d.txt\" }");
    assert_eq!(found[5], "7:15: `file` is empty ? name a file");
    assert_eq!(
        found[6],
        "8:1: `f g` is not a name for a list ? a name is 1 to 64 of the characters A-Z a-z 0-9 . _ -"
    );
    assert!(found[7].starts_with("9:6: `/etc/blocked.txt` "), "{found:?}");
    assert!(found[7].ends_with(" ? to read a file, write h = { file = \"/etc/blocked.txt\" }"), "{found:?}");
    let (gone, directory) = (&brief[8], &brief[9]);
    assert!(
        gone.starts_with("10:15: the list file ")
            && gone.ends_with("gone.txt cannot be read: no such file or directory"),
        "{gone}"
    );
    assert!(directory.ends_with(" cannot be read: it is a directory"), "{directory}");
    assert_eq!(found.len(), 10);
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
    let found = files.problems();
    let brief: Vec<_> = found.iter().map(|p| p.split(" ? ").next().unwrap()).collect();
    assert_eq!(
        brief[..3],
        [
            "portway.toml:3:8: `bar` is not an address",
            "portway.toml:5:12: port 0 cannot be listened on",
            "sub/x.txt:2:3: `home` is not an address",
        ]
    );
    assert!(brief[3].starts_with("sub/x.txt:3:1: `10.0.0.0/33` "), "{found:?}");
    assert!(found[2].contains(" ? write one such as 203.0.113.9"), "{found:?}");
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
    assert!(found[20].starts_with("x.txt:5000:1: ") && found[20].contains("4980 more"), "{}", found[20]);
}

#[test]
fn countries_come_from_the_database_beside_the_configuration() {
    let text = "[geoip]\ndatabase = \"geo/countries.mmdb\"\n[defaults]\nallow_countries = [\"de\", \"uk\"]\n\
                [[mapping]]\npublish = \"3389:10.0.0.7:3389\"\ndeny_countries = \"Fr\"\n";
    let files = Files::new(&[
        ("portway.toml", text.as_bytes()),
        ("geo/countries.mmdb", &builder::database(&[("192.0.2.0/24", "DE")])),
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
    assert_eq!(warned, ["portway.toml:4:27: UK is not a country ? the United Kingdom is \"GB\""]);
}

#[test]
fn a_list_and_an_included_file_are_regular_files() {
    let found = problems(&format!("{ONE}include = \"/dev/null\"\n[lists]\na = {{ file = \"/dev/zero\" }}\n"));
    let hint = "name a file; only the file of --config may be a pipe";
    assert_eq!(
        found,
        [
            format!("2:12: include /dev/null: it is not a regular file ? {hint}"),
            format!("4:15: the list file /dev/zero cannot be read: it is not a regular file ? {hint}"),
        ]
    );
    assert_eq!(read_list(Path::new("/dev/zero")).unwrap_err().to_string(), "it is not a regular file");
}

#[test]
fn tables_of_the_main_file_are_refused_in_an_included_one() {
    let files = Files::new(&[
        ("portway.toml", b"include = \"a.toml\"\npublish = [\"80:9\"]\n"),
        ("a.toml", b"[guard]\ntrap = [\"23\"]\n[limits]\n[geoip]\ndatabase = \"x\"\n[router]\n"),
    ]);
    let found = files.problems();
    for (i, (line, table)) in [(1, "guard"), (3, "limits"), (4, "geoip"), (6, "router")].iter().enumerate() {
        assert!(
            found[i].starts_with(&format!("a.toml:{line}:2: [{table}] in an included file ? ")),
            "{found:?}"
        );
    }
    assert_eq!(found.len(), 4);
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
    let hint = "give each list a name of its own, over all files";
    assert_eq!(
        files.problems(),
        [
            format!("a.toml:3:1: the list \"x\" is there twice, first at portway.toml:4:1 ? {hint}"),
            format!("b.toml:2:1: the list \"y\" is there twice, first at a.toml:2:1 ? {hint}"),
        ]
    );
}

#[test]
fn a_list_that_may_stand_in_a_file_that_is_not_there_is_not_called_unknown() {
    let files = Files::new(&[(
        "portway.toml",
        b"include = \"gone.toml\"\n[[mapping]]\npublish = \"80:9\"\nallow = \"@x\"\nallow_countries = \"DE\"\n",
    )]);
    let found = files.problems();
    assert!(found[0].contains("include gone.toml: "), "{found:?}");
    assert!(found[1].contains("`allow_countries` without a database"), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn a_mapping_of_an_included_file_uses_the_lists_of_the_main_one() {
    let files = Files::new(&[
        ("portway.toml", b"include = \"sub/a.toml\"\n[lists]\nx = \"192.0.2.0/24\"\n"),
        ("sub/a.toml", b"[[mapping]]\npublish = \"80:9\"\nallow = [\"@x\", \"@y\"]\n"),
    ]);
    assert_eq!(files.problems(), ["sub/a.toml:3:17: unknown list `@y` ? the lists are x"]);
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
    assert_eq!(
        problems(&format!("{ONE}[geoip]\n")),
        ["2:1: [geoip] without a `database` ? as in database = \"/var/lib/GeoIP/GeoLite2-Country.mmdb\""]
    );
    assert_eq!(
        problems(&format!("{ONE}[geoip]\ndatbase = \"x\"\n")),
        ["3:1: unknown key `datbase` in [geoip] ? did you mean `database`?"]
    );
    let found = problems(&format!("{ONE}[geoip]\ndatabase = \"gone.mmdb\"\n"));
    assert!(found[0].starts_with("3:13: the database of countries cannot be used: "), "{found:?}");
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
            "3:13: `refusals` cannot be \"unlimited\" ? say after how many a client is banned, as in \"10/min\"; without [guard] there are no automatic bans",
            "4:8: `31d` is more than 30 days ? use a time such as \"1h\", up to \"30d\"; each repeat doubles it",
            "5:9: `trap` is a string, not an integer ? write \"23\"",
            "5:14: port 0 cannot be listened on ? use a port from 1 to 65535",
            "6:11: unknown list `@x` ? name one in [lists], as in office = [\"203.0.113.0/24\"]",
            "7:10: `state` is empty ? name a file",
            "8:1: unknown key `traps` in [guard] ? did you mean `trap`?",
        ]
    );
    assert_eq!(
        problems(&format!("{ONE}[guard]\nrefusals = \"10\"\nban = \"never\"\n")),
        [
            "3:13: the rate `10` has no unit ? say after how many a client is banned, as in \"10/min\"; without [guard] there are no automatic bans",
            "4:8: `ban` cannot be \"never\": addresses change hands ? use a time such as \"1h\", up to \"30d\"; each repeat doubles it",
        ]
    );
    assert_eq!(problems(&format!("{ONE}[guard]\nban = \"0s\"\n")).len(), 1);
    let no_tables = "guard = 1\nlists = []\ngeoip = \"x\"\nlimits = 3\nrouter = true\n";
    for (problem, table) in problems(no_tables).iter().zip(["guard", "lists", "geoip", "limits", "router"]) {
        assert!(problem.contains(&format!("`{table}` is a table, as in [{table}], not a")), "{problem}");
    }
    assert_eq!(problems(no_tables).len(), 5);
}

#[test]
fn bans_without_a_file_are_a_warning() {
    assert_eq!(
        warnings(&format!("{ONE}[guard]\ntrap = \"23\"\n")),
        ["2:1: bans are kept in memory only, and forgotten when portway ends"]
    );
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
    let hint = "a trap takes a port that no mapping has";
    assert_eq!(
        problems(
            "[guard]\ntrap = [\"80\", \"22-24\", \"24\"]\nstate = \"/b\"\n[[mapping]]\npublish = \"80:9/tcp+udp\"\n[[mapping]]\nname = \"22/tcp\"\npublish = \"81:9\"\n"
        ),
        [
            format!("2:10: [::]:80/tcp is listened on twice, first at portway.toml:5:12 ? {hint}"),
            format!("2:25: [::]:24/tcp is listened on twice, first at portway.toml:2:16 ? {hint}"),
            "7:9: the name \"22/tcp\" is the default name of the listener at portway.toml:2:16 ? choose another name".into(),
        ]
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
        [
            "3:12: `sessions` is a positive number or \"auto\", not 0 ? use a number from 1",
            "4:10: `flows` is a positive number or \"auto\", not `many` ? as in flows = 100, or flows = \"auto\"",
            "5:1: unknown key `flow` in [limits] ? did you mean `flows`?",
        ]
    );
}
