//! What a message offers is taken: each cure goes back into the program in place of what was refused.
//!
//! The tables hold what people write in error. A case with `CURE` must be offered something concrete; one with `WORDS`
//! gets words, and each example in these words must be taken where it stands.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{Ran, portway};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portway");
const MAPPING: &str = "[[mapping]]\npublish = \"8080:80\"\n";

/// Something to write in its place.
const CURE: bool = true;
/// No more than words.
const WORDS: bool = false;

/// `check --json` of a text, with variables.
fn check(text: &str, variables: &[(&str, &str)]) -> (i32, Value) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("portway.toml");
    fs::write(&path, text).expect("the test's own directory");
    let mut command = Command::new(PROGRAM);
    command.args(["check", "--json", "-c"]).arg(&path).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PORTWAY_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    let ran = Ran::of(&mut command);
    let report = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{text:?}: {e}: {ran}"));
    (ran.code.expect("an exit code"), report)
}

/// The line of a text with another one in its place.
fn with_line(text: &str, line: usize, new: &str) -> String {
    let lines = text.lines().enumerate().map(|(i, old)| if i + 1 == line { new } else { old });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The text with `value` as the value of the line's key.
fn with_value(text: &str, line: usize, value: &str) -> String {
    let old = text.lines().nth(line - 1).expect("a line");
    let (key, _) = old.split_once('=').unwrap_or_else(|| panic!("no key in {old:?}"));
    with_line(text, line, &format!("{}= {value}", key))
}

/// The texts that a hint of a line asks for; nothing where it has words alone.
fn cures(text: &str, line: usize, hint: &str) -> Vec<String> {
    let quoted =
        |items: Vec<&str>| items.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ");
    if let Some((_, cure)) = hint.rsplit_once("write each by itself, ") {
        return vec![with_value(text, line, &format!("[{}]", quoted(cure.split(" and ").collect())))];
    }
    let cure = hint.rsplit_once("write ").map(|(_, cure)| cure);
    let cure = cure.filter(|cure| {
        !cure.starts_with(['a', 'h', 'o', 'i', 't']) || cure.contains(" = ") || *cure == "true"
    });
    match cure {
        Some(cure) if cure.starts_with("[[") => {
            let (header, name) = cure.split_once(", with two brackets").unwrap_or((cure, ""));
            let name =
                name.split_once("name = ").map(|(_, name)| format!("\nname = {name}")).unwrap_or_default();
            vec![with_line(text, line, &(header.to_owned() + &name))]
        }
        Some(cure) if cure.contains(" = ") && !cure.starts_with('{') => vec![with_line(text, line, cure)],
        Some(cure)
            if cure.starts_with(['"', '{', '[']) && !cure.starts_with("[:") && !cure.contains("]:") =>
        {
            vec![with_value(text, line, cure)]
        }
        Some(cure) if cure == "true" || cure == "false" => vec![with_value(text, line, cure)],
        Some(cure)
            if text.lines().nth(line - 1).is_some_and(|l| l.contains("sessions") || l.contains("_port")) =>
        {
            vec![with_value(text, line, cure)]
        }
        Some(cure) => vec![with_value(text, line, &format!("\"{cure}\""))],
        None => {
            if let Some((_, word)) = hint.split_once("did you mean ") {
                let word = word.trim_end_matches('?');
                let old = text.lines().nth(line - 1).expect("a line");
                return vec![match word.strip_prefix('`') {
                    Some(key) => {
                        let name = old.split('=').next().unwrap_or(old).trim().trim_matches(['[', ']']);
                        with_line(text, line, &old.replacen(name, key.trim_end_matches('`'), 1))
                    }
                    None => with_value(text, line, word),
                }];
            }
            Vec::new()
        }
    }
}

/// The texts that the examples of a hint make.
fn examples(text: &str, line: usize, hint: &str) -> Vec<String> {
    if let Some((_, example)) = hint.split_once("as in ").filter(|(_, example)| example.contains(" = ")) {
        return example.split(", or ").map(|example| with_line(text, line, example)).collect();
    }
    let words = hint.split('"').skip(1).step_by(2);
    words.map(|word| with_value(text, line, &format!("\"{word}\""))).collect()
}

/// Fails unless each text is refused, and what is offered for it is taken.
#[track_caller]
fn all_are_cured(cases: &[(&str, bool)], variables: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (text, must_cure) in cases {
        let (code, report) = check(text, variables);
        let problems = report["problems"].as_array().expect("a list");
        if code != 78 || problems.len() != 1 {
            wrong.push(format!("{text:?}: exit code {code}, {problems:?}"));
            continue;
        }
        let line = problems[0]["line"].as_u64().expect("a line") as usize;
        let hint = problems[0]["help"].as_str().unwrap_or_default();
        let cures = cures(text, line, hint);
        if cures.is_empty() == *must_cure {
            wrong.push(format!("{text:?}: it offers {hint:?}"));
        }
        let all = if cures.is_empty() { examples(text, line, hint) } else { cures };
        for cured in all {
            let (code, report) = check(&cured, &[]);
            if code != 0 {
                wrong.push(format!("{text:?}: {hint:?} makes {cured:?}, refused: {}", report["problems"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The same for keys of a mapping.
#[track_caller]
fn keys_are_cured(cases: &[(&str, bool)]) {
    let texts: Vec<_> = cases.iter().map(|(line, cure)| (format!("{MAPPING}{line}\n"), *cure)).collect();
    let cases: Vec<_> = texts.iter().map(|(text, cure)| (&**text, *cure)).collect();
    all_are_cured(&cases, &[]);
}

#[test]
fn a_cure_for_a_spec_is_taken() {
    let mut wrong = Vec::new();
    for (spec, cure) in SPECS {
        let ran = portway(["check", &format!("-p={spec}")]);
        let hint = ran.err.split_once("= help: ").map(|(_, hint)| hint.trim()).unwrap_or_default();
        let offered = hint.rsplit_once("write ").map_or("", |(_, offered)| offered);
        if ran.code != Some(78)
            || (offered != *cure && !(cure.is_empty() && offered.starts_with("LISTEN_PORT")))
        {
            wrong.push(format!("{spec:?} should be {cure:?}: {ran}"));
            continue;
        }
        let args: Vec<&str> =
            if offered.starts_with("-p ") { offered.split(' ').collect() } else { vec!["-p", offered] };
        if !cure.is_empty() && portway(["check"].into_iter().chain(args)).code != Some(0) {
            wrong.push(format!("{spec:?}: {offered:?} is refused"));
        }
        // The same in a file, and in a variable.
        if !cure.is_empty() {
            let text = format!(
                "publish = {}\n",
                serde_json::to_string(spec).expect("a string of JSON is one of TOML")
            );
            let (_, report) = check(&text, &[]);
            let hint = report["problems"][0]["help"].as_str().unwrap_or_default();
            let cured = cures(&text, 1, hint);
            if cured.len() != 1 || check(&cured[0], &[]).0 != 0 {
                wrong.push(format!("{text:?}: {hint:?} makes {cured:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), SPECS.len(), wrong.join("\n"));
}

/// Specs that are not valid, and what is offered; nothing where no guess is good enough.
const SPECS: &[(&str, &str)] = &[
    ("10.0.0.20:25565", "25565:10.0.0.20:25565"),
    ("0.0.0.0:8080->80/tcp", "0.0.0.0:8080:80"),
    (":::8080->80/tcp", "8080:80"),
    ("0.0.0.0:8080->80/udp, :::8080->80/udp", "8080:80/udp"),
    ("8080 -> 80", "8080:80"),
    ("8080=>80", "8080:80"),
    ("8080=80", "8080:80"),
    ("8080/80", "8080:80"),
    ("8080:80 9000:90", "-p 8080:80 -p 9000:90"),
    ("8080:80,9000:90", "-p 8080:80 -p 9000:90"),
    ("8080:80; 9000:90", "-p 8080:80 -p 9000:90"),
    ("8080 : 80", "8080:80"),
    ("8080 10.0.0.5 80", "8080:10.0.0.5:80"),
    ("8080: 80\r", "8080:80"),
    ("\t8080:80", "8080:80"),
    ("8080:80\u{a0}", "8080:80"),
    ("“8080:80”", "8080:80"),
    ("\"8080:80\"", "8080:80"),
    ("'8080:80'", "8080:80"),
    ("8080:http://host:80", "8080:host:80"),
    ("http://host:80", "80:host:80"),
    ("8080:https://10.0.0.5/index.html", "8080:10.0.0.5:443"),
    ("8080:tcp://10.0.0.5:80", "8080:10.0.0.5:80"),
    ("udp://8080:80", "8080:80/udp"),
    ("6970..6977", "6970-6977:HOST:6970-6977"),
    ("6970..6977:10.0.0.2:6970..6977", "6970-6977:10.0.0.2:6970-6977"),
    ("6970–6977:80", "6970-6977:80"),
    ("8080:2001:db8::5:80", "8080:[2001:db8::5]:80"),
    ("2001:db8::5:80", "80:[2001:db8::5]:80"),
    ("::1:8080:80", "[::1]:8080:80"),
    ("8080:[10.0.0.5]:80", "8080:10.0.0.5:80"),
    ("8080:80/", "8080:80"),
    ("8080:10.0.0.5:80/", "8080:10.0.0.5:80"),
    ("8080:80/both", "8080:80/tcp+udp"),
    ("8080:80/tcp,udp", "8080:80/tcp+udp"),
    ("8080:80/tcp 8080:80/udp", "-p 8080:80 -p 8080:80/udp"),
    ("8080/udp", "8080:HOST:8080/udp"),
    ("8080/tcp:80/tcp", "8080:80"),
    ("8080:80 udp", "8080:80/udp"),
    ("8080:80udp", "8080:80/udp"),
    ("udp:8080:80", "8080:80/udp"),
    ("8080", "8080:HOST:8080"),
    ("8080:10.0.0.5", "8080:10.0.0.5:8080"),
    ("8080:nas.lan", "8080:nas.lan:8080"),
    ("nas.lan:80", "80:nas.lan:80"),
    ("8080:my_host", "8080:my_host:8080"),
    ("127.0.0.1:8080", "127.0.0.1:8080:HOST:8080"),
    ("localhost:8080:80", "127.0.0.1:8080:80"),
    ("*:8080:80", "8080:80"),
    ("8080:0.0.0.0:80", "8080:80"),
    (":8080:80", "8080:80"),
    ("8080::80", "8080:80"),
    ("10.0.0.5%eth0:22:22", "10.0.0.5:22:22"),
    ("5010-5000:80", "5000-5010:80"),
    ("5000-5010:6000-6005", "5000-5010:6000-6010"),
    ("--publish=8080:80", "8080:80"),
    ("8080:80 # web", "8080:80"),
    ("8080:8080", ""),
    ("8080:127.0.0.1", ""),
    ("99999:80", ""),
    ("8080:99999", ""),
    ("8080:0", ""),
    ("fe80::1:22:22", ""),
    ("8080:my host:80", ""),
    ("8080,9090:80", ""),
    ("192.168.1.0/24:8080:80", ""),
    ("nas.lan", ""),
    ("50%:80", ""),
];

#[test]
fn a_spec_in_a_variable_is_cured_by_a_comma() {
    let ask = |specs: &str| Ran::of(Command::new(PROGRAM).arg("check").env("PORTWAY_PUBLISH", specs));
    ask("8080:80 9000:90").exits(78).says("= help: write 8080:80,9000:90\n");
    ask("8080:80,9000:90").exits(0);
    ask("\"8080:80\"")
        .exits(78)
        .says("a quotation mark does not belong here")
        .says("= help: write 8080:80\n");
}

#[test]
fn a_loop_over_an_own_address_is_never_a_cure() {
    // 127.0.0.9 answers for this machine like any address of it.
    let ran = portway(["check", "-p", "8080:127.0.0.9"]).exits(78).never_says("write 8080:127.0.0.9:8080");
    assert!(ran.err.contains("as in 8080:nas.lan:80"), "{ran}");
}

#[test]
fn what_is_in_a_variable_is_shown_escaped() {
    for (value, shown) in
        [("8080\r", "\"8080\\r:80\""), ("\"8080\"", "\"\\\"8080\\\":80\""), ("80\n80", "\"80\\n80:80\"")]
    {
        let (code, report) = check("publish = \"${PORT}:80\"\n", &[("PORT", value)]);
        let problem = &report["problems"][0];
        let hint = problem["help"].as_str().unwrap_or_default();
        assert_eq!(code, 78);
        assert!(hint.contains(shown), "{problem}");
        assert!(!problem.to_string().contains("\\r:") || hint.contains("\\r"), "{problem}");
    }
    let (_, report) = check("publish = \"${PORT}:80\"\n", &[("PORT", "\"8080\"\r")]);
    assert_eq!(
        report["problems"][0]["help"],
        "with its variables this is \"\\\"8080\\\"\\r:80\"; change the variable, so that it reads 8080:80"
    );
    let nets = [("NETS", "10.0.0.0/8,192.168.0.0/16")];
    let (_, report) = check(&format!("{MAPPING}allow = [\"${{NETS}}\"]\n"), &nets);
    let hint = report["problems"][0]["help"].as_str().unwrap_or_default();
    assert!(hint.ends_with("write each by itself, 10.0.0.0/8 and 192.168.0.0/16"), "{hint}");
}

#[test]
fn a_cure_for_a_duration_is_taken() {
    keys_are_cured(&[
        ("idle_timeout = 60", CURE),
        ("idle_timeout = 1.5", CURE),
        ("idle_timeout = \"60\"", CURE),
        ("idle_timeout = \"5M\"", CURE),
        ("idle_timeout = \"00:05:00\"", CURE),
        ("idle_timeout = 00:05:00", CURE),
        ("idle_timeout = \"PT5M\"", CURE),
        ("idle_timeout = \"500us\"", CURE),
        ("idle_timeout = \"Never\"", CURE),
        ("idle_timeout = \"off\"", CURE),
        ("idle_timeout = false", CURE),
        ("idle_timeout = 0", CURE),
        ("idle_timeout = -1", CURE),
        ("idle_timeout = \"“60s”\"", CURE),
        ("idle_timeout = true", WORDS),
        ("idle_timeout = \"\"", WORDS),
        ("idle_timeout = \"s60\"", WORDS),
        ("idle_timeout = \"5%\"", WORDS),
        ("idle_timeout = [\"60s\"]", WORDS),
        ("idle_timeout = { seconds = 60 }", WORDS),
        ("idle_timeout = \"99999999999999999999d\"", WORDS),
        ("connect_timeout = 5", CURE),
        ("connect_timeout = 0", WORDS),
        ("connect_timeout = \"never\"", WORDS),
        ("keepalive = 60", CURE),
        ("keepalive = false", CURE),
        ("keepalive = \"500ms\"", WORDS),
        ("keepalive = \"12h\"", WORDS),
    ]);
    all_are_cured(
        &[
            ("publish = \"8080:80\"\n[shutdown]\ngrace = 30\n", CURE),
            ("publish = \"8080:80\"\n[shutdown]\ngrace = \"forever\"\n", WORDS),
            ("publish = \"8080:80\"\n[guard]\nban = 3600\n", CURE),
            ("publish = \"8080:80\"\n[guard]\nban = \"60d\"\n", WORDS),
            ("publish = \"8080:80\"\n[guard]\nban = \"off\"\n", WORDS),
            ("publish = \"8080:80\"\n[router]\nlease = 3600\n", CURE),
            ("publish = \"8080:80\"\n[router]\nlease = \"never\"\n", WORDS),
        ],
        &[],
    );
}

#[test]
fn a_cure_for_an_amount_is_taken() {
    keys_are_cured(&[
        ("new_sessions = \"20/sec\"", CURE),
        ("new_sessions = \"20 per second\"", CURE),
        ("new_sessions = \"20/m\"", CURE),
        ("new_sessions = \"20 / s\"", CURE),
        ("new_sessions = \"20/10s\"", CURE),
        ("new_sessions = \"20rps\"", CURE),
        ("new_sessions = \"0.5/s\"", CURE),
        ("new_sessions = \"1,000/h\"", CURE),
        ("new_sessions = \"48/day\"", CURE),
        ("new_sessions = \"none\"", CURE),
        ("new_sessions = \"20/d\"", WORDS),
        ("new_sessions = \"5%\"", WORDS),
        ("new_sessions = \"20\"", WORDS),
        ("new_sessions = 20", WORDS),
        ("new_sessions = 0", WORDS),
        ("bandwidth_per_session = 1000", CURE),
        ("bandwidth_per_session = \"10 MB\"", CURE),
        ("bandwidth_per_session = \"10M\"", CURE),
        ("bandwidth_per_session = \"10mbit/s\"", CURE),
        ("bandwidth_per_session = \"10MBps\"", CURE),
        ("bandwidth_per_session = \"1.5MB\"", CURE),
        ("bandwidth_per_session = \"1,5MB\"", CURE),
        ("bandwidth_per_session = \"10 MiB/s\"", CURE),
        ("bandwidth_per_session = \"1TB\"", CURE),
        ("bandwidth_per_session = \"10%\"", WORDS),
        ("bandwidth_per_session = \"\"", WORDS),
        ("bandwidth_per_session = true", WORDS),
        ("max_sessions = \"100\"", CURE),
        ("max_sessions = \"10k\"", CURE),
        ("max_sessions = 1e3", CURE),
        ("max_sessions = \"1,000\"", CURE),
        ("max_sessions = 1,000", CURE),
        ("max_sessions = 010", CURE),
        ("max_sessions = 10.0", CURE),
        ("max_sessions = \" 100 \"", CURE),
        ("max_sessions = \"none\"", CURE),
        ("max_sessions = \"50%\"", WORDS),
        ("max_sessions = true", WORDS),
        ("max_sessions = []", WORDS),
    ]);
    all_are_cured(
        &[
            ("publish = \"8080:80\"\n[guard]\nrefusals = \"10/m\"\n", CURE),
            ("publish = \"8080:80\"\n[guard]\nrefusals = 10\n", WORDS),
            ("publish = \"8080:80\"\n[guard]\nrefusals = \"none\"\n", WORDS),
        ],
        &[],
    );
}

#[test]
fn a_cure_for_an_access_rule_is_taken() {
    keys_are_cured(&[
        ("allow = \"10.0.0.0/8,192.168.0.0/16\"", CURE),
        ("allow = \"10.0.0.0/8 192.168.0.0/16\"", CURE),
        ("allow = [\"10.0.0.0/8;192.168.0.0/16\"]", CURE),
        ("allow = \"10.0.0.0-10.0.0.9\"", CURE),
        ("allow = \"10.0.0.*\"", CURE),
        ("allow = \"10.0\"", CURE),
        ("allow = \"10.0.0/24\"", CURE),
        ("allow = \"10.0.0.0/255.0.0.0\"", CURE),
        ("allow = \"[2001:db8::]/32\"", CURE),
        ("allow = \"10.0.0.1:80\"", CURE),
        ("allow = \"10.0.0.0/8/\"", CURE),
        ("allow = \"10.0.0.1/\"", CURE),
        ("allow = \"10.0.0.0 / 8\"", CURE),
        ("allow = \"fe80::1%eth0\"", CURE),
        ("allow = \"010.0.0.1\"", CURE),
        ("allow = \"“10.0.0.0/8”\"", CURE),
        ("allow = \"10.0.0.0/8 # lan\"", CURE),
        ("allow = \"https://10.0.0.1\"", CURE),
        ("allow = 10.0.0.1", CURE),
        ("allow = [10.0.0.0/8]", CURE),
        ("allow = \"10.0.0.0/33\"", WORDS),
        ("allow = \"home.example.org\"", WORDS),
        ("allow = \"all\"", WORDS),
        ("allow = true", WORDS),
        ("allow = { office = true }", WORDS),
        ("source = \"192.168.1.2:0\"", CURE),
        ("source = \"192.168.1.2/24\"", CURE),
        ("source = 192.168.1.2", CURE),
        ("source = \"eth0\"", WORDS),
        ("refuse = \"Reset\"", CURE),
        ("refuse = true", WORDS),
        ("name = \"my server\"", CURE),
        ("name = 5", CURE),
        ("enabled = \"no\"", CURE),
        ("enabled = yes", CURE),
        ("enabled = True", CURE),
        ("router = \"yes\"", CURE),
        ("router = 30000", CURE),
    ]);
}

#[test]
fn a_cure_for_what_is_not_toml_is_taken() {
    all_are_cured(
        &[
            ("publish = 8080:80\n", CURE),
            ("publish = [8080:80, 9000:90]\n", CURE),
            ("[[mapping]]\npublish = 25565:10.0.0.20:25565\n", CURE),
            ("publish = 10.0.0.5:80:80\n", CURE),
            ("publish = “8080:80”\n", CURE),
            ("publish = ‘8080:80’\n", CURE),
            ("publish = \"8080:80”\n", CURE),
            ("publish = '8080:80\"\n", CURE),
            ("publish = \"8080:80\n", CURE),
            ("publish: \"8080:80\"\n", CURE),
            ("publish \"8080:80\"\n", CURE),
            ("publish = [\"8080:80\"\n", CURE),
            ("publish = [\"8080:80\" \"9090:90\"]\n", CURE),
            ("publish = {\"8080:80\"}\n", CURE),
            ("publish = [\"8080:80\"],\n", CURE),
            ("publish = [\"8080:80\"]; # web\n", CURE),
            ("publish = [\"8080:80\"] // web\n", CURE),
            ("publish =\u{a0}\"8080:80\"\n", CURE),
            ("[[mapping]\npublish = \"8080:80\"\n", CURE),
            ("[mapping]]\npublish = \"8080:80\"\n", CURE),
            ("[[mapping]]\npublish = \"8080:80\"\nidle_timeout = 60s\n", CURE),
            ("[[mapping]]\npublish = \"8080:80\"\nidle_timeout = never\n", CURE),
            ("[[mapping]]\npublish = \"8080:80\"\nidle timeout = \"60s\"\n", CURE),
            ("[[mapping]]\npublish = \"8080:80\"\nnew_sessions = 20/s\n", CURE),
            ("[[mapping]]\npublish = \"8080:80\"\nbandwidth_per_session = 10MB\n", CURE),
            ("publish = 99999:80\n", WORDS),
            ("- \"8080:80\"\n", WORDS),
            ("{ \"publish\": [\"8080:80\"] }\n", WORDS),
        ],
        &[],
    );
}

#[test]
fn a_cure_for_keys_and_tables_is_taken() {
    all_are_cured(
        &[
            ("[[mapping]]\npublsh = \"8080:80\"\n", CURE),
            ("[[mapping]]\nPublish = \"8080:80\"\n", CURE),
            ("[[mapping]]\nlisten = \"8080\"\ntarget = \"10.0.0.5:80\"\n", CURE),
            ("[[mapping]]\nlistens = \"8080\"\ntargets = \"10.0.0.5:80\"\n", CURE),
            ("[[mappings]]\npublish = \"8080:80\"\n", CURE),
            ("[[Mapping]]\npublish = \"8080:80\"\n", CURE),
            ("[mapping]\npublish = \"8080:80\"\n", CURE),
            ("[mapping.web]\npublish = \"8080:80\"\n", CURE),
            ("publish = 8080\n", WORDS),
            ("publish = true\n", WORDS),
            ("publish = { a = 1 }\n", WORDS),
            ("[[mapping]]\npublish = \"8080:80\"\nidleTimeout = \"60s\"\n", CURE),
            ("[[mapping]]\npublish = \"8080:80\"\nmaxSessionsPerClient = 5\n", CURE),
            ("[[mapping]]\npublish = \"8080:80\"\nidle-timeout = \"60s\"\n", CURE),
            ("[[mapping]]\npublish = \"8080:80\"\ntimeout = \"60s\"\n", CURE),
            ("[[mapping]]\nlisten = 8080\ntargets = \"10.0.0.5:80\"\n", CURE),
            ("[[mapping]]\nlisten = \"localhost:8080\"\ntargets = \"10.0.0.5:80\"\n", CURE),
            ("[[mapping]]\nlisten = \"*:8080\"\ntargets = \"10.0.0.5:80\"\n", CURE),
            ("[[mapping]]\nlisten = \"::1:8080\"\ntargets = \"10.0.0.5:80\"\n", CURE),
            ("[[mapping]]\nlisten = \"8080, 9090\"\ntargets = \"10.0.0.5:80\"\n", CURE),
            ("[[mapping]]\nlisten = \"8080\"\ntargets = \"http://10.0.0.5:80/\"\n", CURE),
            ("[[mapping]]\nlisten = \"8080\"\ntargets = \"2001:db8::5:80\"\n", CURE),
            ("[[mapping]]\nlisten = \"8080\"\ntargets = \"10.0.0.5:80,10.0.0.6:80\"\n", CURE),
            ("[[mapping]]\nlisten = \"8080\"\ntargets = 80\n", CURE),
            ("[[mapping]]\nlisten = \"8080\"\ntargets = \"10.0.0.5:80\"\nprotocol = \"both\"\n", CURE),
            (
                "[[mapping]]\nlisten = \"8080\"\ntargets = \"10.0.0.5:80\"\nprotocol = [\"tcp\", \"udp\"]\n",
                CURE,
            ),
            ("publish = \"8080:80\"\n[log]\nlevel = \"warning\"\n", CURE),
            ("publish = \"8080:80\"\n[log]\nlevel = \"DEBUG\"\n", CURE),
            ("publish = \"8080:80\"\n[log]\nlevel = 3\n", WORDS),
            ("publish = \"8080:80\"\n[guard]\ntrap = 23\n", CURE),
            ("publish = \"8080:80\"\n[guard]\ntrap = \"23,445\"\n", CURE),
            ("publish = \"8080:80\"\n[guard]\ntrap = \"23/tcp\"\n", CURE),
            ("publish = \"8080:80\"\n[router]\nprotocols = \"upnp,pcp\"\n", CURE),
            ("publish = \"8080:80\"\n[router]\nprotocols = \"UPnP\"\n", CURE),
            ("publish = \"8080:80\"\n[router]\ngateway = \"192.168.1.1/24\"\n", CURE),
        ],
        &[],
    );
}

#[test]
fn a_mistyped_key_is_the_only_problem_that_is_reported() {
    for text in
        ["[[mapping]]\npublsh = \"8080:80\"\n", "[[mapping]]\nlisten = \"1\"\ntarget = \"10.0.0.5:80\"\n"]
    {
        let (code, report) = check(text, &[]);
        let problems = report["problems"].as_array().expect("a list");
        assert_eq!((code, problems.len()), (78, 1), "{problems:?}");
        assert!(
            problems[0]["message"].as_str().is_some_and(|m| m.starts_with("unknown key")),
            "{problems:?}"
        );
    }
}

#[test]
fn a_key_in_the_wrong_table_is_shown_to_its_own() {
    for (text, home) in [
        ("grace = \"30s\"\npublish = \"8080:80\"\n", "it belongs in [shutdown]"),
        ("idle_timeout = \"30s\"\npublish = \"8080:80\"\n", "it belongs in [[mapping]]"),
        ("publish = \"8080:80\"\n[log]\ngrace = \"30s\"\n", "it belongs in [shutdown]"),
    ] {
        let (code, report) = check(text, &[]);
        assert_eq!((code, report["problems"][0]["help"].as_str()), (78, Some(home)), "{text:?}");
    }
}

#[test]
fn windows_line_ends_a_mark_and_tabs_are_taken_and_utf_16_is_named() {
    for text in
        ["publish = \"8080:80\"\r\n", "\u{feff}publish = \"8080:80\"\n", "\tpublish\t=\t\"8080:80\"\n"]
    {
        assert_eq!(check(text, &[]).0, 0, "{text:?}");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("portway.toml");
    let utf16: Vec<u8> =
        "\u{feff}publish = \"8080:80\"\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&path, utf16).expect("the test's own directory");
    portway(["check".as_ref(), "-c".as_ref(), path.as_os_str()]).exits(78).says("save it as UTF-8");
}

#[test]
fn a_command_that_is_offered_is_taken() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("portway.toml");
    fs::write(&file, "publish = \"8080:80\"\n").expect("the test's own directory");
    let file = file.to_str().expect("a plain path");
    for args in [
        &["check", "8080:80"][..],
        &["check", "-p", "8080:80", "9000:90"],
        &["check", file],
        &["check", "-f", file],
        &["check", "--file", file, "--json"],
        &["check", "10.0.0.20:25565"],
    ] {
        let ran = portway(args).exits(2);
        let (_, tip) =
            ran.err.split_once("help: write portway ").unwrap_or_else(|| panic!("no help in {ran}"));
        let tip = tip.lines().next().unwrap_or_default();
        portway(tip.split(' ')).exits(0);
    }
    portway(["8080:80"]).exits(2).says("help: write portway -p 8080:80");
    portway(["run", "-f", file]).exits(2).says(&format!("help: write portway run -c {file}"));
    portway(["no-such-command"]).exits(2).never_says("help: write");
}
