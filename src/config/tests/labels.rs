//! The labels of containers, from their text to the plan.

use super::*;
use crate::config::containers::{Container, Home, Label, Seen};

/// A container at 172.18.0.5 with these labels.
fn container(name: &str, labels: &[(&str, &str)]) -> Container {
    at(name, Home::At("172.18.0.5".parse().unwrap()), labels)
}

fn at(name: &str, home: Home, labels: &[(&str, &str)]) -> Container {
    let label = |(name, value): &(&str, &str)| Label {
        name: format!("portway.{name}"),
        at: "portway.".len(),
        value: (*value).to_owned(),
    };
    Container {
        name: name.to_owned(),
        id: format!("{name}-id"),
        labels: labels.iter().map(label).collect(),
        home,
    }
}

/// A file with `[docker]`, and these containers.
fn with(text: &str, containers: Vec<Container>) -> Loaded {
    let files = file(text);
    let source = Source { file: Some(files.path("portway.toml")), ..Source::default() };
    source.containers.put(Seen { containers, trouble: None });
    load(&source, &Machine).unwrap_or_else(|e| panic!("{e}"))
}

/// The plan of one container, and what is said of it.
fn of(labels: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let loaded = with("[docker]\n", vec![container("web", labels)]);
    (plan(&loaded), said(&loaded))
}

fn said(loaded: &Loaded) -> Vec<String> {
    let about_containers = loaded.warnings.iter().filter(|warning| warning.file.starts_with("container "));
    about_containers.map(Problem::one_line).collect()
}

#[test]
fn a_label_publishes_a_port_of_its_container() {
    assert_eq!(of(&[("publish", "8081:80")]), (vec!["web [::]:8081/tcp 172.18.0.5:80".into()], vec![]));
    for (spec, expected) in [
        ("127.0.0.1:8081:80/udp", "web 127.0.0.1:8081/udp 172.18.0.5:80"),
        ("8081:10.0.0.9:80", "web [::]:8081/tcp 10.0.0.9:80"),
        ("8081:db.lan:80", "web [::]:8081/tcp db.lan:80"),
    ] {
        assert_eq!(of(&[("publish", spec)]), (vec![expected.into()], vec![]), "{spec}");
    }
}

#[test]
fn several_specs_stand_in_one_label() {
    let expected = ["web [::]:8081/tcp 172.18.0.5:80", "web [::]:8082/tcp 172.18.0.5:81"].map(String::from);
    for value in ["8081:80,8082:81", "8081:80, 8082:81,", "8081:80\n8082:81", "[\"8081:80\", \"8082:81\"]"] {
        assert_eq!(of(&[("publish", value)]), (expected.to_vec(), vec![]), "{value:?}");
    }
}

#[test]
fn groups_are_mappings_of_their_own() {
    let (plan, said) = of(&[
        ("mc.allow", "@known, 10.0.0.0/8"),
        ("mc.publish", "25565:25565"),
        ("publish", "8081:80"),
        ("rcon.listen", "127.0.0.1:25575"),
        ("rcon.name", "console"),
        ("rcon.targets", "25575"),
    ]);
    assert_eq!(plan, [""; 0]);
    assert_eq!(said.len(), 1, "the list is not there: {said:?}");
    let loaded = with(
        "[lists]\nknown = [\"192.0.2.0/24\"]\n[docker]\n",
        vec![container(
            "web",
            &[
                ("mc.allow", "@known, 10.0.0.0/8"),
                ("mc.publish", "25565:25565"),
                ("publish", "8081:80"),
                ("rcon.listen", "127.0.0.1:25575"),
                ("rcon.name", "console"),
                ("rcon.targets", "25575"),
            ],
        )],
    );
    let expected = [
        "web [::]:8081/tcp 172.18.0.5:80",
        "web.mc [::]:25565/tcp 172.18.0.5:25565",
        "console 127.0.0.1:25575/tcp 172.18.0.5:25575",
    ];
    let mut plan = plan_of(&loaded);
    plan.sort();
    let mut expected = expected.map(String::from).to_vec();
    expected.sort();
    assert_eq!(plan, expected);
    let (_, mc) = loaded.plan.about.iter().find(|(id, _)| id.name.as_str() == "web.mc").unwrap();
    assert_eq!((mc.origin, &*mc.place), (MappingOrigin::Docker, "container web, label portway.mc.publish"));
}

