//! The schema for editors: it takes what the reader takes, and refuses what it can.

use serde_json::Value as Json;

use super::*;
use crate::config::{
    keys,
    lower::{
        api, daemon::DaemonSettings, docker::DockerText, gate, guard::GuardText, log::LogSettings,
        overrides::Overrides, probe::ProbeText, settings,
    },
    schema::schema,
    text::{Code, ExpansionBudget, Keys, Reader, SourceMap, shape::Shape},
};

/// What is wrong with a text, as the schema sees it.
fn refused(text: &str) -> Option<String> {
    let value: Json = toml::from_str(text).expect("TOML");
    check(&value, &schema(), "").err()
}

/// Checks a value by the part of draft 7 that the schema is made of. Any other keyword is a fault.
fn check(value: &Json, schema: &Json, at: &str) -> Result<(), String> {
    let schema = schema.as_object().expect("a schema is a table");
    for (keyword, rule) in schema {
        let is_good = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "properties" => true,
            "type" => match rule.as_str().expect("a word") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("unknown type {other}"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_i64().is_none_or(|value| value >= rule.as_i64().expect("a number")),
            "maximum" => value.as_i64().is_none_or(|value| value <= rule.as_i64().expect("a number")),
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().expect("a text")).expect("a pattern");
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "required" => {
                let keys = rule.as_array().expect("a list").iter().filter_map(Json::as_str);
                value.as_object().is_none_or(|table| keys.into_iter().all(|key| table.contains_key(key)))
            }
            "anyOf" => rule.as_array().expect("a list").iter().any(|one| check(value, one, at).is_ok()),
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(item, rule, at)?;
                }
                true
            }
            "additionalProperties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let known = schema.get("properties").and_then(|known| known.get(key));
                    let at = format!("{at}.{key}");
                    match known.unwrap_or(rule) {
                        Json::Bool(false) => return Err(format!("{at} is unknown")),
                        rule => check(value, rule, &at)?,
                    }
                }
                true
            }
            other => panic!("unknown keyword {other}"),
        };
        if !is_good {
            return Err(format!("{at}: {value} is not {keyword} {rule}"));
        }
    }
    Ok(())
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_example_and_every_block_of_the_readme_is_taken() {
    let mut texts: Vec<(String, String)> = Vec::new();
    for directory in ["config", "config/examples"] {
        for entry in fs::read_dir(root(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                texts.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    // The annotated file again, with its examples out of their comments.
    let annotated = fs::read_to_string(root("config/portway.toml")).unwrap();
    let bare = |line: &str| {
        let text = line.strip_prefix("# ").unwrap_or(line);
        let is_key = text
            .split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
        if is_key || text.starts_with('[') { text.to_owned() } else { line.to_owned() }
    };
    texts.push(("uncommented".into(), annotated.lines().map(|line| bare(line) + "\n").collect()));
    let readme = fs::read_to_string(root("README.md")).unwrap();
    let blocks = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    texts.extend(blocks.map(|block| ("README".to_owned(), block.to_owned())));
    assert!(texts.len() > 15, "{}", texts.len());
    for (name, text) in texts {
        assert_eq!(refused(&text), None, "{name}\n{text}");
    }
}

#[test]
fn what_the_reader_takes_of_the_bad_files_is_taken_and_wrong_keys_and_types_are_refused() {
    let mut refusals = 0;
    for entry in fs::read_dir(root("src/config/tests/problems")).unwrap() {
        let path = entry.unwrap().path();
        let Some(text) =
            fs::read_to_string(&path).ok().filter(|_| path.extension().is_some_and(|e| e == "toml"))
        else {
            continue;
        };
        if toml::from_str::<Json>(&text).is_err() {
            continue;
        }
        let found = match load(&Source { file: Some(path.clone()), ..Source::default() }, &Machine) {
            Ok(_) => {
                assert_eq!(refused(&text), None, "{}", path.display());
                continue;
            }
            Err(problems) => problems,
        };
        let plain = [Code::UnknownKey, Code::WrongType];
        if found.iter().any(|problem| {
            plain.contains(&problem.code)
                && problem.file.ends_with(&*path.file_name().unwrap().to_string_lossy())
        }) {
            refusals += 1;
            assert!(refused(&text).is_some(), "{}", path.display());
        }
    }
    assert!(refusals >= 3, "{refusals}");
}

#[test]
fn each_slip_is_refused_by_the_reader_and_by_the_schema() {
    let mapping = |line: &str| format!("[[mapping]]\npublish = \"8080:10.0.0.5:80\"\n{line}\n");
    let texts = [
        "pubish = [\"8080:80\"]".to_owned(),
        "publish = 8080".to_owned(),
        "[mapping]\npublish = \"8080:80\"".to_owned(),
        "[defaults]\nname = \"x\"".to_owned(),
        "[shutdown]\ngrace = 30".to_owned(),
        "[router]\nprotocols = [\"upmp\"]".to_owned(),
        "[lists]\na = { fil = \"x\" }".to_owned(),
        "[api]\ntokens = [{ role = \"root\", file = \"x\" }]".to_owned(),
        "[log]\ntarget = \"stdout\"".to_owned(),
        mapping("idle_timeout = \"soon\""),
        mapping("idle_timeout = \"90\""),
        mapping("idle_timout = \"90s\""),
        mapping("keepalive = 60"),
        mapping("new_sessions = \"20\""),
        mapping("bandwidth_per_session = \"fast\""),
        mapping("max_sessions = 0"),
        mapping("max_sessions = \"many\""),
        mapping("refuse = \"no\""),
        mapping("balance = \"random\""),
        mapping("enabled = \"yes\""),
        mapping("router = { external_port = 70000 }"),
        mapping("router = { port = 80 }"),
        mapping("health = { intervall = \"5s\" }"),
        mapping("health = true"),
        mapping("wake = { docker = \"a\", wait = 5 }"),
        mapping("match = \"sni\""),
        mapping("send_proxy = \"v3\""),
        mapping("hosts = { \"a.example.org\" = { target = \"10.0.0.1:1\" } }"),
        "[[mapping]]\nlisten = [\"80\"]\ntargets = [{ weight = 2 }]".to_owned(),
        "[[mapping]]\nlisten = [\"80\"]\ntargets = [{ address = \"10.0.0.1:1\", weight = 0 }]".to_owned(),
    ];
    for text in texts {
        assert!(file(&text).load().is_err(), "the reader takes\n{text}");
        assert!(refused(&text).is_some(), "the schema takes\n{text}");
    }
    for line in ["idle_timeout = \"${TIME}\"", "refuse = \"${REFUSE:-drop}\"", "idle_timeout = \"1h30m\""] {
        assert_eq!(refused(&mapping(line)), None, "{line}");
    }
}

/// What `read` asks an empty table for.
fn asked<T>(read: impl FnOnce(&mut Reader<'_>, &mut Keys<'_, '_>) -> T) -> Vec<&'static str> {
    let (mut diagnostics, sources) = (Diagnostics::default(), SourceMap::default());
    let budget = ExpansionBudget::default();
    let mut reader = Reader::new(sources.start(), "", &Machine, &budget, &mut diagnostics);
    Keys::names(&mut reader, read)
}

#[test]
fn the_reader_asks_for_what_is_described() {
    let start = SourceMap::default().start();
    let tables: [(&str, &Shape, Vec<&'static str>); 11] = [
        ("log", &keys::LOG, asked(LogSettings::read)),
        ("shutdown", &keys::SHUTDOWN, asked(settings::grace)),
        ("geoip", &keys::GEOIP, asked(gate::database)),
        ("limits", &keys::LIMITS, asked(settings::LimitSettings::read)),
        ("daemon", &keys::DAEMON, asked(DaemonSettings::read)),
        ("router", &keys::ROUTER, asked(crate::gateway::RouterSettings::read)),
        ("guard", &keys::GUARD, asked(|reader, keys| GuardText::read(reader, keys, start))),
        ("api", &keys::API, asked(api::ApiText::api)),
        ("metrics", &keys::METRICS, asked(api::metrics)),
        ("probe", &keys::PROBE, asked(|reader, keys| ProbeText::read(reader, keys, start))),
        ("docker", &keys::DOCKER, asked(|reader, keys| DockerText::read(reader, keys, start))),
    ];
    for (name, shape, asked) in tables {
        let (mut described, mut asked) = (shape.names(), asked);
        described.sort_unstable();
        asked.sort_unstable();
        assert_eq!(described, asked, "[{name}] in src/config/keys.rs");
    }
    let (mut described, mut asked) = (keys::SHARED.names(), asked(Overrides::read));
    described.sort_unstable();
    asked.sort_unstable();
    assert_eq!(described, asked, "SHARED in src/config/keys.rs");
}

#[test]
fn tables_inside_of_others_are_described_as_they_are_read() {
    // Each key is there once, so a key that is not read is refused by nobody and found here.
    let text = "[[mapping]]\nname = 'a'\nlisten = ['192.168.1.2:81']\n\
                targets = [{ address = '10.0.0.1:1', weight = 2, backup = false }, '10.0.0.2:1']\n\
                match = 'minecraft'\non_connect_failure = { motd = 'x', players = '0/1' }\n\
                health = { interval = '9s', timeout = '1s', rise = 1, fall = 1, send = { hex = '00' }, expect = 'x' }\n\
                router = { external_port = 1, ipv6 = true, while_down = 'keep' }\n\
                hosts = { 'a.b' = { targets = '10.0.0.1:1', allow = '::1', deny = '::2', send_proxy = 'v1', wake = false } }\n\
                wake = { command = ['/x'], stop_command = ['/y'], wait = '1s', stop_after = '1m' }\n";
    assert_eq!(refused(text), None);
    loaded(text);
    for (shape, keys) in [
        (&keys::TARGET, &["address", "weight", "backup"][..]),
        (&keys::ASLEEP, &["motd", "players"]),
        (&keys::HEALTH, &["interval", "timeout", "rise", "fall", "send", "expect"]),
        (&keys::OPENING, &["external_port", "ipv6", "while_down"]),
        (&keys::HOST, &["targets", "allow", "deny", "send_proxy", "wake"]),
        (&keys::WAKE, &["command", "stop_command", "unit", "docker", "mac", "wait", "stop_after"]),
        (&keys::TOKEN, &["role", "file"]),
        (&keys::LIST, &["file"]),
    ] {
        assert_eq!(shape.names(), keys);
    }
}
