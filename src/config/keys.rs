//! Every key of the configuration file: the table from which the reader knows them, and from which
//! the schema for editors is made.
//!
//! Owns names, forms, defaults and a line about each. What a value means, and what goes together,
//! is known where it is read. A key that is read and not in here, or in here and not read, fails a
//! test.

use super::text::{
    bytes::HEX,
    shape::{
        Form,
        Form::{Any, Duration, Flag, Like, List, Names, Number, Off, Rate, Size, Some, Table, Text, Word},
        Key, Shape,
    },
};

/// A port, as TOML has numbers.
const MOST_PORT: u64 = 65_535;
/// A number that has no bound of its own.
const MANY: u64 = u32::MAX as u64;
const COUNT: Form = Any(&[Number(1, MANY), Word(&["unlimited"])]);
const AUTO_COUNT: Form = Any(&[Number(1, MANY), Word(&["auto"])]);
/// A string, or a table with `hex`.
const BYTES: Form = Any(&[Text, Table(&HEX)]);

/// A target with more than an address.
pub(crate) const TARGET: Shape = Shape {
    keys: &[
        Key::new("address", Text, "Host and port, as in \"10.0.0.7:443\"."),
        Key::new("weight", Number(1, 1000), "Its share of the sessions: 2 gets twice as many as 1.").or("1"),
        Key::new("backup", Flag, "It waits until no other target works.").or("false"),
    ],
    more: None,
    required: &["address"],
};
const TARGETS: Form = Some(&Any(&[Text, Table(&TARGET)]));

/// A name of `hosts` with terms of its own.
pub(crate) const HOST: Shape = Shape {
    keys: &[
        Key::new("targets", TARGETS, "Where clients that want this name lead."),
        Key::new("allow", Some(&Text), "The clients that may enter, for this name."),
        Key::new("deny", Some(&Text), "The clients that may not enter, for this name."),
        Key::new("send_proxy", Word(SEND_PROXY), "The PROXY header for the targets of this name."),
        Key::new("wake", WAKING, "What starts the targets of this name."),
    ],
    more: None,
    required: &["targets"],
};
const SEND_PROXY: &[&str] = &["off", "v1", "v2", "v2-each"];
const WAKING: Form = Any(&[Table(&WAKE), Off]);

/// `wake`.
pub(crate) const WAKE: Shape = Shape::of(&[
    Key::new("command", List(&Text), "The program that starts the target, with its arguments."),
    Key::new("stop_command", List(&Text), "The program that stops it."),
    Key::new("unit", Text, "The systemd unit to start and stop, as in \"minecraft.service\"."),
    Key::new("docker", Text, "The container to start and stop."),
    Key::new("mac", Text, "The machine to wake by a magic packet, as in \"aa:bb:cc:dd:ee:ff\"."),
    Key::new("wait", Duration, "How long a client waits for the target.").or("\"60s\""),
    Key::new("stop_after", Duration, "How long the target stays up without a session.").or("\"15m\""),
]);

/// `health`.
pub(crate) const HEALTH: Shape = Shape::of(&[
    Key::new("interval", Duration, "The time between two probes.").or("\"5s\""),
    Key::new("timeout", Duration, "How long a probe may take; shorter than the interval.").or("\"2s\""),
    Key::new("rise", Number(1, 1000), "So many good probes in a row, and the target is up.").or("2"),
    Key::new("fall", Number(1, 1000), "So many failed probes in a row, and it is down.").or("3"),
    Key::new("send", BYTES, "What a probe sends. Single quotes keep \\r\\n and \\x00 for portway."),
    Key::new("expect", BYTES, "How the answer begins."),
]);

/// `on_connect_failure`.
pub(crate) const ASLEEP: Shape = Shape::of(&[
    Key::new("motd", Text, "What players see in their list of servers.").or("\"The server is asleep\""),
    Key::new("players", Text, "The players that are on, and the most, as in \"0/20\".").or("\"0/20\""),
]);

/// `router` of a mapping with details.
pub(crate) const OPENING: Shape = Shape::of(&[
    Key::new("external_port", Number(1, MOST_PORT), "The port on the router; of a range, the first."),
    Key::new("ipv6", Flag, "Open the IPv6 firewall of the router, too.").or("false"),
    Key::new("while_down", Word(&["keep", "close"]), "The opening while every target is down.")
        .or("\"keep\""),
]);

/// A mapping.
pub(crate) const MAPPING: Shape = Shape { keys: OWN.keys, more: Option::Some(&SHARED), required: &[] };