fn plan_of(loaded: &Loaded) -> Vec<String> {
    plan(loaded)
}

#[test]
fn values_are_numbers_flags_times_texts_and_tables() {
    let loaded = with(
        "[docker]\n",
        vec![container(
            "web",
            &[
                ("a.balance", "least-sessions"),
                ("a.enabled", "true"),
                ("a.health", "{ interval = \"5s\", rise = 3 }"),
                ("a.idle_timeout", "90s"),
                ("a.max_sessions", "7"),
                ("a.max_sessions_per_client", "unlimited"),
                ("a.publish", "8081:80"),
                ("b.health.fall", "9"),
                ("b.health.interval", "5s"),
                ("b.publish", "8082:80"),
                ("c.enabled", "false"),
                ("c.publish", "8083:80"),
            ],
        )],
    );
    assert_eq!(said(&loaded), [""; 0]);
    let options = |name: &str| {
        let (_, about) = loaded.plan.about.iter().find(|(id, _)| id.name.as_str() == name).unwrap();
        serde_json::Value::from(about.options())
    };
    let a = options("web.a");
    assert_eq!(a["max_sessions"], 7);
    assert_eq!(a["max_sessions_per_client"], "unlimited");
    assert_eq!(a["idle_timeout"], "90s");
    assert_eq!(a["balance"], "least-sessions");
    assert_eq!(a["health"]["rise"], 3);
    assert_eq!(options("web.b")["health"]["fall"], 9);
    assert!(!loaded.plan.about.iter().find(|(id, _)| id.name.as_str() == "web.c").unwrap().1.enabled);
}

#[test]
fn host_names_keep_their_dots() {
    let (plan, said) = of(&[
        ("hosts.*.example.org", "444"),
        ("hosts.mc.example.org", "10.0.0.9:443"),
        ("listen", "443"),
        ("match", "tls-sni"),
    ]);
    assert_eq!(said, [""; 0]);
    assert_eq!(plan.len(), 1, "{plan:?}");
}

#[test]
fn a_label_that_is_wrong_is_named_and_leaves_out_its_container_alone() {
    let good = || container("good", &[("publish", "8090:80")]);
    for (labels, expected) in [
        (&[("publish", "8081:80x")][..], "container web, label portway.publish: left out: "),
        (&[("alow", "10.0.0.1"), ("publish", "8081:80")], "label portway.alow: left out: unknown key `alow`"),
        (
            &[("mc.allow", "10.0.0.1"), ("mcc.publish", "8081:80")],
            "label portway.mc.allow: left out: a mapping without",
        ),
        (&[("max_sessions", "many"), ("publish", "8081:80")], "label portway.max_sessions: left out: "),
        (
            &[("publish", "8081:80"), ("health", "{ fall = 2 }"), ("health.rise", "3")],
            "label portway.health.rise: left out: ",
        ),
        (&[("publish", "8081:80"), ("x..y", "1")], "label portway.x..y: left out: "),
        (&[("publish", "8081:80"), ("", "1")], "label portway.: left out: "),
        (&[("publish", "8081:80"), ("until", "2030-01-01T00:00:00Z")], "label portway.until: left out: "),
        (&[("publish", "8081:80\u{1b}[2J")], "\\u{1b}"),
    ] {
        let loaded = with("[docker]\n", vec![container("web", labels), good()]);
        assert_eq!(plan(&loaded), ["good [::]:8090/tcp 172.18.0.5:80"], "{labels:?}");
        let said = said(&loaded);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(expected), "{labels:?}: {said:?}");
    }
}

#[test]
fn a_label_starts_nothing_and_asks_nothing_of_the_machine() {
    for (key, value) in [
        ("wake", "{ command = [\"/bin/sh\", \"-c\", \"id\"] }"),
        ("wake.docker", "other"),
        ("wake.unit", "sshd.service"),
        ("hosts", "{ \"a.org\" = { targets = \"80\", wake = { docker = \"x\" } } }"),
        ("transparent", "true"),
        ("router", "true"),
        ("router.external_port", "3000"),
    ] {
        let extra = if key == "hosts" { ("match", "http-host") } else { ("log", "all") };
        let (plan, said) = of(&[(key, value), extra, ("publish", "8081:80")]);
        assert_eq!(plan, [""; 0], "{key}");
        assert_eq!(said.len(), 1, "{said:?}");
    }
}

