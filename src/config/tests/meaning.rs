//! What a sound text means, and what is refused in one.

use super::*;

#[test]
fn specs_alone_make_a_plan() {
    let loaded = specs(&["8080:80", "127.0.0.1:53:10.0.0.53:53/udp"]).unwrap();
    assert_eq!(
        plan(&loaded),
        ["8080/tcp [::]:8080/tcp 127.0.0.1:80", "53/udp 127.0.0.1:53/udp 10.0.0.53:53"]
    );
    let ApiSettings { socket, managed, .. } = loaded.settings.api.clone();
    let api = ApiSettings { socket, managed, ..ApiSettings::default() };
    assert_eq!(loaded.settings, Settings { api, ..Settings::default() });
    assert_eq!(loaded.settings.grace, Timeout::After(Duration::from_secs(30)));
}

#[test]
fn a_spec_is_refused_with_its_column() {
    let problems = specs(&["8080:80", "8080:0"]).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "-p \"8080:0\" (column 6): port 0 cannot be connected to\n   = help: use a port from 1 to 65535"
    );
}

#[test]
fn a_source_with_neither_file_nor_spec_is_refused() {
    assert_eq!(found(specs(&[]).unwrap_err().iter().next().unwrap()), "1:1 nothing-to-forward");
}

#[test]
fn an_empty_plan_is_a_warning() {
    for text in ["", "publish = []\n", "[log]\nlevel = \"info\"\n", "include = [\"conf.d/*.toml\"]\n"] {
        assert!(loaded(text).plan.listeners.is_empty(), "{text}");
        assert!(warnings(text).contains(&"1:1 nothing-to-forward".to_owned()), "{text}");
    }
    assert_eq!(warnings("[[mapping]]\npublish = []\n"), ["1:1 nothing-to-forward", "2:11 empty"]);
    let problems = problems("[[mapping]]\nlisten = []\ntargets = []\n");
    assert_eq!(problems, ["3:11 empty"]);
}

#[test]
fn a_file_of_disabled_mappings_only_is_a_warning() {
    let text = "[[mapping]]\npublish = \"80:8080\"\nenabled = false\n";
    assert_eq!(warnings(text), ["1:1 nothing-to-forward"]);
    assert!(loaded(text).plan.listeners.is_empty());
}

#[test]
fn the_long_form_leads_every_listener_to_every_target() {
    let loaded = loaded(
        "[[mapping]]\nname = \"web\"\nlisten = [\"127.0.0.1:80\", \"[::1]:https\"]\n\
         targets = [\"10.0.0.7:80\", { address = \"nas.lan:81\" }, \"82\"]\nprotocol = \"tcp+udp\"\n",
    );
    let targets = "10.0.0.7:80,nas.lan:81,127.0.0.1:82";
    assert_eq!(
        plan(&loaded),
        [
            format!("web 127.0.0.1:80/tcp {targets}"),
            format!("web [::1]:443/tcp {targets}"),
            format!("web 127.0.0.1:80/udp {targets}"),
            format!("web [::1]:443/udp {targets}"),
        ]
    );
}

#[test]
fn ranges_of_the_long_form_are_paired() {
    let loaded =
        loaded("[[mapping]]\nlisten = \"5000-5001\"\ntargets = [\"cam.lan:6000-6001\", \"10.0.0.1:9\"]\n");
    assert_eq!(
        plan(&loaded),
        [
            "5000-5001/tcp [::]:5000/tcp cam.lan:6000,10.0.0.1:9",
            "5000-5001/tcp [::]:5001/tcp cam.lan:6001,10.0.0.1:9"
        ]
    );
    assert_eq!(
        problems("[[mapping]]\nlisten = [\"1-2\", \"7\"]\ntargets = [\"c:1-3\", \"c:9\"]\n"),
        ["3:13 range-mismatch", "3:13 range-mismatch"]
    );
}

#[test]
fn options_come_from_the_mapping_then_the_defaults_then_the_program() {
    let loaded = loaded(
        "publish = [\"1:9\"]\n[defaults]\nidle_timeout = \"1h\"\nkeepalive = \"never\"\nsource = \"10.0.0.1\"\n\
         [[mapping]]\npublish = \"[::1]:2:2/tcp+udp\"\nidle_timeout = \"2h\"\nconnect_timeout = \"1s\"\n\
         half_close_timeout = \"500ms\"\n",
    );
    let options: Vec<_> = loaded
        .plan
        .listeners
        .values()
        .map(|l| match &l.service {
            Service::Tcp(s) => format!(
                "{:?} {} {} {} {:?}",
                s.options.connect_timeout,
                s.options.idle_timeout,
                s.options.half_close_timeout,
                s.options.keepalive,
                s.options.source.unwrap(),
            ),
            Service::Udp(s) => format!("{} {:?}", s.options.idle_timeout, s.options.source.unwrap()),
            Service::Trap | Service::Knock | Service::Step => "Trap".into(),
        })
        .collect();
    assert_eq!(options, ["5s 1h 5m never 10.0.0.1", "1s 2h 500ms never 10.0.0.1", "2h 10.0.0.1"]);
}

