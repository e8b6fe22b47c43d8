//! The managed file: mappings of its own, pauses of any mapping, and what a mistake in it does.

use super::*;
use crate::mapping::MappingOrigin;

const MAIN: &str = "publish = [\"8080:10.0.0.1:80\"]\n[[mapping]]\nname = \"web\"\npublish = \"8081:10.0.0.1:80\"\n\
                    [api]\nmanaged = \"m.toml\"\n";

fn with(managed: &str) -> Files {
    Files::new(&[("portway.toml", MAIN.as_bytes()), ("m.toml", managed.as_bytes())])
}

/// The names of the mappings that are open, and of those that are paused.
fn names(loaded: &Loaded) -> (Vec<&str>, Vec<&str>) {
    let about = || loaded.plan.about.iter().map(|(id, about)| (id.name.as_str(), about));
    let of = |paused| about().filter(|(_, about)| about.paused == paused).map(|(name, _)| name).collect();
    (of(false), of(true))
}

#[test]
fn mappings_of_the_managed_file_are_part_of_the_plan() {
    let files = with("[[mapping]]\nname = \"mc\"\npublish = \"25565:10.0.0.20:25565\"\n");
    let loaded = files.load().unwrap();
    assert_eq!(names(&loaded), (vec!["8080/tcp", "mc", "web"], vec![]));
    let about = loaded.plan.about.values().nth(1).unwrap();
    assert_eq!((about.origin, files.brief(&about.place)), (MappingOrigin::Managed, "m.toml:1:1".to_owned()));
    assert!(!loaded.read.files.contains(&files.path("m.toml")), "its writer asks for the reload");
    assert!(Files::new(&[("portway.toml", MAIN.as_bytes())]).load().unwrap().warnings.is_empty());
}

#[test]
fn a_pause_closes_a_mapping_of_any_file() {
    let files =
        with("paused = [\"web\", \"8080/tcp\", \"gone\"]\n[[mapping]]\nname = \"mc\"\npublish = \"1:a:1\"\n");
    let loaded = files.load().unwrap();
    assert_eq!(names(&loaded), (vec!["mc"], vec!["8080/tcp", "web"]));
    assert_eq!(loaded.plan.listeners.len(), 1);
    let warnings: Vec<_> = loaded.warnings.iter().map(|w| files.line(w)).collect();
    assert_eq!(warnings, ["m.toml:1:31 no-effect"]);
    let spec = Source {
        file: Some(files.path("portway.toml")),
        publish: vec!["7000:a:1".into()],
        ..Source::default()
    };
    fs::write(files.path("m.toml"), "paused = \"7000/tcp\"\n").unwrap();
    assert_eq!(names(&load(&spec, &Machine).unwrap()).1, ["7000/tcp"]);
}

#[test]
fn a_mistake_in_the_managed_file_leaves_only_it_out_and_its_pauses_hold() {
    for (text, problem) in [
        (
            "paused = [\"web\"]\n[[mapping]]\nname = \"mc\"\npublish = \"1:2:3:4:5\"\n",
            "m.toml:4:12 invalid-spec",
        ),
        ("paused = [\"web\"]\n[[mapping]]\npublish = \n", "m.toml:3:11 syntax"),
        ("paused = [\"web\"]\n[[mapping]]\npublish = \"8080:b:1\"\n", "m.toml:3:12 port-in-use"),
        ("paused = [\"web\"]\n[guard]\n", "m.toml:2:2 misplaced-key"),
        ("paused = [\"web\"]\ninclude = [\"x\"]\n", "m.toml:2:1 misplaced-key"),
    ] {
        let files = with(text);
        let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(names(&loaded), (vec!["8080/tcp"], vec!["web"]), "{text}");
        // A start warns, a reload refuses.
        let refused = loaded.problems_of_managed_file().unwrap();
        let lines: Vec<_> = refused.iter().map(|p| files.line(p)).collect();
        assert_eq!(lines, [problem], "{text}");
        assert!(!refused.to_string().contains("left out"), "{refused}");
    }
    assert!(with("").load().unwrap().problems_of_managed_file().is_none());
    let files = with("");
    fs::remove_file(files.path("m.toml")).unwrap();
    fs::create_dir(files.path("m.toml")).unwrap();
    let loaded = files.load().unwrap();
    assert!(loaded.problems_of_managed_file().is_some() && loaded.plan.listeners.len() == 2);
}

#[test]
fn a_mapping_with_an_end_is_left_out_after_it() {
    let mapping = |name: &str, until: &str| {
        format!("[[mapping]]\nname = \"{name}\"\npublish = \"9000:a:1\"\nuntil = {until}\n")
    };
    // Both have one port: the first has ended.
    let text = mapping("a", "\"2020-01-01T00:00:00Z\"") + &mapping("b", "2999-01-01T00:00:00Z");
    let files = with(&text);
    let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(names(&loaded).0, ["8080/tcp", "b", "web"]);
    let about = loaded.plan.about.iter().find(|(id, _)| id.name.as_str() == "b").unwrap().1;
    assert_eq!(humantime::format_rfc3339_seconds(about.until.unwrap()).to_string(), "2999-01-01T00:00:00Z");
    for until in ["\"tomorrow\"", "7", "2999-01-01", "\"2999-01-01T00:00:00+01:00\""] {
        let loaded = with(&mapping("a", until)).load().unwrap();
        assert!(loaded.problems_of_managed_file().is_some(), "{until}");
    }
    assert_eq!(problems(&mapping("a", "\"2999-01-01T00:00:00Z\"")), ["4:1 misplaced-key"]);
}