/// The keys that make a mapping this one.
pub(crate) const OWN: Shape = Shape::of(&[
    Key::new("name", Text, "Its name in logs and commands: letters, digits, . _ and -."),
    Key::new(
        "publish",
        Some(&Text),
        "[LISTEN_IP:]LISTEN_PORT:[TARGET_HOST:]TARGET_PORT[/PROTOCOL], as in \"8080:10.0.0.5:80\".",
    ),
    Key::new(
        "listen",
        Some(&Text),
        "The long form: addresses and ports to listen on, as in \"0.0.0.0:3389\".",
    ),
    Key::new("targets", TARGETS, "The long form: where clients lead, as in \"10.0.0.7:3389\"."),
    Key::new(
        "hosts",
        Names(&Any(&[TARGETS, Table(&HOST)])),
        "Where each name leads; needs `match`. \"*.example.org\" stands for every name below it.",
    ),
]);

/// The keys of a mapping that also stand in `[defaults]`.
pub(crate) const SHARED: Shape = Shape::of(&[
    Key::new("protocol", Word(&["tcp", "udp", "tcp+udp", "udp+tcp"]), "\"tcp\", \"udp\" or \"tcp+udp\".")
        .or("\"tcp\""),
    Key::new("enabled", Flag, "false keeps the mapping in the file, and closed.").or("true"),
    Key::new("connect_timeout", Duration, "How long one target has to accept a connection.").or("\"5s\""),
    Key::new(
        "idle_timeout",
        Duration,
        "A session ends without a byte in either direction. TCP never, UDP 60s.",
    ),
    Key::new("half_close_timeout", Duration, "The time of one side after the other ended.").or("\"5m\""),
    Key::new("keepalive", Duration, "TCP keepalive on both sides; \"never\" turns it off.").or("\"60s\""),
    Key::new("source", Text, "The address of this machine that the target sees."),
    Key::new("bandwidth_per_session", Size, "Bytes a second of a session, in each direction.")
        .or("\"unlimited\""),
    Key::new("send_proxy", Word(SEND_PROXY), "Tell the target who the client is, by the PROXY protocol.")
        .or("\"off\""),
    Key::new("accept_proxy", Some(&Text), "The proxies whose PROXY header is required and believed."),
    Key::new("match_timeout", Duration, "How long a client may take to say the name.").or("\"3s\""),
    Key::new("transparent", Flag, "The target sees the client's own address. Needs CAP_NET_ADMIN.")
        .or("false"),
    Key::new("wake", WAKING, "Start the target when a client comes, stop it when none is left."),
    Key::new(
        "match",
        Word(&["none", "tls-sni", "http-host", "minecraft", "auto"]),
        "Where the client says which name it wants.",
    )
    .or("\"none\""),
    Key::new(
        "on_connect_failure",
        Any(&[Word(&["close"]), Table(&ASLEEP)]),
        "What Minecraft players are told while no target is up.",
    )
    .or("\"close\""),
    Key::new(
        "balance",
        Word(&["round-robin", "least-sessions", "client-hash", "first"]),
        "Which target takes the next session.",
    )
    .or("\"round-robin\""),
    Key::new("health", Any(&[Table(&HEALTH), Off]), "Probe the targets; {} opens a connection."),
    Key::new("on_down", Word(&["keep", "close"]), "The sessions of a target that went down.").or("\"keep\""),
    Key::new("slow_start", Duration, "A target that came back gets a growing share for this long.")
        .or("\"never\""),
    Key::new("max_sessions", COUNT, "Sessions at once, in all.").or("10000"),
    Key::new("max_sessions_per_client", COUNT, "Sessions of one client at once.").or("256"),
    Key::new("allow", Some(&Text), "The clients that may enter: networks, addresses, \"@list\"."),
    Key::new("deny", Some(&Text), "The clients that may not enter; the most specific entry wins."),
    Key::new("allow_countries", Some(&Text), "The countries that may enter; needs [geoip]."),
    Key::new("deny_countries", Some(&Text), "The countries that may not enter; needs [geoip]."),
    Key::new("new_sessions", Rate, "New sessions, in all.").or("\"unlimited\""),
    Key::new("new_sessions_per_client", Rate, "New sessions of one client.").or("\"unlimited\""),
    Key::new("burst", Number(1, MANY), "New sessions that may come at once; needs `new_sessions`."),
    Key::new("burst_per_client", Number(1, MANY), "The same for one client; needs a rate for a client."),
    Key::new("datagrams_per_client", Rate, "Datagrams of one client; portway drops the rest.")
        .or("\"unlimited\""),
    Key::new("refuse", Word(&["close", "reset", "drop"]), "How a refused TCP client is told.")
        .or("\"close\""),
    Key::new("knock", Flag, "Only clients that knocked may enter; needs [knock].").or("false"),
    Key::new("log", Word(&["all", "errors", "none"]), "The sessions that get a line in the log.")
        .or("\"all\""),
    Key::new("router", Any(&[Flag, Table(&OPENING)]), "Open the port on the home router.").or("false"),
]);

