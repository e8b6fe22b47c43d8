//! What files that people have published hold, with other names and addresses: how they are made,
//! and which options they use.

use super::{Kind, becomes, imported, one};

const TUNNEL: &str = "1: the tunnel";
const ENCRYPTION: &str = "the encryption";

#[test]
fn scripts_that_start_socat_with_variables_and_redirections() {
    let text = "#!/usr/bin/env bash\nset -e\nLISTEN_PORT=9000\nTARGET='10.0.0.5'\n\
                command -v socat >/dev/null || apt-get install -y socat\n\
                nohup socat TCP4-LISTEN:${LISTEN_PORT},reuseaddr,fork TCP4:${TARGET}:90 >> /root/socat.log 2>&1 &\n\
                nohup socat -T 600 UDP4-LISTEN:$LISTEN_PORT,reuseaddr,fork UDP4:$TARGET:90 </dev/null &>/dev/null &\n\
                echo \"[Unit]\n[Service]\nExecStart=/usr/bin/socat TCP4-LISTEN:${LISTEN_PORT},reuseaddr,fork TCP4:${TARGET}:90\n\" > x\n\
                listen () {\n  socat -T 1800 tcp-listen:${1},reuseaddr,fork tcp:${2} &\n}\n\
                if pgrep -f \"socat.*LISTEN\"; then echo on; fi\n";
    becomes(
        &one(text),
        &[
            "publish = \"0.0.0.0:9000:10.0.0.5:90\"",
            "publish = \"0.0.0.0:9000:10.0.0.5:90/udp\"\nidle_timeout = \"10m\"",
        ],
        &[
            "13: socat tcp-listen:${1},reuseaddr,fork tcp:${2}",
            "13: tcp-listen:${1},reuseaddr,fork",
            "13: ${2}",
        ],
    );
}

#[test]
fn socat_for_one_family_and_towards_what_is_no_port() {
    let text = "socat TCP6-LISTEN:443,ipv6only=1,fork,su=nobody TCP4:localhost:8443\n\
                socat TCP-LISTEN:2375,bind=192.0.2.1,reuseaddr,fork UNIX-CLIENT:/var/run/docker.sock &\n\
                socat TCP-LISTEN:3000,reuseaddr,fork VSOCK-CONNECT:16:3000 </dev/null >/tmp/x.log 2>&1 &\n\
                socat TCP4-LISTEN:9050,fork SOCKS4A:localhost:example.org:50000,socksport=9050 &\n";
    becomes(
        &one(text),
        &["publish = \"443:localhost:8443\""],
        &[
            "1: ipv6only",
            "1: su",
            "2: socat TCP-LISTEN:2375,bind=192.0.2.1,reuseaddr,fork UNIX-CLIENT:/var/run/docker.sock",
            "2: UNIX-CLIENT",
            "3: socat TCP-LISTEN:3000,reuseaddr,fork VSOCK-CONNECT:16:3000",
            "3: VSOCK-CONNECT",
            "4: socat TCP4-LISTEN:9050,fork SOCKS4A:localhost:example.org:50000,socksport=9050",
            "4: SOCKS4A",
        ],
    );
}

#[test]
fn units_of_socat_with_clients_and_with_variables() {
    let peer = "[Unit]\nAfter=network-online.target\n[Service]\nUser=nobody\nEnvironment=\"PORT=9000\" PEER=198.51.100.7\n\
                ExecStart=/usr/bin/socat TCP4-LISTEN:${PORT},bind=192.0.2.1,reuseaddr,fork,range=${PEER}/32 TCP4:127.0.0.1:$PORT\n\
                NoNewPrivileges=true\n[Install]\nWantedBy=multi-user.target\n";
    let shell = "[Service]\nExecStart=/bin/sh -c \"socat -d -d TCP-LISTEN:80,fork TCP:192.168.49.2:80\"\nRestart=always\n";
    let serial = "[Service]\nExecStart=/usr/bin/socat TCP-LISTEN:12345,reuseaddr,fork FILE:/dev/ttyACM1,rawer,b230400\n";
    becomes(
        &imported(&[("a/relay-1.2.service", peer), ("web.service", shell), ("serial.service", serial)], None),
        &[
            "name = \"relay-1.2\"\npublish = \"192.0.2.1:9000:127.0.0.1:9000\"\nallow = [\"198.51.100.7\"]",
            "name = \"web\"\npublish = \"80:192.168.49.2:80\"",
        ],
        &["2: socat TCP-LISTEN:12345,reuseaddr,fork FILE:/dev/ttyACM1,rawer,b230400", "2: FILE"],
    );
}