#[test]
fn settings_are_read() {
    let settings =
        loaded("publish = [\"1:9\"]\n[log]\nlevel = \"trace\"\nformat = \"json\"\ntarget = \"stderr\"\n[shutdown]\ngrace = \"never\"\n")
            .settings;
    assert_eq!(
        settings.log,
        LogSettings { level: LogLevel::Trace, format: LogFormat::Json, target: LogTarget::Stderr }
    );
    assert_eq!(settings.grace, Timeout::Never);
    let grace =
        |text: &str| loaded(&format!("publish = [\"1:9\"]\n[shutdown]\ngrace = \"{text}\"\n")).settings.grace;
    assert_eq!((grace("0s"), grace("0ms")), (Timeout::After(Duration::ZERO), Timeout::After(Duration::ZERO)));
}

#[test]
fn settings_are_refused_with_what_would_be_right() {
    assert_eq!(
        problems(
            "publish = [\"1:9\"]\n[log]\nlevel = \"inof\"\nformat = \"xml\"\ntarget = \"journal\"\n[shutdown]\ngrace = \"0\"\nforce = 1\n"
        ),
        [
            "3:10 invalid-value",
            "4:11 invalid-value",
            "5:11 invalid-value",
            "7:10 invalid-value",
            "8:1 unknown-key"
        ]
    );
}

#[test]
fn unknown_keys_are_refused_with_a_suggestion() {
    assert_eq!(
        problems(
            "publsh = []\n[[mapping]]\nlisen = \"80\"\nidle-timeout = \"5s\"\nnonsense = true\npublish = \"80:9\"\ntargets = [{ adress = \"a:1\" }]\n[defaults]\nname = \"x\"\nkeepalives = \"1s\"\n"
        ),
        [
            "1:1 unknown-key",
            "3:1 unknown-key",
            "4:1 unknown-key",
            "5:1 unknown-key",
            "7:1 conflicting-keys",
            "7:14 unknown-key",
            "9:1 misplaced-key",
            "10:1 unknown-key"
        ]
    );
}

#[test]
fn a_short_word_is_a_slip_only_of_what_begins_so_or_differs_by_a_letter() {
    let found = file("ub = 1\nlgo = 1\nlos = 1\nip = 1\ninc = 1\npublish = \"80:9\"\n").load().unwrap_err();
    let guesses = found.iter().map(|p| p.help.as_deref().unwrap().starts_with("did you mean"));
    assert_eq!(guesses.collect::<Vec<_>>(), [false, true, true, false, true], "{found}");
}

#[test]
fn values_of_another_type_are_refused() {
    assert_eq!(
        problems(
            "publish = [8080, \"80:9\"]\ninclude = 7\n[defaults]\nidle_timeout = 30\nenabled = \"yes\"\n[[mapping]]\nname = 3\nlisten = [3389]\ntargets = 80\n"
        ),
        [
            "1:12 wrong-type",
            "2:11 wrong-type",
            "4:16 wrong-type",
            "5:11 wrong-type",
            "7:8 wrong-type",
            "8:11 wrong-type",
            "9:11 wrong-type"
        ]
    );
    assert_eq!(problems("[mapping]\npublish = \"80:0\"\n"), ["1:1 wrong-type", "2:15 invalid-spec"]);
    assert_eq!(problems("mapping = [1]\ndefaults = 1\nlog = []\n").len(), 3);
}

#[test]
fn one_problem_of_a_mapping_does_not_hide_the_others() {
    assert_eq!(
        problems(
            "[[mapping]]\nname = \"a b\"\nlisten = [\"0:1\", \"1-2\"]\ntargets = [\"c:0\", \"c:1-3\"]\nprotocol = \"tpc\"\nkeepalive = \"x\"\n[[mapping]]\nlisten = \"70000\"\n"
        ),
        [
            "2:9 invalid-name",
            "3:12 invalid-spec",
            "4:15 invalid-spec",
            "4:20 range-mismatch",
            "5:13 invalid-value",
            "6:14 invalid-value",
            "8:1 missing-key",
            "8:11 invalid-spec"
        ]
    );
}

#[test]
fn a_mapping_has_one_form() {
    assert_eq!(
        problems(
            "[[mapping]]\nname = \"a\"\n[[mapping]]\nlisten = \"80\"\n[[mapping]]\ntargets = \"81\"\n[[mapping]]\npublish = \"82:9\"\nlisten = \"83\"\nprotocol = \"tcp\"\n"
        ),
        [
            "1:1 missing-key",
            "4:1 missing-key",
            "6:1 missing-key",
            "9:1 conflicting-keys",
            "10:1 conflicting-keys"
        ]
    );
}

