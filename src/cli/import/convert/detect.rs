//! Which tool a file is for, by its name and by what is in it.

use super::model::File;

/// The tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rinetd,
    Haproxy,
    Nginx,
    Realm,
    Compose,
    Socat,
    Ssh,
    Iptables,
    Nft,
    Systemd,
    Frp,
    Rathole,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Rinetd,
        Self::Haproxy,
        Self::Nginx,
        Self::Realm,
        Self::Compose,
        Self::Socat,
        Self::Ssh,
        Self::Iptables,
        Self::Nft,
        Self::Systemd,
        Self::Frp,
        Self::Rathole,
    ];

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rinetd => "rinetd",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Realm => "realm",
            Self::Compose => "compose",
            Self::Socat => "socat",
            Self::Ssh => "ssh",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
            Self::Systemd => "systemd",
            Self::Frp => "frp",
            Self::Rathole => "rathole",
        }
    }

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The kind of a file, if it can be told.
    pub(crate) fn of(file: File<'_>) -> Option<Self> {
        Self::by_name(file.name).or_else(|| Self::by_content(file.text))
    }

    fn by_name(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let extension = name.rsplit('.').next().unwrap_or_default();
        let is_yaml = matches!(extension, "yml" | "yaml");
        match name {
            "rinetd.conf" => Some(Self::Rinetd),
            "haproxy.cfg" => Some(Self::Haproxy),
            "nginx.conf" => Some(Self::Nginx),
            "nftables.conf" => Some(Self::Nft),
            _ if is_yaml && (name.starts_with("docker-compose") || name.starts_with("compose")) => {
                Some(Self::Compose)
            }
            _ if matches!(extension, "service" | "socket") => Some(Self::Systemd),
            _ => None,
        }
    }

    fn by_content(text: &str) -> Option<Self> {
        let lines =
            || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
        let has = |wanted: &str| text.contains(wanted);
        let starts = |words: &[&str]| lines().any(|line| words.iter().any(|word| line.starts_with(word)));
        let is = |words: &[&str]| lines().any(|line| words.contains(&line));
        if text.trim_start().starts_with('{') {
            return match () {
                () if has("\"nftables\"") => Some(Self::Nft),
                () if has("\"endpoints\"") => Some(Self::Realm),
                () if has("\"proxies\"") => Some(Self::Frp),
                () if has("\"services\"") => Some(Self::Compose),
                () => None,
            };
        }
        let is_haproxy = || {
            let section = |line: &str| {
                let word = line.split_whitespace().next().unwrap_or_default();
                ["frontend", "backend", "listen", "defaults", "global"].contains(&word)
                    && !line.ends_with(['{', ';'])
                    && !line.contains('=')
            };
            lines().any(section) && starts(&["bind ", "server ", "bind\t", "server\t", "listen "])
        };
        // A script may write units.
        let is_script = text.starts_with("#!");
        match () {
            () if !is_script && is(&["[Unit]", "[Service]", "[Socket]"]) => Some(Self::Systemd),
            () if is(&["[[endpoints]]"]) || starts(&["endpoints ="]) => Some(Self::Realm),
            () if starts(&["[server.services", "[client.services"]) => Some(Self::Rathole),
            () if is(&["[[proxies]]", "[common]", "proxies:"]) || starts(&["serverAddr"]) => Some(Self::Frp),
            () if starts(&["bindPort", "vhostHTTP", "subDomainHost"]) => Some(Self::Frp),
            () if has("-j DNAT") || has("-j REDIRECT") => Some(Self::Iptables),
            () if is(&["*nat", "COMMIT"]) || starts(&["iptables ", "ip6tables ", "-A "]) => {
                Some(Self::Iptables)
            }
            () if starts(&["table ip", "table inet", "add rule", "nft add rule"]) => Some(Self::Nft),
            () if has("proxy_pass") && has("{") => Some(Self::Nginx),
            () if is_haproxy() => Some(Self::Haproxy),
            () if is(&["services:"]) => Some(Self::Compose),
            () if has("socat") && text.to_ascii_uppercase().contains("-LISTEN:") => Some(Self::Socat),
            () if starts(&["LocalForward", "localforward"]) || (has("ssh") && has("-L")) => Some(Self::Ssh),
            () if lines().any(is_rinetd) => Some(Self::Rinetd),
            () => None,
        }
    }
}

/// `ADDRESS PORT ADDRESS PORT`.
fn is_rinetd(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_port = |word: &str| {
        let port = word.split('/').next().unwrap_or_default();
        !port.is_empty() && port.chars().all(|c| c.is_ascii_digit())
    };
    let is_host = |word: &str| word.contains(['.', ':']) || word == "localhost";
    words.len() >= 4 && is_host(words[0]) && is_port(words[1]) && is_port(words[3])
}
