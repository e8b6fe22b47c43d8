//! What people expose at home, with the ports, the protocols and the terms that suit it.
//!
//! A table and nothing else. A test loads the file of every preset.

/// A thing to expose.
#[derive(Debug)]
pub(super) struct Preset {
    /// Its name on the command line, and of its mapping.
    pub(super) word: &'static str,
    /// What it is.
    pub(super) title: &'static str,
    /// Its ports, one mapping each. None where the person names them.
    pub(super) ports: &'static [Ports],
    /// Only clients that are named may enter, unless the person wants others.
    pub(super) is_delicate: bool,
    /// What to know about it.
    pub(super) note: &'static str,
}

/// Ports that belong together.
#[derive(Debug)]
pub(super) struct Ports {
    /// What is behind the name of the preset, where it has several.
    pub(super) suffix: &'static str,
    /// A port or a range.
    pub(super) ports: &'static str,
    /// The port that is open to clients, where it is another one.
    pub(super) listen: Option<&'static str>,
    /// `tcp`, `udp` or `tcp+udp`.
    pub(super) protocol: &'static str,
    /// Further keys, each with the comment above it.
    pub(super) keys: &'static [(&'static str, &'static str)],
}

const fn tcp(ports: &'static str, keys: &'static [(&'static str, &'static str)]) -> Ports {
    Ports { suffix: "", ports, listen: None, protocol: "tcp", keys }
}

const fn udp(ports: &'static str, keys: &'static [(&'static str, &'static str)]) -> Ports {
    Ports { suffix: "", ports, listen: None, protocol: "udp", keys }
}

/// A game asks for few connections, and a player has one.
const GAME: &[(&str, &str)] = &[
    ("A house shares one address: this many players of it at once.", "max_sessions_per_client = 20"),
    ("A client that connects more often is no player.", "new_sessions_per_client = \"30/min\""),
];
/// The same over UDP, where a session is a client's port.
const GAME_UDP: &[(&str, &str)] = &[
    ("A house shares one address: this many players of it at once.", "max_sessions_per_client = 20"),
    ("A player who left counts until this time is over.", "idle_timeout = \"60s\""),
];
const PASSWORDS: &str = "A program that tries passwords connects all the time. A person does not.";
const SILENT: &str = "A client that may not enter gets no answer.";
const WEB: &[(&str, &str)] = &[(
    "A browser opens several connections; this many of one address at once.",
    "max_sessions_per_client = 100",
)];