#[test]
fn an_option_of_tcp_is_a_warning_for_udp_alone() {
    let text = "[defaults]\nkeepalive = \"30s\"\n[[mapping]]\npublish = \"5300:9/udp\"\nconnect_timeout = \"1s\"\n\
                keepalive = \"1s\"\nhalf_close_timeout = \"1s\"\n[[mapping]]\npublish = \"5400:9/tcp+udp\"\nkeepalive = \"1s\"\n";
    assert_eq!(warnings(text), ["5:20 no-effect", "6:14 no-effect", "7:23 no-effect"]);
    assert_eq!(loaded(text).plan.listeners.len(), 3);
}

#[test]
fn times_out_of_range_are_refused() {
    assert_eq!(
        problems(
            "[[mapping]]\npublish = \"80:9\"\nconnect_timeout = \"never\"\nidle_timeout = \"0s\"\nhalf_close_timeout = \"5\"\nkeepalive = \"1500ms\"\n[[mapping]]\npublish = \"81:9\"\nkeepalive = \"10h\"\n"
        ),
        [
            "3:20 invalid-value",
            "4:17 invalid-value",
            "5:23 invalid-value",
            "6:14 invalid-value",
            "9:14 invalid-value"
        ]
    );
}

#[test]
fn a_source_must_be_able_to_reach_the_target() {
    assert_eq!(
        problems(
            "[defaults]\nsource = \"10.0.0.1\"\n[[mapping]]\npublish = \"80:[::1]:9\"\n[[mapping]]\npublish = \"81:9\"\nsource = \"::1\"\n[[mapping]]\npublish = \"82:nas:9\"\nsource = \"eth0\"\n[[mapping]]\npublish = \"83:9\"\nsource = \"0.0.0.0\"\n"
        ),
        ["4:12 unreachable", "7:11 unreachable", "10:11 invalid-value", "13:11 invalid-value"]
    );
}

#[test]
fn a_name_is_used_once() {
    assert_eq!(
        problems(
            "publish = [\"8080:9\"]\n[[mapping]]\nname = \"web\"\npublish = \"80:9\"\n[[mapping]]\nname = \"web\"\npublish = \"81:9\"\nenabled = false\n[[mapping]]\nname = \"8080/tcp\"\npublish = \"82:9\"\n[[mapping]]\nname = \"a b\"\npublish = \"83:9\"\n"
        ),
        ["6:9 duplicate-name", "10:9 duplicate-name", "13:9 invalid-name"]
    );
}

#[test]
fn default_names_may_repeat_and_its_own_may_be_spelled_out() {
    assert_eq!(loaded("publish = [\"127.0.0.1:80:9\", \"127.0.0.2:80:9\"]\n").plan.listeners.len(), 2);
    assert_eq!(loaded("[[mapping]]\nname = \"80/tcp\"\npublish = \"80:9\"\n").plan.listeners.len(), 1);
}

#[test]
fn a_listener_used_twice_is_refused_with_both_places() {
    for (first, second) in [
        ("80:9", "80:9"),
        ("80:9", "127.0.0.1:80:9"),
        ("127.0.0.1:80:9", "80:9"),
        ("0.0.0.0:80:9", "80:9"),
        ("0.0.0.0:80:9", "[::1]:80:9"),
        ("127.0.0.1:80:9", "[::ffff:127.0.0.1]:80:9"),
        ("70-90:9", "80-100:9"),
        ("80:9/udp", "80:9/tcp+udp"),
    ] {
        assert_eq!(
            problems(&format!("publish = [\n\"{first}\",\n\"{second}\",\n]\n")),
            ["3:2 port-in-use"],
            "{first} {second}"
        );
    }
    let problems = specs(&["80:9", "80:10"]).unwrap_err();
    assert_eq!(
        problems.iter().next().unwrap().summary(),
        "-p \"80:10\" (column 1): [::]:80/tcp is listened on twice, first at -p \"80:9\""
    );
}

#[test]
fn other_protocols_ports_zones_and_disabled_mappings_do_not_collide() {
    let loaded = loaded(
        "publish = [\"80:9\", \"80:9/udp\", \"127.0.0.1:81:9\", \"[::1]:81:9\", \"[fe80::1%a]:82:9\", \"[fe80::1%b]:82:9\"]\n\
         [[mapping]]\npublish = \"80:9\"\nenabled = false\n",
    );
    assert_eq!(loaded.plan.listeners.len(), 6);
}

