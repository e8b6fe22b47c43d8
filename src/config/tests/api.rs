//! `[api]` and `[metrics]`: where portway answers, what it asks for, and what must not lead there.

use super::*;

const TOKEN: &str = "0123456789abcdef";

/// A configuration beside files with tokens.
fn with_tokens(text: &str, tokens: &[(&str, &str)]) -> Files {
    let mut files = vec![("portway.toml", text.as_bytes())];
    files.extend(tokens.iter().map(|(name, token)| (*name, token.as_bytes())));
    Files::new(&files)
}

#[test]
fn without_a_table_there_is_the_usual_socket_and_nothing_else() {
    let Settings { api, metrics, .. } = loaded("publish = \"8080:80\"\n").settings;
    assert_eq!(api.socket, ApiSocket::Usual("/run/portway/portway.sock".into()));
    assert_eq!((api.listen, metrics.listen, &*api.tokens, api.hosts), (None, None, &[][..], vec![]));
}

#[test]
fn every_key_of_the_api_is_read() {
    let text = "publish = \"8080:80\"\n[api]\nsocket = \"x/portway.sock\"\nlisten = \"0.0.0.0:7678\"\n\
                tokens = [{ role = \"admin\", file = \"a\" }, { role = \"read\", file = \"b\" }]\n\
                hosts = [\"NAS.lan.\", \"192.0.2.1\"]\nmanaged = \"m.toml\"\n[metrics]\nlisten = \"[::1]:9678\"\n";
    let files = with_tokens(text, &[("a", &format!("  {TOKEN}\n")), ("b", "other-token-of-32-characters")]);
    let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
    let Settings { api, metrics, .. } = &loaded.settings;
    assert_eq!(api.socket, ApiSocket::Named(files.path("x/portway.sock")));
    assert_eq!(api.listen.as_ref().unwrap().to_string(), "0.0.0.0:7678");
    assert_eq!(metrics.listen.as_ref().unwrap().to_string(), "[::1]:9678");
    let tokens: Vec<_> = api.tokens.iter().map(|t| (t.role, t.secret.as_bytes())).collect();
    assert_eq!(
        tokens,
        [(Role::Admin, TOKEN.as_bytes()), (Role::Read, b"other-token-of-32-characters".as_slice())]
    );
    assert_eq!(api.hosts, ["nas.lan", "192.0.2.1"]);
    assert_eq!(api.managed, Some(files.path("m.toml")));
    let shown = format!("{loaded:?}");
    assert!(!shown.contains(TOKEN) && !shown.contains("other-token"), "{shown}");
}

#[test]
fn the_command_line_names_the_socket_before_the_file_and_off_is_none() {
    let files = file("publish = \"8080:80\"\n[api]\nsocket = \"off\"\n");
    let with = |socket: Option<&str>| {
        let socket = socket.map(Into::into);
        let source = Source { file: Some(files.path("portway.toml")), socket, ..Source::default() };
        load(&source, &Machine).unwrap().settings.api.socket
    };
    assert_eq!(with(None), ApiSocket::Off);
    assert_eq!(with(Some("/x/y.sock")), ApiSocket::Named("/x/y.sock".into()));
    let specs = Source { publish: vec!["8080:80".into()], socket: Some("off".into()), ..Source::default() };
    assert_eq!(load(&specs, &Machine).unwrap().settings.api.socket, ApiSocket::Off);
    let long = Source { socket: Some(format!("/{}", "x".repeat(107)).into()), ..specs };
    let problems = load(&long, &Machine).unwrap_err().to_string();
    assert!(problems.contains("has 108 bytes; the system takes 107"), "{problems}");
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let listen = |ip: &str| format!("publish = \"8080:80\"\n[api]\nlisten = \"{ip}:7678\"\n");
    for ip in ["127.0.0.1", "127.9.9.9", "[::1]"] {
        loaded(&listen(ip));
    }
    for ip in ["0.0.0.0", "192.168.1.2", "[::]"] {
        assert_eq!(problems(&listen(ip)), ["3:11 missing-key"], "{ip}");
    }
    assert_eq!(problems(&format!("{}tokens = []\n", listen("0.0.0.0"))), ["4:10 empty"]);
    // Metrics alone need none.
    loaded("publish = \"8080:80\"\n[metrics]\nlisten = \"0.0.0.0:9678\"\n");
}