#[test]
fn sockets_of_proxyd_named_by_either_unit_and_in_other_namespaces() {
    let on_demand = "[Unit]\nDescription=x\n[Socket]\nListenStream=0.0.0.0:8000\nService=app-proxy.service\nAccept=no\n\
                     [Install]\nWantedBy=sockets.target\n";
    let proxy = "[Unit]\nRequires=app.service app.socket\n[Service]\n\
                 ExecStart=/usr/bin/timeout 90 /usr/local/bin/wait\n\
                 ExecStart=/lib/systemd/systemd-socket-proxyd --exit-idle-time 900 127.0.0.1:8001\nPrivateTmp=yes\n";
    let vpn = "[Socket]\nListenStream=6500\nBindIPv6Only=ipv6-only\nFreeBind=true\n";
    let behind = "[Unit]\nJoinsNamespaceOf=box.service\n[Service]\nSockets=vpn-in.socket\n\
                  ExecStart=/usr/lib/systemd/systemd-socket-proxyd --connections-max=64 127.0.0.1:6501\nPrivateNetwork=yes\n";
    let docker = "[Socket]\nListenStream=/run/x.sock\nSocketMode=0660\n";
    let to_docker = "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd /run/docker.sock\n";
    becomes(
        &imported(
            &[
                ("app.socket", on_demand),
                ("app-proxy.service", proxy),
                ("vpn-in.socket", vpn),
                ("to-box.service", behind),
                ("d.socket", docker),
                ("d.service", to_docker),
            ],
            None,
        ),
        &[
            "name = \"app-proxy\"\npublish = \"0.0.0.0:8000:127.0.0.1:8001\"",
            "name = \"to-box\"\npublish = \"6500:127.0.0.1:6501\"\nmax_sessions = 64",
        ],
        &[
            "4: /usr/bin/timeout",
            "5: --exit-idle-time",
            "3: BindIPv6Only",
            "2: JoinsNamespaceOf=box.service",
            "6: PrivateNetwork=yes",
            "2: /run/x.sock",
            "2: systemd-socket-proxyd /run/docker.sock",
            "2: /run/docker.sock",
        ],
    );
}

#[test]
fn ssh_in_scripts_units_and_configurations() {
    let script = "#!/bin/bash\nREMOTE=\"ops\"\nHOST=\"198.51.100.4\"\nINNER=\"10.0.2.81\"\nPORT=3306\n\
                  start() {\n  /usr/bin/ssh -f -N -i /root/key.pem -L $PORT:$INNER:$PORT $REMOTE@$HOST\n}\n\
                  autossh -M 0 -gNC -f -L 9000:localhost:8000 me@localhost\n\
                  ssh -f -L 7373:localhost:7373 -L 5513:localhost:5513 workstation \"socat -L 1:2:3\" -L 8:a:8\n\
                  autossh -M 0 -o \"ServerAliveInterval 60\" -o GatewayPorts=yes -N -R 9901:127.0.0.1:8000 -L 81:web.lan:80 gate\n\
                  ssh -N -L 8000:$NODE:8000 <you>@login.example.org\n";
    becomes(
        &imported(&[("tunnel.sh", script)], Some(Kind::Ssh)),
        &[
            "publish = \"127.0.0.1:3306:10.0.2.81:3306\"",
            "publish = \"9000:localhost:8000\"",
            "publish = \"127.0.0.1:7373:workstation:7373\"",
            "publish = \"127.0.0.1:5513:workstation:5513\"",
            "publish = \"81:web.lan:80\"",
        ],
        &[
            "7: the encryption",
            "9: the encryption",
            "10: the encryption",
            "11: -R 9901:127.0.0.1:8000",
            "11: the encryption",
            "12: -L 8000:$NODE:8000 ",
        ],
    );
    let unit = "[Service]\nExecStart=/usr/bin/ssh -i /home/me/.ssh/id -N -L 8340:localhost:8341 me@198.51.100.4\nRestart=always\n";
    becomes(
        &imported(&[("ssh-tunnel.service", unit)], None),
        &["name = \"ssh-tunnel\"\npublish = \"127.0.0.1:8340:198.51.100.4:8341\""],
        &["2: the encryption"],
    );
    let config = "Host db-tunnel\n    LocalForward 5432 db-1.example.org:5432\n    LocalForward 5433 127.0.0.1:5432\n\
                  \x20   HostName 10.0.4.10\n    User ops\nHost web-*\n    User ops\nHost out\n  HostName %h.example.org\n\
                  \x20 GatewayPorts yes\n  LocalForward 81 localhost:80\n  DynamicForward 1080\n";
    let outcome = one(config);
    becomes(
        &outcome,
        &[
            "publish = \"127.0.0.1:5432:db-1.example.org:5432\"",
            "publish = \"127.0.0.1:5433:10.0.4.10:5432\"",
            "publish = \"81:out.example.org:80\"",
        ],
        &["2: the encryption", "3: the encryption", "11: the encryption", "12: DynamicForward 1080"],
    );
    assert!(outcome.losses[0].ends_with(ENCRYPTION));
}

