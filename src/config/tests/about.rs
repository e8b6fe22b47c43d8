//! What is known of each mapping beside what runs, and the whole configuration as JSON.

use super::*;
use crate::mapping::MappingOrigin;

fn about(loaded: &Loaded) -> Vec<(&str, &About)> {
    loaded.plan.about.iter().map(|(id, about)| (id.name.as_str(), about)).collect()
}

#[test]
fn open_and_disabled_mappings_are_known_with_their_places() {
    let files = file(
        "publish = [\"8080:80\"]\n[[mapping]]\nname = \"off\"\npublish = \"9000-9002:nas.lan:80/tcp+udp\"\n\
         enabled = false\nmax_sessions = 7\n[[mapping]]\npublish = \"9000:81\"\nenabled = false\n\
         [[mapping]]\nname = \"web\"\nlisten = [\"443\", \"127.0.0.1:8443\"]\ntargets = [\"a:1\", \"b:2\"]\n",
    );
    let source = Source {
        file: Some(files.path("portway.toml")),
        publish: vec!["7000:70".into()],
        ..Source::default()
    };
    let loaded = load(&source, &Machine).unwrap();
    let known = about(&loaded);
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["7000/tcp", "8080/tcp", "9000/tcp", "off", "web"]);
    let of = |name: &str| known.iter().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!(
        (of("7000/tcp").origin, &*of("7000/tcp").place),
        (MappingOrigin::CommandLine, "-p \"7000:70\"")
    );
    for (name, place) in [("8080/tcp", "1:13"), ("off", "2:1"), ("9000/tcp", "7:1"), ("web", "10:1")] {
        let about = of(name);
        assert_eq!(files.brief(&about.place), format!("portway.toml:{place}"));
        assert_eq!(about.origin, MappingOrigin::File);
    }
    let texts = |about: &About| {
        let listeners: Vec<_> = about.listeners.iter().map(ToString::to_string).collect();
        let targets: Vec<_> = about.targets.iter().map(ToString::to_string).collect();
        (about.enabled, listeners.join(" "), targets.join(" "))
    };
    let off = "[::]:9000/tcp [::]:9001/tcp [::]:9002/tcp [::]:9000/udp [::]:9001/udp [::]:9002/udp";
    assert_eq!(texts(of("off")), (false, off.into(), "nas.lan:80".into()));
    let web = "127.0.0.1:8443/tcp [::]:443/tcp";
    assert_eq!(texts(of("web")), (true, web.into(), "a:1 b:2".into()));
    let options = of("off").options();
    assert_eq!(options["max_sessions"], 7);
    assert_eq!(options["idle_timeout"], serde_json::json!({ "tcp": "never", "udp": "1m" }));
    assert_eq!(loaded.plan.listeners.len(), 4, "what is disabled is not in the plan");
}

#[test]
fn a_closed_mapping_takes_no_name_from_an_open_one() {
    let text = |first: &str, second: &str| {
        format!(
            "[[mapping]]\npublish = \"127.0.0.1:80:9\"\n{first}[[mapping]]\npublish = \"127.0.0.2:80:9\"\n{second}"
        )
    };
    const OFF: &str = "enabled = false\n";
    for text in [text(OFF, ""), text("", OFF)] {
        let loaded = loaded(&text);
        let nth: Vec<_> = loaded.plan.about.iter().map(|(id, about)| (id.nth, about.enabled)).collect();
        assert_eq!(nth, [(0, true), (1, false)]);
        assert_eq!(loaded.plan.mappings.keys().map(|id| id.nth).collect::<Vec<_>>(), [0]);
    }
}

#[test]
fn many_disabled_ranges_are_remembered_in_part() {
    let range = "[[mapping]]\npublish = \"1-65535:9\"\nenabled = false\n";
    let loaded = loaded(&range.repeat(500));
    assert_eq!(loaded.plan.about.len(), 500);
    let kept: usize = loaded.plan.about.values().map(|about| about.listeners.len()).sum();
    assert!((65_536..=67_000).contains(&kept), "{kept}");
}

#[test]
fn the_effective_configuration_has_every_key_and_no_secret() {
    let text = "publish = [\"8080:80\"]\n[[mapping]]\nname = \"off\"\npublish = \"9000:80\"\nenabled = false\n\
                [api]\nlisten = \"127.0.0.1:7678\"\ntokens = [{ role = \"admin\", file = \"t\" }]\n\
                [guard]\nstate = \"bans.json\"\n[lists]\noffice = [\"192.0.2.0/24\"]\n";
    let files = Files::new(&[("portway.toml", text.as_bytes()), ("t", b"0123456789abcdef")]);
    let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
    let all = effective(&loaded.plan, &loaded.settings, &loaded.gate.spec);
    assert!(!all.to_string().contains("0123456789abcdef"), "{all}");
    assert_eq!(all["api"]["tokens"], serde_json::json!([{ "role": "admin" }]));
    assert_eq!(all["api"]["listen"], "127.0.0.1:7678");
    assert_eq!(all["lists"][0]["name"], "office");
    assert_eq!(all["shutdown"]["grace"], "30s");
    let [open, off] = [&all["mappings"][0], &all["mappings"][1]];
    assert_eq!((&open["name"], &open["enabled"]), (&"8080/tcp".into(), &true.into()));
    assert_eq!(
        (&off["name"], &off["enabled"], &off["origin"]),
        (&"off".into(), &false.into(), &"file".into())
    );
    assert_eq!(off["listeners"], serde_json::json!([{ "protocol": "tcp", "listen": "[::]:9000" }]));
    assert_eq!((&off["targets"][0], &off["connect_timeout"]), (&"127.0.0.1:80".into(), &"5s".into()));
}
