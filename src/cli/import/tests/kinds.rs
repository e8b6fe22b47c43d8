//! A small file of each kind, with what becomes of it.

use super::{Kind, becomes, imported, one};

#[test]
fn rinetd() {
    let text = "# comment\nallow 192.168.2.*\n0.0.0.0 8080 10.0.0.3 80\ndeny 192.168.2.9\n\
                1.2.3.4 53/udp dns.lan 53/udp [timeout=72,src=10.0.0.2]\nlogfile /var/log/x\nwhat is this\n\
                :: 8443/tcp 2001:db8::5 443/tcp";
    becomes(
        &one(text),
        &[
            "publish = \"0.0.0.0:8080:10.0.0.3:80\"\ndeny = [\"192.168.2.9\"]\nallow = [\"192.168.2.0/24\"]",
            "publish = \"1.2.3.4:53:dns.lan:53/udp\"\nidle_timeout = \"72s\"\nsource = \"10.0.0.2\"\n\
             allow = [\"192.168.2.0/24\"]",
            "publish = \"8443:[2001:db8::5]:443\"\nallow = [\"192.168.2.0/24\"]",
        ],
        &["6: logfile /var/log/x", "7: what is this"],
    );
}

const HAPROXY: &str = "\
global
    maxconn 4096
defaults
    mode tcp
    option tcplog
    timeout connect 5000
    timeout client 50s
    timeout server 1m
frontend tls-in
    bind 192.0.2.7:443 accept-proxy
    bind :::8443 v4v6
    maxconn 500
    acl staging req.ssl_sni -i staging.example.org
    acl office src 203.0.113.0/24 198.51.100.7
    tcp-request inspect-delay 5s
    tcp-request content accept if { req_ssl_hello_type 1 }
    tcp-request connection reject if !office
    use_backend staging if staging
    use_backend wild if { req_ssl_sni -m end .apps.example.org }
    use_backend old if { path_beg /old }
    default_backend main
backend staging
    server s 10.0.0.9:443 send-proxy-v2
backend wild
    server w 10.0.0.10:443
backend old
    server o 10.0.0.11:443
backend main
    balance leastconn
    server a 10.0.0.1:443 check inter 2s fall 2 weight 3
    server b 10.0.0.2:443 check backup
listen mysql
    bind :3306
    stick-table type ip size 1m
    server db db.lan ssl verify none
frontend web
    bind :444 ssl crt /x.pem
    default_backend main
peers mine
";

#[test]
fn haproxy() {
    becomes(
        &one(HAPROXY),
        &[
            "name = \"tls-in\"\nlisten = [\"192.0.2.7:443\", \"8443\"]\n\
             targets = [{ address = \"10.0.0.1:443\", weight = 3 }, { address = \"10.0.0.2:443\", backup = true }]\n\
             accept_proxy = [\"0.0.0.0/0\", \"::/0\"]\nmatch = \"tls-sni\"\nhealth = {}\n\
             balance = \"least-sessions\"\nmatch_timeout = \"5s\"\n\
             allow = [\"203.0.113.0/24\", \"198.51.100.7\"]\nconnect_timeout = \"5s\"\nidle_timeout = \"1m\"\n\
             max_sessions = 500\n[mapping.hosts]\n\"staging.example.org\" = { targets = [\"10.0.0.9:443\"], send_proxy = \"v2\" }\n\
             \"*.apps.example.org\" = \"10.0.0.10:443\"",
            "name = \"mysql\"\npublish = \"3306:db.lan:3306\"\nconnect_timeout = \"5s\"\nidle_timeout = \"1m\"",
        ],
        &[
            "20: use_backend old if { path_beg /old }",
            "34: stick-table type ip size 1m",
            "35: server db ssl",
            "36: frontend web",
            "37: bind :444 ssl crt /x.pem",
            "39: peers mine",
        ],
    );
}