/// A list that is a file.
pub(crate) const LIST: Shape = Shape {
    keys: &[Key::new("file", Text, "The file: one entry a line, # comments. It is followed.")],
    more: None,
    required: &["file"],
};

/// `[guard]`.
pub(crate) const GUARD: Shape = Shape::of(&[
    Key::new("refusals", Rate, "A client that is refused more often than this is banned.").or("\"10/min\""),
    Key::new("ban", Duration, "How long; each repeat doubles it, up to 30 days.").or("\"1h\""),
    Key::new("trap", Some(&Text), "Decoy TCP ports: a client that connects is banned."),
    Key::new("exempt", Some(&Text), "The clients that are never banned."),
    Key::new("state", Text, "The file where bans are kept."),
]);

/// A key of `[knock]`.
pub(crate) const KNOCK_KEY: Shape = Shape {
    keys: &[
        Key::new("name", Text, "Whose it is."),
        Key::new("key_file", Text, "The file NAME.pub that `portway key new` wrote."),
    ],
    more: None,
    required: &["name", "key_file"],
};

/// `[knock]`.
pub(crate) const KNOCK: Shape = Shape::of(&[
    Key::new("listen", Text, "The UDP port for knocks, which never answers, as in \"62201\"."),
    Key::new("keys", List(&Table(&KNOCK_KEY)), "The keys that open."),
    Key::new("server_key", Text, "The server's own key; server.key beside the first key unless set."),
    Key::new("open_for", Duration, "How long a client may enter after its knock, up to 30 days.")
        .or("\"8h\""),
    Key::new(
        "sequence",
        Some(&Text),
        "Ports that open when they are touched in this order; keeps out scans.",
    ),
    Key::new("state", Text, "The file where grants are kept."),
]);

/// `[geoip]`.
pub(crate) const GEOIP: Shape = Shape {
    keys: &[Key::new("database", Text, "A database of countries in MaxMind's format.")],
    more: None,
    required: &["database"],
};

/// `[limits]`.
pub(crate) const LIMITS: Shape = Shape::of(&[
    Key::new("sessions", AUTO_COUNT, "TCP sessions at once, over all mappings.").or("\"auto\""),
    Key::new("flows", AUTO_COUNT, "UDP clients at once, over all mappings.").or("\"auto\""),
]);

/// `[daemon]`.
pub(crate) const DAEMON: Shape = Shape::of(&[
    Key::new("user", Text, "Started as root: go on as this user, USER or USER:GROUP."),
    Key::new(
        "sandbox",
        Word(&["auto", "on", "off"]),
        "Close system calls (auto), and files as well (on), that portway does not need.",
    )
    .or("\"auto\""),
]);

/// `[router]`.
pub(crate) const ROUTER: Shape = Shape::of(&[
    Key::new("protocols", Some(&Word(&["upnp", "pcp", "natpmp"])), "How the router is asked, in this order."),
    Key::new("gateway", Text, "The router's address.").or("\"auto\""),
    Key::new("interface", Text, "The interface that leads to it.").or("\"auto\""),
    Key::new("lease", Duration, "How long the router is asked to keep a port open.").or("\"1h\""),
    Key::new("on_conflict", Word(&["fail", "any-port"]), "When another machine has the port.").or("\"fail\""),
    Key::new("check_every", Duration, "How often the router is asked whether all is as it should be.")
        .or("\"60s\""),
]);

/// A token of `[api]`.
pub(crate) const TOKEN: Shape = Shape {
    keys: &[
        Key::new("role", Word(&["admin", "read"]), "What it may do: \"read\" looks, \"admin\" also changes."),
        Key::new("file", Text, "The file that has the token."),
    ],
    more: None,
    required: &["role", "file"],
};

/// `[api]`.
pub(crate) const API: Shape = Shape::of(&[
    Key::new("socket", Text, "The unix socket for commands; \"off\" is none."),
    Key::new("listen", Text, "The address for browsers, as in \"127.0.0.1:7678\"; off unless set."),
    Key::new("tokens", List(&Table(&TOKEN)), "Who may do what over TCP."),
    Key::new("hosts", Some(&Text), "Further names of this machine, as browsers use them."),
    Key::new("managed", Text, "The file of the mappings that are made through the API."),
]);

