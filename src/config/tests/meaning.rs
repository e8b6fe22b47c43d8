//! What a sound text means, and what is refused in one.

use super::*;

#[test]
fn specs_alone_make_a_plan() {
    let loaded = specs(&["8080:80", "127.0.0.1:53:10.0.0.53:53/udp"]).unwrap();
    assert_eq!(
        plan(&loaded),
        ["8080/tcp [::]:8080/tcp 127.0.0.1:80", "53/udp 127.0.0.1:53/udp 10.0.0.53:53"]
    );
    assert_eq!(loaded.settings, Settings::default());
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
    assert!(specs(&[]).unwrap_err().to_string().starts_with("command line: nothing to forward"));
}

#[test]
fn an_empty_plan_is_a_warning() {
    for text in ["", "publish = []\n", "[log]\nlevel = \"info\"\n", "include = [\"conf.d/*.toml\"]\n"] {
        assert!(loaded(text).plan.listeners.is_empty(), "{text}");
        assert!(
            warnings(text)
                .contains(&"1:1: nothing is forwarded: the configuration has no mapping".to_owned()),
            "{text}"
        );
    }
    assert_eq!(
        warnings("[[mapping]]\npublish = []\n"),
        [
            "1:1: nothing is forwarded: the configuration has no mapping",
            "2:11: `publish` is empty: this mapping forwards nothing"
        ]
    );
    let problems = problems("[[mapping]]\nlisten = []\ntargets = []\n");
    assert_eq!(problems, ["3:11: `targets` is empty ? name at least one"]);
}

#[test]
fn a_file_of_disabled_mappings_only_is_a_warning() {
    let text = "[[mapping]]\npublish = \"80:8080\"\nenabled = false\n";
    assert_eq!(warnings(text), ["1:1: nothing is forwarded: every mapping is disabled"]);
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
        [
            "3:13: 2 listen ports cannot lead to a range of 3 target ports ? give both ranges the same length, or name one target port for all",
            "3:13: one listen port cannot lead to a range of 3 target ports ? give both ranges the same length, or name one target port for all",
        ]
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
            Service::Tcp(s) => format!("{:?}", s.options),
            Service::Udp(s) => format!("{:?}", s.options),
            Service::Trap => "Trap".into(),
        })
        .collect();
    assert_eq!(
        options,
        [
            "TcpOptions { connect_timeout: 5s, idle_timeout: After(3600s), half_close_timeout: After(300s), keepalive: Never, source: Some(10.0.0.1), bandwidth: None }",
            "TcpOptions { connect_timeout: 1s, idle_timeout: After(7200s), half_close_timeout: After(500ms), keepalive: Never, source: Some(10.0.0.1), bandwidth: None }",
            "UdpOptions { idle_timeout: After(7200s), source: Some(10.0.0.1), bandwidth: None }",
        ]
    );
}

#[test]
fn settings_are_read() {
    let settings =
        loaded("publish = [\"1:9\"]\n[log]\nlevel = \"trace\"\nformat = \"json\"\ntarget = \"stderr\"\n[shutdown]\ngrace = \"never\"\n")
            .settings;
    assert_eq!(settings.log, LogSettings { level: LogLevel::Trace, format: LogFormat::Json });
    assert_eq!(settings.grace, Timeout::Never);
    let grace =
        |text: &str| loaded(&format!("publish = [\"1:9\"]\n[shutdown]\ngrace = \"{text}\"\n")).settings.grace;
    assert_eq!((grace("0s"), grace("0ms")), (Timeout::After(Duration::ZERO), Timeout::After(Duration::ZERO)));
}

#[test]
fn settings_are_refused_with_what_would_be_right() {
    assert_eq!(
        problems(
            "publish = [\"1:9\"]\n[log]\nlevel = \"inof\"\nformat = \"xml\"\ntarget = \"journald\"\n[shutdown]\ngrace = \"0\"\nforce = 1\n"
        ),
        [
            "3:10: unknown level `inof` ? did you mean \"info\"?",
            "4:11: unknown format `xml` ? it is one of text, json",
            "5:11: the log target `journald` is not supported ? only \"stderr\" is supported in this version",
            "7:10: the duration `0` has no unit ? write \"never\"",
            "8:1: unknown key `force` in [shutdown] ? the keys here are grace",
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
            "1:1: unknown key `publsh` at the top of the file ? did you mean `publish`?",
            "3:1: unknown key `lisen` in [[mapping]] ? did you mean `listen`?",
            "4:1: unknown key `idle-timeout` in [[mapping]] ? did you mean `idle_timeout`?",
            "5:1: unknown key `nonsense` in [[mapping]] ? the keys here are name, publish, listen, targets, protocol, enabled, connect_timeout, idle_timeout, half_close_timeout, keepalive, source, bandwidth_per_session, max_sessions, max_sessions_per_client, allow, deny, allow_countries, deny_countries, new_sessions, new_sessions_per_client, burst, burst_per_client, datagrams_per_client, refuse, log, router",
            "7:1: `targets` beside `publish` ? use either `publish`, or `listen` and `targets`",
            "7:14: unknown key `adress` of a target ? did you mean `address`?",
            "9:1: `name` has no default ? it belongs in a [[mapping]]",
            "10:1: unknown key `keepalives` in [defaults] ? did you mean `keepalive`?",
        ]
    );
}