#[test]
fn haproxy_with_http_leads_by_the_host_header() {
    let text = "defaults\n mode http\n option httplog\n timeout client 60s\nfrontend web\n bind *:80\n \
                use_backend a if { hdr(host) -i a.example.org }\n default_backend b\nbackend a\n \
                server a 10.0.0.1:80 check\nbackend b\n server b 10.0.0.2:80\n";
    becomes(
        &one(text),
        &[
            "name = \"web\"\nlisten = [\"80\"]\ntargets = [\"10.0.0.2:80\"]\nmatch = \"http-host\"\nhealth = {}\n\
           idle_timeout = \"1m\"\n[mapping.hosts]\n\"a.example.org\" = \"10.0.0.1:80\"",
        ],
        &["5: mode http"],
    );
}

#[test]
fn nginx() {
    let text = "\
events { worker_connections 1024; }
http { server { listen 80; } }
stream {
    log_format basic '$remote_addr {$status};';
    proxy_timeout 10m;
    map $ssl_preread_server_name $name {
        hostnames;
        .example.org web;
        ~^x\\.y$ web;
        default 10.0.0.30:443;
    }
    upstream web { least_conn; server 10.0.0.1:443 weight=2 max_fails=2; server 10.0.0.2:443 backup; }
    upstream dns { hash $remote_addr consistent; server 10.0.0.3:53; server 10.0.0.4:53 down; server 10.0.0.5:53; }
    server {
        listen 443; listen [::]:443;
        ssl_preread on;
        proxy_pass $name;
        proxy_connect_timeout 1s;
    }
    server {
        listen 192.0.2.1:53 udp reuseport;
        proxy_pass dns; proxy_timeout 20s; proxy_responses 1;
        allow 192.168.0.0/16; deny 192.168.3.3; deny all;
    }
    server { listen 12345 ssl; proxy_pass 127.0.0.1:1; }
    server { listen 3307 proxy_protocol; set_real_ip_from 10.1.0.0/16; proxy_protocol on; proxy_pass db.lan:3306;
             deny 203.0.113.9; js_filter x; }
}
";
    becomes(
        &one(text),
        &[
            "listen = [\"443\"]\ntargets = [\"10.0.0.30:443\"]\nmatch = \"tls-sni\"\nconnect_timeout = \"1s\"\n\
             idle_timeout = \"10m\"\n[mapping.hosts]\n\
             \"example.org\" = [{ address = \"10.0.0.1:443\", weight = 2 }, { address = \"10.0.0.2:443\", backup = true }]\n\
             \"*.example.org\" = [{ address = \"10.0.0.1:443\", weight = 2 }, { address = \"10.0.0.2:443\", backup = true }]",
            "listen = [\"192.0.2.1:53\"]\ntargets = [\"10.0.0.3:53\", \"10.0.0.5:53\"]\nprotocol = \"udp\"\n\
             allow = [\"192.168.0.0/16\"]\nbalance = \"client-hash\"\nidle_timeout = \"20s\"",
            "publish = \"0.0.0.0:3307:db.lan:3306\"\naccept_proxy = [\"10.1.0.0/16\"]\ndeny = [\"203.0.113.9/32\"]\n\
             send_proxy = \"v1\"\nidle_timeout = \"10m\"",
        ],
        &[
            "2: http {}",
            "9: ~^x\\.y$ web",
            "13: server 10.0.0.4:53 down",
            "23: deny 192.168.3.3",
            "25: server with listen 12345 ssl",
            "25: listen 12345 ssl",
            "27: js_filter x",
        ],
    );
}

#[test]
fn realm_in_toml_and_in_json() {
    let toml = "[log]\nlevel = 'warn'\n[network]\nuse_udp = true\ntcp_keepalive = 20\n[[endpoints]]\n\
                listen = '[::]:5000'\nremote = 'a.lan:80'\nextra_remotes = ['b.lan:80']\nbalance = 'iphash: 4, 1'\n\
                through = '0.0.0.0'\n[[endpoints]]\nlisten = '0.0.0.0:5001'\nremote = '[2001:db8::1]:443'\n\
                remote_transport = 'tls;sni=x'\n[endpoints.network]\nno_tcp = true\nudp_timeout = 30\n";
    becomes(
        &one(toml),
        &[
            "listen = [\"5000\"]\ntargets = [{ address = \"a.lan:80\", weight = 4 }, \"b.lan:80\"]\n\
             protocol = \"tcp+udp\"\nbalance = \"client-hash\"\nkeepalive = \"20s\"",
            "publish = \"0.0.0.0:5001:[2001:db8::1]:443/udp\"\nidle_timeout = \"30s\"",
        ],
        &["1: log", "15: remote_transport"],
    );
    let json = r#"{"endpoints": [{"listen": "127.0.0.1:7000", "remote": "c.lan:70"}]}"#;
    becomes(&one(json), &["publish = \"127.0.0.1:7000:c.lan:70\""], &[]);
}

