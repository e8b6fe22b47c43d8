//! Where an engine is: `/var/run/docker.sock`, `unix:///run/podman/podman.sock`,
//! `tcp://proxy:2375`.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where an engine listens. The text of it is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineAddress {
    written: String,
    pub(super) way: Way,
}

/// How an engine is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Why a text names no engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoAddress(&'static str);

impl EngineAddress {
    /// Where Docker's engine listens.
    pub(crate) const DOCKER: &str = "/var/run/docker.sock";
    /// The forms of it.
    pub(crate) const FORMS: &str = "write the path of the engine's socket, as in \"/var/run/docker.sock\" or \
                                    \"/run/podman/podman.sock\", or \"tcp://HOST:PORT\" for a proxy before it";
    /// The port of a proxy where none is written.
    const PORT: u16 = 2375;
}

impl FromStr for EngineAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let tcp = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"));
        let way = match tcp {
            Some(host) => Way::Tcp(host_and_port(host.trim_end_matches('/'))?),
            None => match text.strip_prefix("unix://").unwrap_or(text) {
                path if path.starts_with('/') => Way::Unix(path.into()),
                other if other.contains("://") => {
                    return Err(NoAddress("is reached neither by a unix socket nor by tcp://"));
                }
                _ => return Err(NoAddress("is not the path of a socket: it does not begin with a slash")),
            },
        };
        Ok(Self { written: text.to_owned(), way })
    }
}

/// `host:port`, with the usual port where there is none.
fn host_and_port(text: &str) -> Result<String, NoAddress> {
    let without_port = if text.starts_with('[') { text.ends_with(']') } else { !text.contains(':') };
    let whole = if without_port { format!("{text}:{}", EngineAddress::PORT) } else { text.to_owned() };
    let (host, port) = whole.rsplit_once(':').unwrap_or_default();
    let is_host =
        !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-[]:%".contains(&c));
    match port.parse::<u16>() {
        Ok(1..) if is_host => Ok(whole),
        _ => Err(NoAddress("does not name a host and a port")),
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(text: &str) -> Result<Way, NoAddress> {
        text.parse::<EngineAddress>().map(|address| address.way)
    }

    #[test]
    fn a_socket_is_named_by_its_path_or_as_a_url() {
        for text in ["/run/podman/podman.sock", "unix:///run/podman/podman.sock"] {
            assert_eq!(way(text), Ok(Way::Unix("/run/podman/podman.sock".into())), "{text}");
            assert_eq!(text.parse::<EngineAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_proxy_is_named_by_host_and_port() {
        for (text, expected) in [
            ("tcp://proxy:2375", "proxy:2375"),
            ("tcp://proxy", "proxy:2375"),
            ("tcp://10.0.0.2:99/", "10.0.0.2:99"),
            ("http://docker-proxy.lan:2375", "docker-proxy.lan:2375"),
            ("tcp://[::1]:2375", "[::1]:2375"),
            ("tcp://[::1]", "[::1]:2375"),
        ] {
            assert_eq!(way(text), Ok(Way::Tcp(expected.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_names_no_engine_is_refused() {
        for text in [
            "",
            "docker.sock",
            "ssh://host",
            "https://h:1",
            "tcp://",
            "tcp://h:0",
            "tcp://h:x",
            "tcp://a b:1",
        ] {
            assert!(way(text).is_err(), "{text}");
        }
    }
}