#[test]
fn a_token_file_that_cannot_be_used_is_a_problem_which_does_not_show_it() {
    let long = "x".repeat(4097);
    for (token, why) in [
        ("0123456789abcde\n", "has a token of 15 characters; the least is 16"),
        ("", "has a token of 0 characters"),
        ("0123456789abcdef 0123456789abcdef", "has more than one word"),
        ("0123456789abcd\u{e9}f", "characters that are not ASCII"),
        (&long, "more than 4 KiB"),
    ] {
        let text = "publish = \"8080:80\"\n[api]\ntokens = [{ role = \"read\", file = \"t\" }]\n";
        let files = with_tokens(text, &[("t", token)]);
        assert_eq!(files.problems(), ["portway.toml:3:36 unreadable-file"]);
        let said = files.load().unwrap_err().to_string();
        assert!(said.contains(why) && !said.contains("0123456789"), "{said}");
    }
    let missing = problems("[api]\ntokens = [{ role = \"read\", file = \"t\" }]\n");
    assert_eq!(missing, ["2:36 unreadable-file"]);
    let twice = "publish = \"8080:80\"\n[api]\n\
                 tokens = [{ role = \"read\", file = \"a\" }, { role = \"admin\", file = \"b\" }]\n";
    let files = with_tokens(twice, &[("a", TOKEN), ("b", TOKEN)]);
    assert_eq!(files.problems(), ["portway.toml:3:68 duplicate-entry"]);
}

#[test]
fn a_token_in_the_configuration_itself_is_refused_and_not_shown() {
    for tokens in [
        "tokens = [\"tell-nobody-this\"]",
        "tokens = \"tell-nobody-this\"",
        "tokens = [{ role = \"admn\", token = \"tell-nobody-this\" }, { rol = \"admn\" }]",
    ] {
        let files = file(&format!("[api]\n{tokens}\n"));
        let problems = files.load().unwrap_err();
        let shown = format!("{problems} {problems:?}");
        assert!(!shown.contains("tell-nobody-this"), "{shown}");
        assert!(problems.iter().all(|p| p.code == Code::WrongType && p.help.is_some()), "{problems}");
    }
}

#[test]
fn mistakes_in_the_tables_are_found_with_what_was_meant() {
    let text = "[api]\nsoket = \"x\"\nlisten = \"localhost:7678\"\nhosts = [\"nas.lan:80\", \"http://x\"]\n\
                tokens = [{ role = \"root\" }, { fil = \"x\", role = \"read\" }]\nmanaged = \"\"\n\
                [metrics]\nlisten = \"1-2\"\nport = 1\n";
    let found = file(text).load().unwrap_err();
    let places: Vec<_> = found.iter().map(super::found).collect();
    assert_eq!(
        places,
        [
            "2:1 unknown-key",
            "3:11 invalid-spec",
            "4:11 invalid-value",
            "4:25 invalid-value",
            "5:11 missing-key",
            "5:21 invalid-value",
            "5:32 unknown-key",
            "6:12 empty",
            "8:11 invalid-value",
            "9:1 unknown-key"
        ]
    );
    let said = found.to_string();
    for cure in
        ["did you mean `socket`?", "write \"127.0.0.1:7678\"", "write \"nas.lan\"", "did you mean `file`?"]
    {
        assert!(said.contains(cure), "{cure}: {said}");
    }
    let included = Files::new(&[
        ("portway.toml", b"include = [\"a.toml\"]\npublish = [\"8080:80\"]\n"),
        ("a.toml", b"[api]\nlisten = \"127.0.0.1:7678\"\n"),
    ]);
    assert_eq!(included.problems(), ["a.toml:1:2 misplaced-key"]);
    let at_top = file("managed = \"x\"\npublish = [\"8080:80\"]\n").load().unwrap_err().to_string();
    assert!(at_top.contains("it belongs in [api]"), "{at_top}");
}