#[test]
fn compose_in_both_forms() {
    let text = "\
x-common: &common
  ports: ['9000:9001/udp']
services:
  web:
    ports:
      - 8080:80
      - '127.0.0.1:${PORT:-5432}:5432'
      - '3000'
      - ${SECRET}:1
      - target: 443
        published: 8443
        host_ip: 192.0.2.1
  game:
    <<: *common
  dns: { network_mode: host }
";
    becomes(
        &imported(&[("compose.yaml", text)], None),
        &[
            "name = \"game\"\npublish = \"9000:game:9001/udp\"",
            "name = \"web\"\npublish = \"8080:web:80\"",
            "name = \"web-2\"\npublish = \"127.0.0.1:5432:web:5432\"",
            "name = \"web-3\"\npublish = \"192.0.2.1:8443:web:443\"",
        ],
        &["8: web: 3000", "9: web: ${SECRET}:1", "15: dns"],
    );
}

#[test]
fn socat() {
    let text = "#!/bin/sh\nnohup socat -d -T 60 TCP-LISTEN:8080,fork,reuseaddr,range=192.168.1.0/24 TCP:10.0.0.5:80 &\n\
                socat UDP4-LISTEN:53,bind=192.0.2.1,fork \\\n  UDP4:10.0.0.1:53\n\
                socat TCP-LISTEN:81,fork SYSTEM:\"cat\"\nsocat OPENSSL-LISTEN:443,cert=x TCP:10.0.0.1:80\n";
    becomes(
        &one(text),
        &[
            "publish = \"8080:10.0.0.5:80\"\nallow = [\"192.168.1.0/24\"]\nidle_timeout = \"1m\"",
            "publish = \"192.0.2.1:53:10.0.0.1:53/udp\"",
        ],
        &[
            "5: socat TCP-LISTEN:81,fork SYSTEM:cat",
            "5: SYSTEM",
            "6: socat OPENSSL-LISTEN:443,cert=x TCP:10.0.0.1:80",
            "6: OPENSSL-LISTEN",
        ],
    );
}

#[test]
fn ssh() {
    let text = "ssh -fN -i key -L 8080:web.lan:80 -L '*:3306:localhost:3306' -D 1080 me@gate.example.org\n\
                autossh -M 0 -NL [::1]:99:[2001:db8::1]:98 gate\n";
    becomes(
        &one(text),
        &[
            "publish = \"127.0.0.1:8080:web.lan:80\"",
            "publish = \"3306:gate.example.org:3306\"",
            "publish = \"[::1]:99:[2001:db8::1]:98\"",
        ],
        &["1: -D 1080", "1: the encryption", "2: the encryption"],
    );
    let config = "Host gate\n  HostName 10.0.0.1\n  LocalForward 127.0.0.1:5901 localhost:5900\n";
    becomes(&one(config), &["publish = \"127.0.0.1:5901:10.0.0.1:5900\""], &["3: the encryption"]);
}

