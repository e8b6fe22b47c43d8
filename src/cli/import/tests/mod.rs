//! What becomes of files: a small one of each kind (`kinds`), and what published ones hold
//! (`real`).

mod kinds;
mod real;

use proptest::prelude::*;

use super::{
    convert::{Value, read, sorted, told, value},
    *,
};

/// What becomes of files: the mappings without comments, and the losses without their reasons.
struct Outcome {
    text: String,
    losses: Vec<String>,
}

fn imported(files: &[(&str, &str)], from: Option<Kind>) -> Outcome {
    let texts: Vec<(String, String)> =
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let (sorted, unknown) = sorted(&texts, from);
    assert!(unknown.is_empty(), "{unknown:?}");
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let mut imported = read(&sorted);
    let text = accepted(&mut imported, &names, "# head\n", &System).expect("its own reader takes it");
    let all = imported.all_losses();
    let losses = all.iter().map(|loss| {
        let shown = format!("{}: {}", loss.place.line, loss.what);
        assert!(text.contains(&told(loss, &names)), "{shown} is a comment in\n{text}");
        assert!(!loss.why.starts_with("portway refuses it"), "{shown}: {}", loss.why);
        shown
    });
    let losses = losses.collect();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Outcome { text: lines.collect::<Vec<_>>().join("\n"), losses }
}

/// One file, its kind by what is in it.
fn one(text: &str) -> Outcome {
    imported(&[("file", text)], None)
}

#[track_caller]
fn becomes(outcome: &Outcome, mappings: &[&str], losses: &[&str]) {
    let expected: Vec<String> = mappings.iter().map(|mapping| format!("[[mapping]]\n{mapping}")).collect();
    assert_eq!(outcome.text, expected.join("\n"));
    assert_eq!(outcome.losses, losses);
}

#[test]
fn a_port_that_two_tools_use_is_imported_once() {
    let text = "0.0.0.0 8080 10.0.0.3 80\n0.0.0.0 8080 10.0.0.4 80\n";
    let texts = [("a".to_owned(), text.to_owned())];
    let mut imported = read(&sorted(&texts, None).0);
    let text = accepted(&mut imported, &["a"], "", &System).expect("the first is fine");
    assert!(text.contains("10.0.0.3") && text.contains("# not carried over: a:2: "), "{text}");
    assert_eq!(imported.mappings.len(), 1);
}

#[test]
fn no_text_becomes_a_variable_or_a_key() {
    let text =
        "services:\n  \"a\\\"]\\nname = \\\"${HOME}\":\n    container_name: ok\n    ports: ['80:80']\n";
    let outcome = imported(&[("compose.yml", text)], None);
    assert!(outcome.text.contains("name = \"a---name------HOME\""), "{}", outcome.text);
    let value = value(&Value::Text("a\"\\\n$x\u{7f}".into()));
    assert_eq!(value, "\"a\\\"\\\\\\u000A$$x\\u007F\"");
}

#[test]
fn an_alias_that_stands_for_much_takes_little() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..40 {
        let before = format!("*a{}", i - 1);
        text += &format!("a{i}: &a{i} [{}]\n", [&*before; 8].join(", "));
    }
    text += "services: { a: { ports: *a39 } }\n";
    let outcome = imported(&[("compose.yml", &text)], None);
    assert_eq!(outcome.text, "");
}

/// Pieces of which files of every kind are made.
const PIECES: &[&str] = &[
    "frontend a\n",
    "backend b\n",
    "bind :80\n",
    "server s 10.0.0.1:80 check\n",
    "listen x 1.2.3.4:5\n",
    "use_backend b if",
    " { req_ssl_sni -i a.b }",
    "default_backend b\n",
    "stream {",
    "server {",
    "listen 80;",
    "}",
    "proxy_pass ",
    "10.0.0.1:80",
    ";",
    "upstream u {",
    "map $ssl_preread_server_name $n {",
    "services:\n",
    "  web:\n",
    "    ports:\n",
    "      - ",
    "8080:80",
    "\n",
    "\"",
    "'",
    "\\",
    "&a ",
    "*a",
    "<<: *a\n",
    "{",
    "[",
    "]",
    ",",
    ":",
    "$",
    "${A:-1}",
    "0.0.0.0 80 10.0.0.1 80",
    "socat TCP-LISTEN:80,fork TCP:a:80",
    "ssh -L 80:a:80 b",
    "-A X -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:80",
    "table ip nat {\n",
    "tcp dport ",
    "dnat to ",
    "map ",
    "[[endpoints]]\n",
    "listen = \"a:1\"\n",
    "remote = \"b:2\"\n",
    "[Socket]\n",
    "[Service]\n",
    "ListenStream=80\n",
    "ExecStart=systemd-socket-proxyd a:80\n",
    "[common]\n",
    "[x]\n",
    "type = tcp\n",
    "remote_port = 1\n",
    "local_port = 2\n",
    "[server.services.a]\n",
    "[client.services.a]\n",
    "bind_addr = \"0.0.0.0:1\"\n",
    "local_addr = \"a:2\"\n",
    "é",
    "\u{0}",
    "65536",
    "0",
    "-",
    "::",
    "%",
    "#",
    "balance first\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_imported_its_own_reader_takes(
        pieces in proptest::collection::vec(prop_oneof![
            4 => proptest::sample::select(PIECES).prop_map(str::to_owned),
            1 => "\\PC{0,6}".prop_map(|text| text),
        ], 0..40),
    ) {
        let text = pieces.concat();
        convert::claims::import(text.as_bytes());
        for kind in Kind::ALL {
            let texts = [("x\u{1b}\n.yml".to_owned(), text.clone())];
            let mut imported = read(&sorted(&texts, Some(kind)).0);
            let names = ["x\u{1b}\n.yml"];
            let written = accepted(&mut imported, &names, "", &System);
            prop_assert!(written.is_ok(), "{kind:?}: {written:?}");
        }
    }
}
