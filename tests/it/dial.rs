//! Silence: a name server that does not answer, and a machine that went away without a FIN or a reset.

use std::net::UdpSocket;

use crate::harness::{Client, Portway, TcpTarget, in_own_network, mapping, messages, own_addr, run};

/// Gives the daemon a name server of its own, and leaves the machine's alone: FILES replace those of /etc.
const WITH_NAME_SERVER: &str = r#"for name in resolv.conf nsswitch.conf; do
    [ -e "/etc/$name" ] && mount --bind "$FILES/$name" "/etc/$name"
done
exec "$@""#;

#[test]
fn a_name_server_that_is_silent_holds_a_client_no_longer_than_connect_timeout() {
    in_own_network(&["mount"], || {
        let files = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).expect("a file");
        // The resolver itself would wait for longer than the test does.
        write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:3\n");
        write("nsswitch.conf", "hosts: files dns\n");
        let name_server = UdpSocket::bind("127.0.0.1:53").expect("every port is free here");
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        let up = target.addr;
        let config = format!(
            "[[mapping]]\nlisten = [\"{at}\"]\ntargets = [\"lost.test:80\", \"{up}\"]\nbalance = \"first\"\n\
             connect_timeout = \"2s\"\n"
        );
        let portway = Portway::with(&config)
            .env("FILES", files.path().to_str().expect("a plain path"))
            .through(["unshare", "--mount", "--", "sh", "-c", WITH_NAME_SERVER, "sh"])
            .start();
        Client::to(at).ping();
        name_server.set_nonblocking(true).expect("a socket");
        assert!(name_server.recv_from(&mut [0; 512]).is_ok(), "it was asked\n{}", portway.log());
    });
}

#[test]
fn a_machine_that_went_away_without_a_word_is_found_out_on_either_side() {
    in_own_network(&["nft"], || {
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        let mut portway = Portway::with(&mapping(at, target.addr, "keepalive = \"1s\"\n")).start();
        let vanishes = |port: u16| {
            run("nft add table inet gone");
            run("nft add chain inet gone in { type filter hook input priority 0 ; }");
            run(&format!("nft add rule inet gone in tcp sport {port} drop"));
            run(&format!("nft add rule inet gone in tcp dport {port} drop"));
        };
        for side in ["client-error", "target-error"] {
            let mut client = Client::to(at);
            client.ping();
            let before = portway.log_len();
            match side {
                "client-error" => vanishes(client.0.local_addr().expect("it is connected").port()),
                _ => vanishes(target.addr.port()),
            }
            // With the kernel's own pace it would be eleven minutes.
            let line = portway.wait_log_after(before, messages::SESSION_ENDED, |_| true);
            assert_eq!(line.text("reason"), side, "{}", line.raw());
            run("nft delete table inet gone");
        }
    });
}