#[test]
fn keys_that_only_this_version_does_not_have_are_not_called_unknown() {
    let of_mapping = "balance = \"first\"\nhealth = {}\nhosts = {}\nmatch = \"none\"\nsend_proxy = \"v1\"\n\
                      accept_proxy = []\non_down = \"keep\"\n";
    let text = format!(
        "[[mapping]]\nlisten = \"80\"\ntargets = [{{ address = \"a:1\", weight = 2, backup = true }}]\n{of_mapping}\
         [defaults]\n{of_mapping}[api]\nlisten = \"127.0.0.1:9180\"\n"
    );
    let found = problems(&text);
    assert_eq!(found[0], "3:31: `weight` of a target is not in this version ? remove it");
    assert_eq!(found[2], "4:1: `balance` in [[mapping]] is not in this version ? remove it");
    assert_eq!(found[15], "18:1: `on_down` in [defaults] is not in this version ? remove it");
    assert_eq!(found[16], "19:2: `api` at the top of the file is not in this version ? remove it");
    assert!(found.iter().all(|p| p.ends_with(" is not in this version ? remove it")), "{found:#?}");
    assert_eq!(found.len(), 2 + 7 + 7 + 1);
}

#[test]
fn a_short_word_is_a_slip_only_of_what_begins_so_or_differs_by_a_letter() {
    let found = problems("ap = 1\nlgo = 1\nlos = 1\nip = 1\ninc = 1\npublish = \"80:9\"\n");
    let hints: Vec<_> =
        found.iter().map(|p| p.split_once(" ? ").unwrap().1.split(' ').next().unwrap()).collect();
    assert_eq!(hints, ["the", "did", "did", "the", "did"], "{found:#?}");
}

#[test]
fn values_of_another_type_are_refused() {
    assert_eq!(
        problems(
            "publish = [8080, \"80:9\"]\ninclude = 7\n[defaults]\nidle_timeout = 30\nenabled = \"yes\"\n[[mapping]]\nname = 3\nlisten = [3389]\ntargets = 80\n"
        ),
        [
            "1:12: `publish` is a string, not an integer ? as in publish = [\"8080:80\"]",
            "2:11: `include` is a list of strings, not an integer ? as in include = [\"conf.d/*.toml\"]",
            "4:16: `idle_timeout` is a string, not an integer ? write \"30s\"",
            "5:11: `enabled` is true or false, not a string ? write true",
            "7:8: `name` is a string, not an integer ? write \"3\"",
            "8:11: `listen` is a string, not an integer ? write \"3389\"",
            "9:11: `targets` is a list of strings, not an integer ? write \"80\"",
        ]
    );
    assert_eq!(
        problems("[mapping]\npublish = \"80:0\"\n"),
        [
            "1:1: `mapping` is a list of tables ? write [[mapping]], with two brackets",
            "2:15: port 0 cannot be connected to ? use a port from 1 to 65535",
        ]
    );
    assert_eq!(problems("mapping = [1]\ndefaults = 1\nlog = []\n").len(), 3);
}

#[test]
fn one_problem_of_a_mapping_does_not_hide_the_others() {
    assert_eq!(
        problems("[[mapping]]\nname = \"a b\"\nlisten = [\"0:1\", \"1-2\"]\ntargets = [\"c:0\", \"c:1-3\"]\nprotocol = \"tpc\"\nkeepalive = \"x\"\n[[mapping]]\nlisten = \"70000\"\n")
            .iter()
            .map(|p| p.split(" ? ").next().unwrap())
            .collect::<Vec<_>>(),
        [
            "2:9: `a b` is not a name for a mapping",
            "3:12: `0` is not an IP address of this machine",
            "4:15: port 0 cannot be connected to",
            "4:20: 2 listen ports cannot lead to a range of 3 target ports",
            "5:13: unknown protocol `tpc`",
            "6:14: `x` is not a duration",
            "8:1: `listen` without `targets`",
            "8:11: port 70000 is above 65535",
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
            "1:1: a mapping without `publish` or `listen` ? say what it forwards, as in publish = \"8080:80\"",
            "4:1: `listen` without `targets` ? say where it leads, as in targets = [\"10.0.0.7:3389\"]",
            "6:1: `targets` without `listen` ? say where it listens, as in listen = [\"3389\"]",
            "9:1: `listen` beside `publish` ? use either `publish`, or `listen` and `targets`",
            "10:1: `protocol` beside `publish` ? write it in the spec, as in publish = \"8080:80/tcp+udp\"",
        ]
    );
}

