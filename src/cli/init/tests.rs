use super::*;

fn answers(preset: &'static Preset, host: &str, who: Who, router: bool) -> Answers {
    let port = preset.ports.is_empty().then(|| "5000-5010".to_owned());
    let protocol = "udp".to_owned();
    Answers { preset, name: preset.word.to_owned(), host: host.to_owned(), port, protocol, who, router }
}

#[test]
fn every_preset_makes_a_good_file_whatever_is_answered() {
    assert!(presets::ALL.len() > 12);
    for preset in presets::ALL {
        for host in ["10.0.0.20", "127.0.0.1", "[2001:db8::5]", "nas.lan"] {
            for who in [Who::Everyone, Who::Home, Who::These(vec!["203.0.113.7".to_owned()])] {
                for router in [true, false] {
                    let answers = answers(preset, host, who.clone(), router);
                    let text = answers.file();
                    let loaded = config::load_text(Path::new("x.toml"), text.clone(), &System);
                    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
                    assert!(loaded.plan.listeners.len() >= preset.ports.len().max(1), "{text}");
                    let is_closed =
                        loaded.plan.mappings.values().all(|plan| plan.policy.access.allow.is_some());
                    assert_eq!(is_closed, who != Who::Everyone, "{text}");
                }
            }
        }
    }
}

#[test]
fn what_attackers_look_for_has_a_list_and_a_guard_by_default() {
    for word in ["rdp", "vnc", "ssh", "camera"] {
        assert!(presets::named(word).is_some_and(|preset| preset.is_delicate), "{word}");
        let text = answers(presets::named(word).expect("it exists"), "10.0.0.7", Who::Home, false).file();
        let loaded = config::load_text(Path::new("x.toml"), text.clone(), &System).expect("it is good");
        assert!(loaded.gate.spec.guard.is_some(), "{text}");
        // Where bans are kept depends on how portway is started.
        let others = loaded.warnings.iter().filter(|warning| warning.code.as_str() != "not-persisted");
        assert_eq!(others.count(), 0, "{:?}", loaded.warnings);
    }
}

#[test]
fn a_service_of_this_machine_keeps_its_port_and_the_router_has_the_usual_one() {
    let minecraft = presets::named("minecraft").expect("it exists");
    let text = answers(minecraft, "127.0.0.1", Who::Everyone, true).file();
    assert!(text.contains("publish = \"25566:127.0.0.1:25565\""), "{text}");
    assert!(text.contains("router = { external_port = 25565 }"), "{text}");
}

#[test]
fn hosts_and_ports_are_read_by_the_rules_of_a_spec() {
    assert_eq!(host("2001:db8::5").as_deref(), Ok("[2001:db8::5]"));
    assert_eq!(host("nas.lan").as_deref(), Ok("nas.lan"));
    assert!(host("a b").is_err() && host("").is_err() && host("x/y").is_err());
    assert_eq!(port("5000-5010/udp"), Ok(("5000-5010".to_owned(), "udp".to_owned())));
    assert_eq!(port("443"), Ok(("443".to_owned(), "tcp".to_owned())));
    assert!(port("0").is_err() && port("x y").is_err() && port("80:90").is_err());
}