#[test]
fn defaults_do_not_give_containers_what_labels_cannot() {
    let text = "[docker]\n[defaults]\nrouter = true\nwake = { unit = \"a.service\" }\n";
    let loaded = with(text, vec![container("web", &[("publish", "8081:80")])]);
    let (_, listener) = loaded.plan.listeners.first_key_value().unwrap();
    assert_eq!(listener.exposure, None);
    assert_eq!(loaded.plan.wakes().count(), 0);
    let open = with(
        "[docker]\nallow_router = true\n",
        vec![container("web", &[("publish", "8081:80"), ("router", "true")])],
    );
    assert!(open.plan.listeners.first_key_value().unwrap().1.exposure.is_some());
}

#[test]
fn a_value_stays_one_value_whatever_it_holds() {
    for value in [
        "1\nallow = \"0.0.0.0/0\"",
        "\"a\"\n[[mapping]]\npublish = \"1:1\"",
        "[]\n[lists]\nx = []",
        "{ }\ninclude = \"/etc/passwd\"",
        "\"",
        "[",
        "{",
        "'''",
        "\\",
        "# nothing",
    ] {
        let (plan, said) = of(&[("max_sessions", value), ("publish", "8081:80")]);
        assert_eq!(plan, [""; 0], "{value:?}");
        assert_eq!(said.len(), 1, "{value:?}: {said:?}");
        assert!(said[0].contains("portway.max_sessions"), "{value:?}: {said:?}");
    }
}

#[test]
fn a_label_does_not_read_the_environment() {
    let (plan, said) = of(&[("publish", "${PORT}:80")]);
    assert_eq!(plan, [""; 0]);
    assert!(said[0].contains("`$` does not belong here"), "{said:?}");
    let loaded = with(
        "[docker]\n",
        vec![container(
            "web",
            &[
                ("on_connect_failure.motd", "costs $5 and ${HOME}"),
                ("match", "minecraft"),
                ("publish", "1:2"),
            ],
        )],
    );
    assert_eq!(said_len(&loaded), 0);
    let (_, about) = loaded.plan.about.first_key_value().unwrap();
    assert!(serde_json::Value::from(about.options()).to_string().contains("costs $5 and ${HOME}"));
}

fn said_len(loaded: &Loaded) -> usize {
    said(loaded).len()
}

#[test]
fn a_container_without_an_address_is_a_problem_only_where_its_address_is_needed() {
    let nowhere = || Home::Unknown("it is in a and b".to_owned(), "name one".to_owned());
    let lost = at("lost", nowhere(), &[("publish", "8081:80")]);
    let said_host = at("said", nowhere(), &[("publish", "8082:10.0.0.9:80")]);
    let loaded = with("[docker]\n", vec![lost, said_host]);
    assert_eq!(plan(&loaded), ["said [::]:8082/tcp 10.0.0.9:80"]);
    assert_eq!(
        said(&loaded),
        ["container lost, label portway.publish: left out: it is in a and b (name one)"]
    );
}

#[test]
fn of_a_clash_both_places_are_named_and_the_file_wins() {
    let text = "publish = [\"8081:10.0.0.1:80\"]\n[docker]\n";
    let loaded = with(
        text,
        vec![container("web", &[("publish", "8081:80")]), container("late", &[("publish", "8082:80")])],
    );
    assert_eq!(plan(&loaded), ["8081/tcp [::]:8081/tcp 10.0.0.1:80", "late [::]:8082/tcp 172.18.0.5:80"]);
    let said = said(&loaded);
    assert!(
        said[0].starts_with(
            "container web, label portway.publish: left out: [::]:8081/tcp is listened on twice"
        ),
        "{said:?}"
    );
    assert!(said[0].contains("portway.toml:1:13"), "{said:?}");
}

#[test]
fn of_two_containers_that_clash_the_first_wins_and_both_labels_are_named() {
    let loaded = with(
        "[docker]\n",
        vec![container("b", &[("x.publish", "8081:80")]), container("a", &[("publish", "8081:80")])],
    );
    assert_eq!(plan(&loaded), ["b.x [::]:8081/tcp 172.18.0.5:80"]);
    let said = said(&loaded);
    assert!(said[0].starts_with("container a, label portway.publish: left out: "), "{said:?}");
    assert!(said[0].contains("first at container b, label portway.x.publish"), "{said:?}");
}