#[test]
fn iptables() {
    let text = "*nat\n:PREROUTING ACCEPT [0:0]\n\
                -A PREROUTING -i eth0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.5:80\n\
                -A PREROUTING -d 192.0.2.1/32 -p udp -m multiport --dports 53,5000:5010 -j DNAT --to-destination 10.0.0.6\n\
                -A PREROUTING -s 203.0.113.0/24 ! -s 203.0.113.9 -p tcp -m tcp --dport 2222 -m comment --comment \"the ssh\" -j REDIRECT --to-ports 22\n\
                -A PREROUTING -d 192.0.2.2/32 -j DNAT --to-destination 10.0.0.7\n\
                -A DOCKER ! -i br0 -p tcp -m tcp --dport 81 -m string --string x -j DNAT --to-destination 172.17.0.2:81\n\
                -A POSTROUTING -j MASQUERADE\nCOMMIT\n";
    becomes(
        &one(text),
        &[
            "publish = \"8080:10.0.0.5:80\"",
            "publish = \"192.0.2.1:53:10.0.0.6:53/udp\"",
            "publish = \"192.0.2.1:5000-5010:10.0.0.6:5000-5010/udp\"",
            "name = \"the-ssh\"\npublish = \"2222:127.0.0.1:22\"\nallow = [\"203.0.113.0/24\"]\ndeny = [\"203.0.113.9\"]",
            "publish = \"81:172.17.0.2:81\"",
        ],
        &["3: -i eth0", "6: -A PREROUTING -d 192.0.2.2/32 -j DNAT --to-destination 10.0.0.7", "7: --string"],
    );
    let lines = "# iptables -t nat -A PREROUTING -p tcp --dport 1 -j DNAT --to 10.0.0.1:1\n\
                 sudo iptables -t nat -I PREROUTING -p tcp --dport 9443 -j DNAT --to 10.0.0.2:443\n\
                 iptables -t nat -D PREROUTING -p tcp --dport 9444 -j DNAT --to 10.0.0.2:443\n";
    let outcome = imported(&[("rules.sh", lines)], Some(Kind::Iptables));
    becomes(&outcome, &["publish = \"9443:10.0.0.2:443\""], &[]);
}

#[test]
fn nft_as_text_and_as_json() {
    let text = "table ip nat {\n\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\
                \t\tiifname \"eth0\" tcp dport { 80, 443 } counter packets 1 bytes 60 dnat to 10.0.0.5\n\
                \t\tip daddr 192.0.2.1 ip saddr 203.0.113.0/24 udp dport 5000-5010 dnat to 10.0.0.6:6000-6010\n\
                \t\tdnat ip to tcp dport map { 8080 : 10.0.0.7 . 80,\n\t\t\t8443 : 10.0.0.8 . 443 }\n\
                \t\ttcp dport 2222 redirect to :22 comment \"ssh\"\n\
                \t\tdnat ip to ip saddr . tcp dport map { 192.168.1.2 . 80 : 10.0.0.2 . 88 }\n\
                \t\tip saddr 198.51.100.1 dnat to 10.0.0.9\n\t}\n}\n";
    let mappings = [
        "publish = \"80:10.0.0.5:80\"",
        "publish = \"443:10.0.0.5:443\"",
        "publish = \"192.0.2.1:5000-5010:10.0.0.6:6000-6010/udp\"\nallow = [\"203.0.113.0/24\"]",
        "publish = \"8080:10.0.0.7:80\"",
        "publish = \"8443:10.0.0.8:443\"",
        "name = \"ssh\"\npublish = \"2222:127.0.0.1:22\"",
    ];
    becomes(
        &one(text),
        &mappings,
        &[
            "4: iifname eth0",
            "9: dnat ip to ip saddr . tcp dport map { 192.168.1.2 . 80 : 10.0.0.2 . 88 }",
            "10: ip saddr 198.51.100.1 dnat to 10.0.0.9",
        ],
    );
    let json = r#"{"nftables": [{"metainfo": {}}, {"chain": {"name": "prerouting"}},
        {"rule": {"chain": "prerouting", "handle": 5, "comment": "cam", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [554, {"range": [600, 610]}]}}},
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"prefix": {"addr": "203.0.113.0", "len": 24}}}},
            {"match": {"op": "==", "left": {"ct": {"key": "mark"}}, "right": 5}},
            {"counter": {"packets": 0, "bytes": 0}},
            {"dnat": {"addr": "10.0.0.9"}}]}},
        {"rule": {"chain": "postrouting", "handle": 6, "expr": [{"masquerade": null}]}}]}"#;
    becomes(
        &one(json),
        &[
            "name = \"cam\"\npublish = \"554:10.0.0.9:554\"\nallow = [\"203.0.113.0/24\"]",
            "name = \"cam-2\"\npublish = \"600-610:10.0.0.9:600-610\"\nallow = [\"203.0.113.0/24\"]",
        ],
        &["2: ct mark"],
    );
    let added = "nft add rule ip nat prerouting tcp dport 81 dnat to 10.0.0.1:80\n";
    becomes(&one(added), &["publish = \"81:10.0.0.1:80\""], &[]);
}

