//! Several Minecraft servers by name on one port, with the servers and clients of PrismarineJS: their lists of servers,
//! joins, and what players see while a server is asleep.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{Portway, Program, Ran, eventually, in_own_network_with_minecraft};

const PORT: u16 = 25565;

fn script(name: &str) -> String {
    format!("{}/tests/lab/minecraft/{name}.js", env!("CARGO_MANIFEST_DIR"))
}

fn server(modules: &str, port: u16, motd: &str) -> Program {
    let path = format!("NODE_PATH={modules}");
    let server = Program::start("env", &[&path, "node", &script("server"), &port.to_string(), motd]);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("the Minecraft server listens", || TcpStream::connect(at).ok());
    server
}

/// What a client sees that asks for a server by `name`.
fn see(modules: &str, what: &str, name: &str) -> Value {
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules).arg(script("client"));
    command.args([what, "127.0.0.1", &PORT.to_string(), name]);
    let ran = Ran::of(command.stdin(Stdio::null())).exits(0);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error} in {ran}"))
}

#[test]
fn players_reach_each_server_by_its_name_and_see_which_one_is_asleep() {
    in_own_network_with_minecraft(|modules| {
        let first = server(modules, 25601, "the first");
        let _second = server(modules, 25602, "the second");
        let config = format!(
            "[[mapping]]\nname = \"mc\"\nlisten = [\"127.0.0.1:{PORT}\"]\nmatch = \"minecraft\"\n\
             hosts = {{ \"one.example.org\" = \"127.0.0.1:25601\", \"*.example.org\" = \"127.0.0.1:25602\" }}\n\
             on_connect_failure = {{ motd = \"fast asleep\", players = \"0/20\" }}\n"
        );
        let portway = Portway::with(&config).start();
        for (name, motd) in [("one.example.org", "the first"), ("two.example.org", "the second")] {
            let status = see(modules, "status", name);
            assert_eq!(status["description"]["text"], motd, "{status}");
            assert_eq!(status["players"]["max"], 7, "{status}");
            assert_eq!(see(modules, "join", name)["joined"], true, "{name}");
        }
        let unknown = see(modules, "status", "elsewhere.net");
        assert!(unknown["description"]["text"].to_string().contains("elsewhere.net"), "{unknown}");
        let kicked = see(modules, "join", "elsewhere.net");
        assert!(kicked["kicked"].to_string().contains("elsewhere.net"), "{kicked}");

        drop(first);
        let status = see(modules, "status", "one.example.org");
        assert_eq!(status["description"]["text"], "fast asleep", "{status}");
        assert_eq!((&status["players"]["online"], &status["players"]["max"]), (&0.into(), &20.into()));
        assert!(status["latency"].is_number(), "the ping has its answer: {status}");
        let kicked = see(modules, "join", "one.example.org");
        assert!(kicked["kicked"].to_string().contains("fast asleep"), "{kicked}");
        assert_eq!(see(modules, "join", "two.example.org")["joined"], true);

        let _again = server(modules, 25601, "the first");
        eventually("the server is seen again", || {
            let status = see(modules, "status", "one.example.org");
            (status["description"]["text"] == "the first").then_some(())
        });
        drop(portway);
    });
}