#[test]
fn a_target_that_is_its_own_listener_is_refused() {
    for spec in [
        "80:80",
        "127.0.0.1:80:80",
        "80:127.0.0.9:80",
        "80:192.168.1.2:80",
        "192.168.1.2:80:192.168.1.2:80",
        "80:localhost:80",
        "[::1]:80:LOCALHOST.:80",
        "80:[::1]:80/udp",
        "0.0.0.0:80:80",
        "5000-5010:127.0.0.1:5000-5010",
        "5000-5010:5005",
        "[fe80::1%eth0]:80:[fe80::1%eth0]:80",
    ] {
        assert_eq!(problems(&format!("publish = \"{spec}\"\n")), ["1:12 loop"], "{spec}");
    }
    for spec in [
        "80:10.0.0.1:80",
        "127.0.0.1:80:127.0.0.2:80",
        "127.0.0.1:80:192.168.1.2:80",
        "0.0.0.0:80:[::1]:80",
        "80:nas:80",
        "5000-5001:5001-5002",
    ] {
        assert!(!loaded(&format!("publish = \"{spec}\"\n")).plan.listeners.is_empty(), "{spec}");
    }
}

#[test]
fn listeners_that_lead_in_a_circle_are_refused() {
    assert_eq!(
        problems(
            "publish = [\n\"80:81\",\n\"81:192.168.1.2:82\",\n\"127.0.0.1:83:80\",\n\"82:10.0.0.1:1\",\n\"[::1]:80:9/udp\",\n]\n[[mapping]]\nlisten = \"84\"\ntargets = [\"10.0.0.1:9\", \"localhost:85\"]\n[[mapping]]\nlisten = \"85\"\ntargets = [\"84\"]\n"
        ),
        ["13:13 loop"]
    );
    assert!(loaded("publish = [\"80:81\", \"81:80/udp\"]\n").plan.listeners.len() == 2);
}

#[test]
fn variables_are_expanded_in_any_string() {
    let loaded = loaded(
        "publish = [\"${PORT}:${TARGET:-nas.lan}:80\"]\n[log]\nlevel = \"${LEVEL:-debug}\"\n[[mapping]]\nname = \"n${PORT}\"\n\
         listen = [\"127.0.0.1:${NEXT:-81}\"]\ntargets = [{ address = \"${X:-a}:1\" }]\nidle_timeout = \"${T:-5m}\"\n",
    );
    assert_eq!(plan(&loaded), ["n8080 127.0.0.1:81/tcp a:1", "8080/tcp [::]:8080/tcp nas.lan:80"]);
    assert_eq!(loaded.settings.log.level, LogLevel::Debug);
}

#[test]
fn a_problem_with_a_variable_points_at_it() {
    let files =
        file("publish = [\"80:${NOPE}\", \"127.0.0.1:${BAD}:80\", \"8\\u0031:0\", \"${PORT}:0\", \"x${\"]\n");
    assert_eq!(
        files.problems(),
        [
            "portway.toml:1:16 invalid-variable",
            "portway.toml:1:37 invalid-spec",
            "portway.toml:1:49 invalid-spec",
            "portway.toml:1:71 invalid-spec",
            "portway.toml:1:77 invalid-variable"
        ]
    );
    let problems = files.load().unwrap_err();
    let bad = problems.iter().nth(1).unwrap();
    assert_eq!(bad.text, "0");
}

#[test]
fn exposed_services_and_ephemeral_ports_are_warned_of_once_a_mapping() {
    assert_eq!(
        warnings(
            "publish = [\n\"3389:10.0.0.7:3389/tcp+udp\",\n\"2300:10.0.0.7:23\",\n\"400-500:10.0.0.7:400-500\",\n\"127.0.0.1:139:10.0.0.7:139\",\n\"1023:10.0.0.7:23/udp\",\n\"40000-40100:10.0.0.7:80\",\n\"127.0.0.1:60999:9\",\n\"61000:9\",\n]\n"
        ),
        [
            "2:2 exposed-service",
            "3:2 exposed-service",
            "4:2 exposed-service",
            "7:2 ephemeral-port",
            "8:2 ephemeral-port"
        ]
    );
}

#[test]
fn ten_thousand_mappings_load() {
    let mut text = String::new();
    for i in 0..10_000 {
        text.push_str(&format!(
            "[[mapping]]\nname = \"m{i}\"\npublish = \"127.0.{}.{}:{}:192.168.1.2:{}/tcp\"\n",
            i / 250,
            i % 250,
            1000 + i,
            1001 + i
        ));
    }
    assert_eq!(loaded(&text).plan.listeners.len(), 10_000);
}

#[test]
fn the_number_of_listeners_is_bounded() {
    let all: Vec<_> = (1..=9).map(|i| format!("\"127.0.0.{i}:1-65535:10.0.0.1:1\"")).collect();
    let found = problems(&format!("publish = [\n{}]\n", all.join(",\n")));
    assert_eq!(found, ["6:2 too-many"]);
}