#[test]
fn an_option_of_tcp_is_a_warning_for_udp_alone() {
    let text = "[defaults]\nkeepalive = \"30s\"\n[[mapping]]\npublish = \"5300:9/udp\"\nconnect_timeout = \"1s\"\n\
                keepalive = \"1s\"\nhalf_close_timeout = \"1s\"\n[[mapping]]\npublish = \"5400:9/tcp+udp\"\nkeepalive = \"1s\"\n";
    assert_eq!(
        warnings(text),
        [
            "5:20: `connect_timeout` has no meaning for UDP",
            "6:14: `keepalive` has no meaning for UDP",
            "7:23: `half_close_timeout` has no meaning for UDP",
        ]
    );
    assert_eq!(loaded(text).plan.listeners.len(), 3);
}

#[test]
fn times_out_of_range_are_refused() {
    assert_eq!(
        problems(
            "[[mapping]]\npublish = \"80:9\"\nconnect_timeout = \"never\"\nidle_timeout = \"0s\"\nhalf_close_timeout = \"5\"\nkeepalive = \"1500ms\"\n[[mapping]]\npublish = \"81:9\"\nkeepalive = \"10h\"\n"
        ),
        [
            "3:20: `connect_timeout` cannot be \"never\" ? a client waits this long for a dead target; use a time such as \"5s\" or \"500ms\"",
            "4:17: `0s` is zero ? write \"never\"",
            "5:23: the duration `5` has no unit ? write \"5s\"",
            "6:14: `keepalive` is whole seconds, from 1s to 32767s ? use whole seconds from \"1s\" to \"32767s\", as the kernel does; or \"never\"",
            "9:14: `keepalive` is whole seconds, from 1s to 32767s ? use whole seconds from \"1s\" to \"32767s\", as the kernel does; or \"never\"",
        ]
    );
}

#[test]
fn a_source_must_be_able_to_reach_the_target() {
    assert_eq!(
        problems(
            "[defaults]\nsource = \"10.0.0.1\"\n[[mapping]]\npublish = \"80:[::1]:9\"\n[[mapping]]\npublish = \"81:9\"\nsource = \"::1\"\n[[mapping]]\npublish = \"82:nas:9\"\nsource = \"eth0\"\n[[mapping]]\npublish = \"83:9\"\nsource = \"0.0.0.0\"\n"
        ),
        [
            "4:12: the source 10.0.0.1 cannot reach the target ::1 ? its source is an IPv6 address",
            "7:11: the source ::1 cannot reach the target 127.0.0.1 ? its source is an IPv4 address",
            "10:11: the source `eth0` is not an IP address ? use an address of this machine, without port or zone, as in \"192.168.1.2\"",
            "13:11: the source `0.0.0.0` stands for every address ? leave `source` out, and the kernel chooses the address",
        ]
    );
}

#[test]
fn a_name_is_used_once() {
    assert_eq!(
        problems(
            "publish = [\"8080:9\"]\n[[mapping]]\nname = \"web\"\npublish = \"80:9\"\n[[mapping]]\nname = \"web\"\npublish = \"81:9\"\nenabled = false\n[[mapping]]\nname = \"8080/tcp\"\npublish = \"82:9\"\n[[mapping]]\nname = \"a b\"\npublish = \"83:9\"\n"
        ),
        [
            "6:9: the name \"web\" is used twice, first at portway.toml:3:9 ? give each mapping a name of its own",
            "10:9: the name \"8080/tcp\" is the default name of the listener at portway.toml:1:13 ? choose another name",
            "13:9: `a b` is not a name for a mapping ? write \"a-b\"",
        ]
    );
}

#[test]
fn default_names_may_repeat_and_its_own_may_be_spelled_out() {
    assert_eq!(loaded("publish = [\"127.0.0.1:80:9\", \"127.0.0.2:80:9\"]\n").plan.listeners.len(), 2);
    assert_eq!(loaded("[[mapping]]\nname = \"80/tcp\"\npublish = \"80:9\"\n").plan.listeners.len(), 1);
}