/// `[metrics]`.
pub(crate) const METRICS: Shape = Shape::of(&[Key::new(
    "listen",
    Text,
    "Where Prometheus reads, as in \"127.0.0.1:9678\"; off unless set.",
)]);

/// `[probe]`.
pub(crate) const PROBE: Shape = Shape {
    keys: &[
        Key::new("token_file", Text, "The file with the token for which a port is tried from outside."),
        Key::new(
            "from",
            Text,
            "The portway that tries the ports of this one, as in \"https://other.example\".",
        ),
        Key::new("proxies", Some(&Text), "The reverse proxies before the API; their X-Forwarded-For counts."),
    ],
    more: None,
    required: &["token_file"],
};

/// `[docker]`.
pub(crate) const DOCKER: Shape = Shape::of(&[
    Key::new("socket", Text, "The socket of Docker or podman.").or("\"/var/run/docker.sock\""),
    Key::new("label_prefix", Text, "What labels begin with.").or("\"portway\""),
    Key::new("network", Text, "The network by which a container is reached.").or("\"auto\""),
    Key::new("allow_router", Flag, "Labels may open ports on the router.").or("false"),
]);

/// `[log]`.
pub(crate) const LOG: Shape = Shape::of(&[
    Key::new(
        "level",
        Word(&["off", "error", "warn", "info", "debug", "trace"]),
        "The least important line that is written.",
    )
    .or("\"info\""),
    Key::new("format", Word(&["text", "json"]), "The form of a line.").or("\"text\""),
    Key::new(
        "target",
        Any(&[Word(&["stderr", "journald", "syslog"]), Like("syslog:"), Like("file:")]),
        "Where lines go: stderr, journald, syslog, syslog:udp://HOST:PORT or file:/PATH.",
    )
    .or("\"stderr\""),
]);

/// `[shutdown]`.
pub(crate) const SHUTDOWN: Shape =
    Shape::of(&[Key::new("grace", Duration, "How long sessions may go on after a stop.").or("\"30s\"")]);

/// The top of the main file; `mapping` and `defaults` are put together from [`OWN`] and [`SHARED`].
pub(crate) const TOP: Shape = Shape::of(&[
    Key::new("publish", Some(&Text), "Mappings in the short form, as in [\"8080:10.0.0.5:80\"]."),
    Key::new("include", Some(&Text), "More files, relative to this one, as in [\"conf.d/*.toml\"]."),
    Key::new(
        "mapping",
        List(&Table(&MAPPING)),
        "A mapping: where to listen, where clients lead, on what terms.",
    ),
    Key::new("lists", Names(&Any(&[Some(&Text), Table(&LIST)])), "Lists of addresses, for \"@name\"."),
    Key::new("defaults", Table(&SHARED), "Keys that hold for every mapping that does not say otherwise."),
    Key::new("guard", Table(&GUARD), "Automatic bans."),
    Key::new("knock", Table(&KNOCK), "Knocks, which let clients in."),
    Key::new("geoip", Table(&GEOIP), "The countries of clients."),
    Key::new("api", Table(&API), "The API and the dashboard."),
    Key::new("metrics", Table(&METRICS), "Metrics alone, for Prometheus."),
    Key::new("probe", Table(&PROBE), "Proof from outside, for others and by another."),
    Key::new("limits", Table(&LIMITS), "Limits over all mappings."),
    Key::new("daemon", Table(&DAEMON), "The process itself."),
    Key::new("router", Table(&ROUTER), "How the home router is asked."),
    Key::new("docker", Table(&DOCKER), "Mappings from the labels of containers."),
    Key::new("log", Table(&LOG), "The log."),
    Key::new("shutdown", Table(&SHUTDOWN), "What a stop does."),
]);

/// The tables with their keys. A key that stands in several tables belongs to the first.
pub(crate) const HOMES: [(&str, &Shape); 13] = [
    ("[[mapping]]", &MAPPING),
    ("[log]", &LOG),
    ("[shutdown]", &SHUTDOWN),
    ("[geoip]", &GEOIP),
    ("[limits]", &LIMITS),
    ("[daemon]", &DAEMON),
    ("[router]", &ROUTER),
    ("[guard]", &GUARD),
    ("[knock]", &KNOCK),
    ("[api]", &API),
    ("[metrics]", &METRICS),
    ("[probe]", &PROBE),
    ("[docker]", &DOCKER),
];