#[test]
fn rinetd_with_names_of_this_machine_both_families_and_other_programs_keys() {
    let text = "# one a line\nlocalhost 40081 192.168.8.1 80\nlocalhost 40021\t192.168.2.1   80\nlogfile /var/log/rinetd.log\n";
    becomes(
        &one(text),
        &["publish = \"127.0.0.1:40081:192.168.8.1:80\"", "publish = \"127.0.0.1:40021:192.168.2.1:80\""],
        &["4: logfile /var/log/rinetd.log"],
    );
    let text = "events auto\nuser www-data\n#0.0.0.0 80 127.0.0.1 8080\n::  80  127.0.0.1 8080\n0.0.0.0 443 web.example.org 443\n\
                allow *.*.*.*\n";
    becomes(
        &one(text),
        &[
            "publish = \"80:127.0.0.1:8080\"",
            "publish = \"0.0.0.0:443:web.example.org:443\"\nallow = [\"0.0.0.0/0\"]",
        ],
        &["1: events auto", "2: user www-data"],
    );
    let text = "192.0.2.50 9999 10.0.0.120 23\n192.0.2.50 9998 10.0.0.50 22\n2001:db8::1 3389 192.168.1.12 3389\nallow 192.0.2.*\n\
                deny 192.0.2.1?\n";
    becomes(
        &one(text),
        &[
            "publish = \"192.0.2.50:9999:10.0.0.120:23\"",
            "publish = \"192.0.2.50:9998:10.0.0.50:22\"",
            "publish = \"[2001:db8::1]:3389:192.168.1.12:3389\"\nallow = [\"192.0.2.0/24\"]",
        ],
        &["5: deny 192.0.2.1?"],
    );
}