#[test]
fn a_listener_used_twice_is_refused_with_both_places() {
    let hint = "a port takes one mapping for each protocol, and a wildcard takes all addresses";
    for (first, second, key) in [
        ("80:9", "80:9", "[::]:80/tcp"),
        ("80:9", "127.0.0.1:80:9", "127.0.0.1:80/tcp"),
        ("127.0.0.1:80:9", "80:9", "[::]:80/tcp"),
        ("0.0.0.0:80:9", "80:9", "[::]:80/tcp"),
        ("0.0.0.0:80:9", "[::1]:80:9", "[::1]:80/tcp"),
        ("127.0.0.1:80:9", "[::ffff:127.0.0.1]:80:9", "127.0.0.1:80/tcp"),
        ("70-90:9", "80-100:9", "[::]:80/tcp"),
        ("80:9/udp", "80:9/tcp+udp", "[::]:80/udp"),
    ] {
        assert_eq!(
            problems(&format!("publish = [\n\"{first}\",\n\"{second}\",\n]\n")),
            [format!("3:2: {key} is listened on twice, first at portway.toml:2:2 ? {hint}")],
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
    let hint = "lead to another port, or to another machine";
    for (spec, target) in [
        ("80:80", "127.0.0.1:80"),
        ("127.0.0.1:80:80", "127.0.0.1:80"),
        ("80:127.0.0.9:80", "127.0.0.9:80"),
        ("80:192.168.1.2:80", "192.168.1.2:80"),
        ("192.168.1.2:80:192.168.1.2:80", "192.168.1.2:80"),
        ("80:localhost:80", "localhost:80"),
        ("[::1]:80:LOCALHOST.:80", "LOCALHOST.:80"),
        ("80:[::1]:80/udp", "[::1]:80"),
        ("0.0.0.0:80:80", "127.0.0.1:80"),
        ("5000-5010:127.0.0.1:5000-5010", "127.0.0.1:5000"),
        ("5000-5010:5005", "127.0.0.1:5005"),
        ("[fe80::1%eth0]:80:[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
    ] {
        assert_eq!(
            problems(&format!("publish = \"{spec}\"\n")),
            [format!("1:12: the target {target} is this listener itself ? {hint}")]
        );
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
        [
            "13:13: the target 127.0.0.1:84 leads back in a circle: [::]:84/tcp -> [::]:85/tcp -> [::]:84/tcp ? lead to another port, or to another machine"
        ]
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
            "portway.toml:1:16: the environment variable NOPE is not set ? set it, or put `:-` and a default behind its name",
            "portway.toml:1:37: port 0 cannot be listened on ? with its variables this is \"127.0.0.1:0:80\"; use a port from 1 to 65535",
            "portway.toml:1:49: port 0 cannot be connected to ? use a port from 1 to 65535",
            "portway.toml:1:71: port 0 cannot be connected to ? with its variables this is \"8080:0\"; use a port from 1 to 65535",
            "portway.toml:1:77: `${` is not closed ? close it with }, or write $$ for a dollar sign",
        ]
    );
    let problems = files.load().unwrap_err();
    let bad = problems.iter().nth(1).unwrap();
    assert_eq!(bad.text, "0");
    assert!(bad.to_string().ends_with("; use a port from 1 to 65535"), "{bad}");
}

#[test]
fn exposed_services_and_ephemeral_ports_are_warned_of_once_a_mapping() {
    assert_eq!(
        warnings(
            "publish = [\n\"3389:10.0.0.7:3389/tcp+udp\",\n\"2300:10.0.0.7:23\",\n\"400-500:10.0.0.7:400-500\",\n\"127.0.0.1:139:10.0.0.7:139\",\n\"1023:10.0.0.7:23/udp\",\n\"40000-40100:10.0.0.7:80\",\n\"127.0.0.1:60999:9\",\n\"61000:9\",\n]\n"
        ),
        [
            "2:2: Remote Desktop (RDP), port 3389, is open on every address of this machine",
            "3:2: Telnet, port 23, is open on every address of this machine",
            "4:2: Windows file sharing (SMB), port 445, is open on every address of this machine",
            "7:2: ports 40000-40100 reach into the range that the kernel gives to outgoing traffic (32768-60999)",
            "8:2: port 60999 lies in the range that the kernel gives to outgoing traffic (32768-60999)",
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
    assert_eq!(found, ["6:2: more than 262144 listeners in all ? use fewer or smaller ranges"]);
}