#[test]
fn a_thousand_containers_with_the_same_port_are_read_in_a_moment() {
    let all = (0..1000).map(|i| container(&format!("c{i}"), &[("publish", "8081:80")])).collect();
    let started = std::time::SystemTime::now();
    let loaded = with("[docker]\n", all);
    assert_eq!((plan(&loaded).len(), said_len(&loaded)), (1, 999));
    assert!(started.elapsed().unwrap() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn without_docker_in_the_file_no_label_counts() {
    let loaded = with("publish = [\"8090:80\"]\n", vec![container("web", &[("publish", "8081:80")])]);
    assert_eq!(plan(&loaded), ["8090/tcp [::]:8090/tcp 127.0.0.1:80"]);
}

#[test]
fn a_file_of_containers_alone_needs_no_mapping() {
    let loaded = with("[docker]\n", Vec::new());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn an_engine_that_cannot_be_asked_is_a_warning_at_its_key() {
    let files = file("[docker]\nsocket = \"/run/x.sock\"\n");
    let source = Source { file: Some(files.path("portway.toml")), ..Source::default() };
    let trouble = Some(("no such file".to_owned(), "is it running?"));
    source.containers.put(Seen { containers: vec![container("web", &[("publish", "8081:80")])], trouble });
    let loaded = load(&source, &Machine).unwrap();
    let warning = files.brief(&loaded.warnings[0].one_line());
    assert!(
        warning
            .starts_with("portway.toml:2:11: the container engine /run/x.sock cannot be asked: no such file"),
        "{warning}"
    );
    assert_eq!(plan(&loaded).len(), 1, "what ran goes on");
}

#[cfg(feature = "docker")]
#[test]
fn another_look_at_the_containers_reads_no_file_of_mappings() {
    let files = file("publish = [\"8090:80\"]\n[docker]\n");
    let source = Source { file: Some(files.path("portway.toml")), ..Source::default() };
    let first = load(&source, &Machine).unwrap();
    fs::write(files.path("portway.toml"), "half a li").unwrap();
    source
        .containers
        .put(Seen { containers: vec![container("web", &[("publish", "8081:80")])], trouble: None });
    let again = first.texts.unwrap().again().unwrap();
    assert_eq!(plan(&again), ["web [::]:8081/tcp 172.18.0.5:80", "8090/tcp [::]:8090/tcp 127.0.0.1:80"]);
    assert!(again.texts.is_some());
}

#[test]
fn the_keys_of_docker_are_checked() {
    for (text, expected) in [
        ("socket = \"docker.sock\"", "2:11 invalid-value"),
        ("socket = \"ssh://x\"", "2:11 invalid-value"),
        ("label_prefix = \"\"", "2:17 invalid-value"),
        ("label_prefix = \"a b\"", "2:17 invalid-value"),
        ("network = \"\"", "2:12 invalid-value"),
        ("allow_router = \"yes\"", "2:16 wrong-type"),
        ("sockets = \"/x\"", "2:1 unknown-key"),
    ] {
        assert_eq!(problems(&format!("[docker]\n{text}\n")), [expected], "{text}");
    }
    let loaded = loaded(
        "[docker]\nsocket = \"tcp://proxy:2375\"\nlabel_prefix = \"pw\"\nnetwork = \"lan\"\nallow_router = true\n",
    );
    let docker = loaded.settings.docker.unwrap();
    assert_eq!((docker.engine.to_string(), &*docker.label_prefix), ("tcp://proxy:2375".into(), "pw"));
    assert_eq!((docker.network.as_deref(), docker.allow_router), (Some("lan"), true));
}

proptest! {
    #[test]
    fn no_label_makes_another_key_or_a_panic(name in "[a-z.*\"\\[\\]=\n]{0,20}", value in any::<String>()) {
        let loaded = with("[docker]\n", vec![container("web", &[("x.publish", "8081:80"), (&format!("x.{name}"), &value)])]);
        prop_assert!(loaded.plan.listeners.len() <= 1 || name == "publish" || name == "listen");
    }
}