#[test]
fn frp_with_names_groups_ranges_plugins_and_the_file_of_the_server() {
    let client = "serverAddr = \"frp.example.org\"\nserverPort = 7001\nauth.method = \"token\"\nlog.to = \"x.log\"\n\
                  transport.tls.enable = true\n\
                  [[proxies]]\nname = \"api\"\ntype = \"http\"\nlocalIP = \"10.0.0.5\"\nlocalPort = 6000\nsubdomain = \"api\"\n\
                  [[proxies]]\nname = \"nas\"\ntype = \"http\"\nlocalIP = \"10.0.0.6\"\nlocalPort = 6009\ncustomDomains = [\"nas.example.org\"]\nhttpUser = \"a\"\n\
                  [[proxies]]\nname = \"tls\"\ntype = \"https\"\nlocalIP = \"10.0.0.7\"\nlocalPort = 8989\ncustomDomains = [\"t.example.org\"]\ntransport.proxyProtocolVersion = \"v2\"\n\
                  [[proxies]]\nname = \"a\"\ntype = \"tcp\"\nlocalIP = \"10.0.0.8\"\nlocalPort = 22\nremotePort = 6001\nloadBalancer.group = \"g\"\nhealthCheck.type = \"tcp\"\nhealthCheck.intervalSeconds = 10\nhealthCheck.maxFailed = 3\n\
                  [[proxies]]\nname = \"b\"\ntype = \"tcp\"\nlocalIP = \"10.0.0.9\"\nlocalPort = 22\nremotePort = 6001\nloadBalancer.group = \"g\"\n\
                  [[proxies]]\nname = \"socks\"\ntype = \"tcp\"\nremotePort = 6005\n[proxies.plugin]\ntype = \"socks5\"\n\
                  [[proxies]]\nname = \"free\"\ntype = \"tcp\"\nlocalIP = \"10.0.0.9\"\nlocalPort = 1\nremotePort = 0\n";
    let server = "bindPort = 7001\nvhostHTTPPort = 8080\nsubDomainHost = \"d.example.org\"\n";
    becomes(
        &imported(&[("frpc.toml", client), ("frps.toml", server)], None),
        &[
            "name = \"http\"\nlisten = [\"8080\"]\nmatch = \"http-host\"\n[mapping.hosts]\n\
             \"api.d.example.org\" = \"10.0.0.5:6000\"\n\"nas.example.org\" = \"10.0.0.6:6009\"",
            "name = \"tls\"\nlisten = [\"443\"]\nmatch = \"tls-sni\"\n[mapping.hosts]\n\
             \"t.example.org\" = { targets = [\"10.0.0.7:8989\"], send_proxy = \"v2\" }",
            "name = \"a\"\nlisten = [\"6001\"]\ntargets = [\"10.0.0.8:22\", \"10.0.0.9:22\"]\nhealth = { interval = \"10s\", fall = 3 }",
        ],
        &[TUNNEL, "12: httpuser", "43: proxy socks (tcp)", "49: proxy free (tcp)", "49: remotePort 0"],
    );
    let ini = "# frpc\n[common]\nserver_addr = x\nserver_port = 7000\nprotocol = quic\n[range:games]\ntype = udp\nlocal_ip = 10.0.0.5\n\
               local_port = 6010-6020,6022\nremote_port = 7010-7020,7022\nuse_encryption = false\n\
               [web]\ntype = http\nlocal_ip = 10.0.0.5\nlocal_port = 80\ncustom_domains = a.example.org, b.example.org\nsubdomain = c\n\
               [p2p_visitor]\nrole = visitor\ntype = xtcp\nbind_port = 9001\n";
    becomes(
        &one(ini),
        &[
            "name = \"games\"\npublish = \"7010-7020:10.0.0.5:6010-6020/udp\"",
            "name = \"games-2\"\npublish = \"7022:10.0.0.5:6022/udp\"",
            "name = \"web\"\nlisten = [\"80\"]\nmatch = \"http-host\"\n[mapping.hosts]\n\
             \"a.example.org\" = \"10.0.0.5:80\"\n\"b.example.org\" = \"10.0.0.5:80\"",
        ],
        &[TUNNEL, "17: subdomain c", "18: proxy p2p_visitor (xtcp)"],
    );
    let mail = "serverAddr = 'x'\n[[proxies]]\nname = 'smtp'\ntype = 'tcp'\nlocalPort = 2525\nremotePort = 25\n\
                [[proxies]]\nname = 'dns'\ntype = 'udp'\nlocalIP = '192.0.2.53'\nlocalPort = 53\nremotePort = 6002\n";
    becomes(
        &one(mail),
        &[
            "name = \"smtp\"\npublish = \"25:127.0.0.1:2525\"",
            "name = \"dns\"\npublish = \"6002:192.0.2.53:53/udp\"",
        ],
        &[TUNNEL],
    );
    becomes(&one(server), &[], &["1: frps"]);
}