#[test]
fn no_mapping_takes_the_port_of_the_api_or_leads_to_it() {
    let with = |rest: &str| {
        problems(&format!("[api]\nlisten = \"127.0.0.1:7678\"\n[metrics]\nlisten = \"[::]:9678\"\n{rest}"))
    };
    let mapping = |spec: &str| format!("[[mapping]]\npublish = \"{spec}\"\n");
    for spec in
        ["7678:10.0.0.1:80", "127.0.0.1:7678:10.0.0.1:80", "7670-7680:10.0.0.1:80", "9678:10.0.0.1:80"]
    {
        assert_eq!(with(&mapping(spec)), ["6:12 port-in-use"], "{spec}");
    }
    assert_eq!(with("[guard]\ntrap = [\"7678\"]\nstate = \"b.json\"\n"), ["6:10 port-in-use"]);
    for spec in [
        "8080:7678",
        "8080:localhost:7678",
        "8080:[::1]:9678",
        "8080:127.1.2.3:9678",
        "8080:192.168.1.2:9678",
        "7000-7010:127.0.0.1:7670-7680",
    ] {
        assert_eq!(with(&mapping(spec)), ["6:12 exposed-api"], "{spec}");
    }
    let said = file(&format!("[api]\nlisten = \"127.0.0.1:7678\"\n{}", mapping("8080:7678")));
    let said = said.brief(&said.load().unwrap_err().to_string());
    assert!(said.contains("set at portway.toml:2:11"), "{said}");
    // What only looks like it.
    let sound = "8080:127.0.0.2:7678 8081:10.0.0.1:7678 8082:10.0.0.1:9678 8083:localhost:7679 7678:10.0.0.1:80/udp \
                 8084:127.0.0.1:7678/udp 192.168.1.2:7678:10.0.0.1:80";
    let sound: String = sound.split(' ').map(mapping).collect();
    loaded(&format!("[api]\nlisten = \"127.0.0.1:7678\"\n[metrics]\nlisten = \"[::]:9678\"\n{sound}"));
    let both = "[api]\nlisten = \"127.0.0.1:7678\"\n[metrics]\nlisten = \"7678\"\n";
    assert_eq!(problems(both), ["4:11 port-in-use"]);
}

#[test]
fn the_terms_of_proof_from_outside_are_read_and_their_token_is_for_that_alone() {
    let text = "publish = \"8080:80\"\n[api]\nlisten = \"0.0.0.0:7678\"\ntokens = [{ role = \"admin\", file = \"a\" }]\n\
                [probe]\ntoken_file = \"p\"\nfrom = \"http://203.0.113.9:7678/\"\nproxies = [\"127.0.0.1\", \"10.0.0.0/24\"]\n";
    let files = with_tokens(text, &[("a", TOKEN), ("p", "a-token-for-other-nodes")]);
    let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
    let api = &loaded.settings.api;
    let probe = api.probe.as_ref().unwrap();
    assert_eq!(probe.from.as_ref().unwrap().to_string(), "http://203.0.113.9:7678");
    assert_eq!(
        probe.proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1/32", "10.0.0.0/24"]
    );
    assert_eq!(probe.token.as_bytes(), b"a-token-for-other-nodes");
    assert_eq!(api.tokens.iter().map(|token| token.role).collect::<Vec<_>>(), [Role::Admin, Role::Probe]);
    assert_eq!(api.token_files, [files.path("a"), files.path("p")]);
    assert!(!format!("{loaded:?}").contains("a-token-for-other-nodes"));
    // It is enough for an address that other machines reach.
    let alone =
        text.replace("tokens = [{ role = \"admin\", file = \"a\" }]\n", "").replace("proxies", "# proxies");
    with_tokens(&alone, &[("p", TOKEN)]).load().unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn what_is_wrong_with_proof_from_outside_is_told() {
    let said = |probe: &str| {
        let text = format!("publish = \"8080:80\"\n[probe]\n{probe}\n");
        with_tokens(&text, &[("p", TOKEN)]).load().unwrap_err().to_string()
    };
    for (probe, words) in [
        ("", "[probe] without `token_file`"),
        ("token_file = \"none\"", "none cannot be read"),
        ("token_file = \"p\"\nfrom = \"other.example\"", "`other.example` cannot be asked"),
        ("token_file = \"p\"\nfrom = \"http://a@b\"", "more than a host, a port and a path"),
        ("token_file = \"p\"\nproxies = [\"x\"]", "x"),
        ("token_file = \"p\"\nproxies = [\"127.0.0.1\"]", "would be an administrator"),
        ("token_file = \"p\"\nform = \"http://a\"", "did you mean"),
    ] {
        let problems = said(probe);
        assert!(problems.contains(words), "{words}: {problems}");
    }
}