/// All of them, the most usual first.
pub(super) const ALL: &[Preset] = &[
    Preset {
        word: "minecraft",
        title: "Minecraft server (Java edition)",
        ports: &[tcp("25565", GAME)],
        is_delicate: false,
        note: "Use the whitelist of the server, too: scanners find every open Minecraft port.",
    },
    Preset {
        word: "minecraft-bedrock",
        title: "Minecraft server (Bedrock: phones, consoles)",
        ports: &[udp("19132", GAME_UDP)],
        is_delicate: false,
        note: "Use the allowlist of the server, too.",
    },
    Preset {
        word: "valheim",
        title: "Valheim server",
        ports: &[udp("2456-2458", GAME_UDP)],
        is_delicate: false,
        note: "Set a password on the server.",
    },
    Preset {
        word: "factorio",
        title: "Factorio server",
        ports: &[udp("34197", GAME_UDP)],
        is_delicate: false,
        note: "Set a game password on the server.",
    },
    Preset {
        word: "terraria",
        title: "Terraria server",
        ports: &[tcp("7777", GAME)],
        is_delicate: false,
        note: "Set a password on the server.",
    },
    Preset {
        word: "web",
        title: "Web server (HTTP and HTTPS)",
        ports: &[Ports { suffix: "", ..tcp("443", WEB) }, Ports { suffix: "-plain", ..tcp("80", WEB) }],
        is_delicate: false,
        note: "The server keeps its certificates: portway passes TLS on as it is.",
    },
    Preset {
        word: "home-assistant",
        title: "Home Assistant",
        ports: &[tcp("8123", &[(PASSWORDS, "new_sessions_per_client = \"60/min\"")])],
        is_delicate: true,
        note: "It speaks HTTP without TLS, unless you set that up: on the way, others can read along.",
    },
    Preset {
        word: "jellyfin",
        title: "Jellyfin",
        ports: &[tcp("8096", WEB)],
        is_delicate: false,
        note: "It speaks HTTP without TLS, unless you set that up: on the way, others can read along.",
    },
    Preset {
        word: "plex",
        title: "Plex",
        ports: &[tcp("32400", WEB)],
        is_delicate: false,
        note: "Turn on secure connections in the settings of Plex.",
    },
    Preset {
        word: "wireguard",
        title: "WireGuard",
        ports: &[udp(
            "51820",
            &[("Longer than the two minutes after which WireGuard makes new keys.", "idle_timeout = \"3m\"")],
        )],
        is_delicate: false,
        note: "WireGuard answers no stranger: it needs no list.",
    },
    Preset {
        word: "ssh",
        title: "SSH",
        ports: &[Ports {
            listen: Some("2222"),
            ..tcp(
                "22",
                &[
                    (PASSWORDS, "new_sessions_per_client = \"10/min\""),
                    ("Sessions may be idle, but clients that vanished are noticed.", "keepalive = \"60s\""),
                    (SILENT, "refuse = \"drop\""),
                ],
            )
        }],
        is_delicate: true,
        note: "Port 2222 leaves port 22 to this machine: ssh -p 2222 HOST. Allow keys alone, no passwords.",
    },
    Preset {
        word: "rdp",
        title: "Windows Remote Desktop (RDP)",
        ports: &[
            tcp(
                "3389",
                &[
                    (PASSWORDS, "new_sessions_per_client = \"10/min\""),
                    (SILENT, "refuse = \"drop\""),
                    ("An abandoned desktop is closed.", "idle_timeout = \"1h\""),
                ],
            ),
            Ports {
                suffix: "-udp",
                ..udp(
                    "3389",
                    &[("UDP has no end of a connection: a visit counts this long.", "idle_timeout = \"2m\"")],
                )
            },
        ],
        is_delicate: true,
        note: "Attackers search for Remote Desktop. A VPN is safer than any list.",
    },
    Preset {
        word: "vnc",
        title: "VNC",
        ports: &[tcp(
            "5900",
            &[
                (PASSWORDS, "new_sessions_per_client = \"10/min\""),
                (SILENT, "refuse = \"drop\""),
                ("An abandoned desktop is closed.", "idle_timeout = \"1h\""),
            ],
        )],
        is_delicate: true,
        note: "VNC is hardly encrypted. A VPN is safer than any list.",
    },
    Preset {
        word: "camera",
        title: "Camera (RTSP)",
        ports: &[tcp(
            "554",
            &[
                (PASSWORDS, "new_sessions_per_client = \"20/min\""),
                (SILENT, "refuse = \"drop\""),
                ("A camera sends all the time: silence is a dead session.", "idle_timeout = \"2m\""),
            ],
        )],
        is_delicate: true,
        note: "Set your player to RTSP over TCP. Cameras have weak passwords: change the one it came with.",
    },
    Preset {
        word: "ftp",
        title: "FTP server (passive)",
        ports: &[
            tcp("21", &[(PASSWORDS, "new_sessions_per_client = \"20/min\"")]),
            Ports { suffix: "-data", ..tcp("50000-50049", &[]) },
        ],
        is_delicate: true,
        note: "Set the passive ports of the server to 50000-50049, and its external address. SFTP is better.",
    },
    Preset { word: "other", title: "Something else", ports: &[], is_delicate: false, note: "" },
];

/// The preset of a word.
pub(super) fn named(word: &str) -> Option<&'static Preset> {
    ALL.iter().find(|preset| preset.word == word)
}