#[test]
fn realm_and_rathole_in_older_and_newer_forms() {
    let text = "[[endpoints]]\nlisten = \"::0:10000\"\nremote = \"web.example.org:443\"\n[[endpoints]]\nlisten = \"::0:10001\"\nremote = \"2001:db8::1:443\"\n";
    becomes(
        &one(text),
        &["publish = \"10000:web.example.org:443\"", "publish = \"10001:[2001:db8::1]:443\""],
        &[],
    );
    let text = "[network]\nno_tcp = false\nuse_udp = true\n[[endpoints]]\nlisten = \"0.0.0.0:4000\"\nremote = \"192.0.2.1:443\"\n";
    becomes(&one(text), &["publish = \"0.0.0.0:4000:192.0.2.1:443/tcp+udp\""], &[]);
    let text = "{\n\t\"dns_mode\": \"ipv4_only\",\n\t\"endpoints\": [\n\t\t{\n\t\t\t\"local\": \"0.0.0.0:5000\",\n\t\t\t\"remote\": \"192.0.2.1:443\",\n\t\t\t\"udp\": false\n\t\t},\n\
                \t\t{\n\t\t\t\"local\": \"0.0.0.0:10000\",\n\t\t\t\"remote\": \"web.example.org:443\",\n\t\t\t\"udp\": true\n\t\t}\n\t]\n}\n";
    becomes(
        &one(text),
        &[
            "publish = \"0.0.0.0:5000:192.0.2.1:443\"",
            "publish = \"0.0.0.0:10000:web.example.org:443/tcp+udp\"",
        ],
        &["2: dns_mode"],
    );
    let server = "[server]\nbind_addr = \"0.0.0.0:2333\"\ndefault_token = \"t\"\nheartbeat_interval = 20\n[server.transport]\ntype = \"tcp\"\n\
                  [server.transport.tcp]\nkeepalive_secs = 20\n[server.services.http]\nbind_addr = \"0.0.0.0:80\"\nnodelay = true\n\
                  [server.services.game]\ntype = \"udp\"\nbind_addr = \"[::]:19132\"\n";
    let client = "[client]\nremote_addr = \"198.51.100.4:2333\"\nretry_interval = 1\n[client.services.http]\nlocal_addr = \"127.0.0.1:8080\"\n\
                  [client.services.game]\ntype = \"udp\"\nlocal_addr = \"mc.lan:19132\"\n[client.services.other]\nlocal_addr = \"a:1\"\n";
    becomes(
        &imported(&[("client.toml", client), ("server.toml", server)], None),
        &[
            "name = \"http\"\npublish = \"0.0.0.0:80:127.0.0.1:8080\"",
            "name = \"game\"\npublish = \"19132:mc.lan:19132/udp\"",
        ],
        &["9: service other", TUNNEL],
    );
    becomes(&one(server), &[], &[TUNNEL, "9: service http", "12: service game"]);
}

#[test]
fn compose_with_defaults_and_messages_in_variables() {
    let text = "services:\n  traefik:\n    ports:\n      - \"${HTTP_PORT:-80}:80\"\n      - ${IP-127.0.0.1}:443:443/tcp\n      - \"${PORT:?set-it-first}:1\"\n      - $PORT:2\n\
                \x20 vpn:\n    container_name: vpn-box\n    ports: [\"6881:6881\", \"6881:6881/udp\", \"[::1]:90:91\"]\n\
                \x20 torrent:\n    network_mode: service:vpn\n  frps:\n    network_mode: host\n    ports: [\"7000:7000\"]\n\
                \x20 master:\n    ports:\n      - \"127.0.0.1:19989:9989\"\n      - \"3000-3005:3000-3005\"\n      - \"5353:53/sctp\"\n";
    becomes(
        &imported(&[("docker-compose.prod.yml", text)], None),
        &[
            "name = \"traefik\"\npublish = \"80:traefik:80\"",
            "name = \"traefik-2\"\npublish = \"127.0.0.1:443:traefik:443\"",
            "name = \"vpn\"\npublish = \"6881:vpn-box:6881\"",
            "name = \"vpn-2\"\npublish = \"6881:vpn-box:6881/udp\"",
            "name = \"vpn-3\"\npublish = \"[::1]:90:vpn-box:91\"",
            "name = \"master\"\npublish = \"127.0.0.1:19989:master:9989\"",
            "name = \"master-2\"\npublish = \"3000-3005:master:3000-3005\"",
        ],
        &[
            "6: traefik: ${PORT:?set-it-first}:1",
            "7: traefik: $PORT:2",
            "14: frps",
            "20: service master, port 5353:53/sctp",
        ],
    );
}