#[test]
fn systemd_units() {
    let socket =
        "[Unit]\nDescription=x\n[Socket]\nListenStream=0.0.0.0:50061\nListenStream=/run/x\nNoDelay=true\n";
    let service = "[Service]\nExecStart=/usr/lib/systemd/systemd-socket-proxyd --exit-idle-time=5min \\\n \
                   -c 20 10.0.0.5:50062\nPrivateTmp=yes\n";
    let relay = "[Service]\nExecStart=/usr/bin/socat TCP-LISTEN:16220,fork,reuseaddr TCP:10.0.0.1:16210\n";
    let files = [("d/code.socket", socket), ("d/code.service", service), ("relay.service", relay)];
    becomes(
        &imported(&files, None),
        &[
            "name = \"code\"\npublish = \"0.0.0.0:50061:10.0.0.5:50062\"\nmax_sessions = 20",
            "name = \"relay\"\npublish = \"16220:10.0.0.1:16210\"",
        ],
        &["5: /run/x", "2: --exit-idle-time"],
    );
    becomes(&imported(&[("code.socket", socket)], None), &[], &["1: [Socket]"]);
    becomes(
        &imported(&[("code.service", service)], None),
        &[],
        &["2: systemd-socket-proxyd --exit-idle-time=5min -c 20 10.0.0.5:50062"],
    );
}

#[test]
fn frp_in_all_its_forms() {
    let expected = ["name = \"ssh\"\npublish = \"6000:10.0.0.5:22\""];
    let toml = "serverAddr = 'x.example.org'\n[[proxies]]\nname = 'ssh'\ntype = 'tcp'\nlocalIP = '10.0.0.5'\n\
                localPort = 22\nremotePort = 6000\n";
    becomes(&one(toml), &expected, &["1: the tunnel"]);
    let ini = "[common]\nserver_addr = x\n[ssh]\ntype = tcp\nlocal_ip = 10.0.0.5\nlocal_port = 22\nremote_port = 6000\n\
               [p2p]\ntype = xtcp\nlocal_port = 1\n";
    becomes(&one(ini), &expected, &["1: the tunnel", "8: proxy p2p (xtcp)"]);
    let yaml = "proxies:\n- name: web\n  type: https\n  localIP: 10.0.0.5\n  localPort: 8443\n  \
                customDomains: [a.example.org, b.example.org]\n  transport.useCompression: true\n";
    becomes(
        &one(yaml),
        &["name = \"web\"\nlisten = [\"443\"]\nmatch = \"tls-sni\"\n[mapping.hosts]\n\
           \"a.example.org\" = \"10.0.0.5:8443\"\n\"b.example.org\" = \"10.0.0.5:8443\""],
        &["1: the tunnel"],
    );
}

#[test]
fn rathole_with_both_files() {
    let server = "[server]\nbind_addr = '0.0.0.0:2333'\n[server.services.ssh]\ntoken = 'x'\nbind_addr = '0.0.0.0:5202'\n\
                  [server.services.only]\nbind_addr = '0.0.0.0:1'\n";
    let client =
        "[client]\nremote_addr = 'x:2333'\n[client.services.ssh]\ntoken = 'x'\nlocal_addr = '10.0.0.5:22'\n";
    becomes(
        &imported(&[("s.toml", server), ("c.toml", client)], None),
        &["name = \"ssh\"\npublish = \"0.0.0.0:5202:10.0.0.5:22\""],
        &["1: the tunnel", "6: service only"],
    );
}