#[test]
fn firewalls_with_variables_comments_and_the_same_rule_twice() {
    let saved = "*nat\n:DOCKER - [0:0]\n-A PREROUTING -i eth0 -p tcp -m tcp --dport 2212 -j DNAT --to-destination 192.168.1.1:22\n\
                 -A DOCKER -p tcp -m tcp --dport 5201 -j DNAT --to-destination 172.17.0.2:5201\n\
                 -A DOCKER ! -i docker0 -p tcp -m tcp --dport 5201 -j DNAT --to-destination 172.17.0.2:5201\n\
                 -A DOCKER ! -i docker0 -p udp -m udp --dport 5201 -j DNAT --to-destination 172.17.0.2:5201\nCOMMIT\n";
    becomes(
        &one(saved),
        &[
            "publish = \"2212:192.168.1.1:22\"",
            "publish = \"5201:172.17.0.2:5201\"",
            "publish = \"5201:172.17.0.2:5201/udp\"",
        ],
        &["3: -i eth0"],
    );
    let script = "#!/bin/sh\nni=ens3\nIP=10.27.27.2\n\
                  iptables -t nat -A PREROUTING -p tcp --dport 40000:50000 -j DNAT --to-destination $IP:65001; iptables -t nat -A POSTROUTING -p udp -d $IP -j MASQUERADE\n\
                  for p in 25 80; do\n  iptables -t nat -A PREROUTING -i $ni -p tcp --dport $p -j DNAT --to-destination $IP:$p\ndone\n\
                  iptables -t nat -A PREROUTING -p tcp -i eth0 '!' --dport 22 -j DNAT --to-destination 10.0.0.2\n\
                  iptables -t nat -A PREROUTING -i $ni -p icmp -j DNAT --to-destination $IP\n";
    becomes(
        &one(script),
        &["publish = \"40000-50000:10.27.27.2:65001\""],
        &[
            "6: iptables -t nat -A PREROUTING -i ens3 -p tcp --dport $p -j DNAT --to-destination 10.27.27.2:$p",
            "6: $p",
            "6: 10.27.27.2 $p",
            "6: -i ens3",
            "8: iptables -t nat -A PREROUTING -p tcp -i eth0 ! --dport 22 -j DNAT --to-destination 10.0.0.2",
            "9: iptables -t nat -A PREROUTING -i ens3 -p icmp -j DNAT --to-destination 10.27.27.2",
        ],
    );
    let wireguard = "[Interface]\nAddress = 10.0.0.1/24\n\
                     PostUp = iptables -t nat -A PREROUTING -p tcp --dport 443 -j DNAT --to-destination 10.0.0.2; iptables -A FORWARD -i wg0 -j ACCEPT\n\
                     PostDown = iptables -t nat -D PREROUTING -p tcp --dport 443 -j DNAT --to-destination 10.0.0.2\n";
    becomes(&one(wireguard), &["publish = \"443:10.0.0.2:443\""], &[]);
    let nft = "#!/usr/sbin/nft -f\ndefine nic_wan = \"wan\" # the uplink\ndefine web = 10.240.2.100\ndefine ports = { 993,\n\t995 }\n\
               table inet filter {\n\tchain forward {\n\t\tct status dnat counter accept\n\t}\n}\ntable ip nat {\n\tchain prerouting {\n\
               \t\tiifname $nic_wan dnat ip addr . port to tcp dport map {\n\t\t\t80  : 10.240.2.100 . 80,     # Web: HTTP\n\t\t\t443 : $web . 8443,    # Web: HTTPS\n\t\t}\n\
               \t\ttcp dport $ports dnat to $web comment \"mail # not web\"\n\t}\n}\n";
    becomes(
        &one(nft),
        &[
            "publish = \"80:10.240.2.100:80\"",
            "publish = \"443:10.240.2.100:8443\"",
            "name = \"mail---not-web\"\npublish = \"993:10.240.2.100:993\"",
            "name = \"mail---not-web-2\"\npublish = \"995:10.240.2.100:995\"",
        ],
        &["13: iifname wan"],
    );
}

#[test]
fn haproxy_with_both_families_and_ends_of_names() {
    let text = "global\n  daemon\ndefaults\n  mode tcp\n  option forwardfor except 127.0.0.0/8\n  timeout connect 5s\n\
                frontend smtp_in\n  default_backend smtp\n  bind :25\n  bind :::25\n  timeout client 300s\n\
                backend smtp\n  server mail mail.lan:25 send-proxy-v2\n  timeout server 300s\n\
                frontend https_in\n  bind 0.0.0.0:443\n  bind [::]:443\n  tcp-request inspect-delay 5s\n  tcp-request content accept if { req_ssl_hello_type 1 }\n\
                \x20 acl b req_ssl_sni -i b.example.org\n  use_backend build if { req_ssl_sni -m end build.example.org }\n  use_backend b if b\n\
                backend build\n  option tcp-check\n  server one raid.lan:443 check\nbackend b\n  server two web_b:8443 send-proxy\n\
                listen stats\n  bind *:9999\n  mode http\n  stats enable\n";
    becomes(
        &one(text),
        &[
            "name = \"smtp_in\"\npublish = \"25:mail.lan:25\"\nsend_proxy = \"v2\"\nconnect_timeout = \"5s\"\nidle_timeout = \"5m\"",
            "name = \"https_in\"\nlisten = [\"443\"]\nhealth = {}\nmatch = \"tls-sni\"\nmatch_timeout = \"5s\"\nconnect_timeout = \"5s\"\n[mapping.hosts]\n\
             \"build.example.org\" = \"raid.lan:443\"\n\"*.build.example.org\" = \"raid.lan:443\"\n\
             \"b.example.org\" = { targets = [\"web_b:8443\"], send_proxy = \"v1\" }",
        ],
        &["5: option forwardfor except 127.0.0.0/8", "28: listen stats", "28: mode http", "31: stats enable"],
    );
}

#[test]
fn nginx_with_two_maps_groups_and_tls_that_ends() {
    let text = "# stream\nstream {\n  map $ssl_preread_server_name $name {\n    a.example.org web_443;\n    #b.example.org web_8443;\n  }\n\
                \x20 upstream web_443 {\n    server web_a:443;\n  }\n  map $ssl_preread_server_name $name_proxy {\n    p.example.org web_8443;\n  }\n\
                \x20 upstream web_8443 {\n    server web_a:8443 max_conns=3;\n    #server unix:/tmp/x;\n  }\n\
                \x20 server {\n    listen          0.0.0.0:443;\n    proxy_pass      $name;\n    ssl_preread     on;\n  }\n\
                \x20 server {\n    listen 8443;\n    proxy_pass $name_proxy;\n    ssl_preread on;\n    proxy_protocol on;\n  }\n\
                \x20 server {\n    listen 53 udp;\n    proxy_pass 192.0.2.53:53;\n  }\n\
                \x20 server {\n    listen 3128 ssl;\n    proxy_pass squid:3128;\n    ssl_certificate /x.pem;\n  }\n}\n";
    becomes(
        &one(text),
        &[
            "listen = [\"0.0.0.0:443\"]\nmatch = \"tls-sni\"\n[mapping.hosts]\n\"a.example.org\" = \"web_a:443\"",
            "listen = [\"0.0.0.0:8443\"]\nmatch = \"tls-sni\"\nsend_proxy = \"v1\"\n[mapping.hosts]\n\"p.example.org\" = \"web_a:8443\"",
            "publish = \"0.0.0.0:53:192.0.2.53:53/udp\"",
        ],
        &[
            "14: server web_a:8443 max_conns=3",
            "32: server with listen 3128 ssl",
            "33: listen 3128 ssl",
            "35: ssl_certificate /x.pem",
        ],
    );
}
