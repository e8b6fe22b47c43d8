//! `[probe]`: the token for which this node tries ports from outside, and the node that it asks.
//!
//! Owns the form of the other node's address. Asks and tries nothing.

use std::{fmt, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use url::{Host, Url};

use crate::config::{
    lower::{proxy, secret::Secret},
    text::{Code, Keys, Reader, Span, Text},
};

/// What is right, for messages.
pub(crate) const FORMS: &str =
    "as in \"https://other.example\", \"http://203.0.113.9:7678\" or \"unix:/run/other.sock\"";

/// The terms of proof from outside (`[probe]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// What others show, and what is shown to the other node.
    pub token: Secret,
    /// The node that tries the ports of this one.
    pub from: Option<NodeUrl>,
    /// The reverse proxies before the API, which say who their clients are.
    pub proxies: Arc<[IpNet]>,
}

/// Where another portway answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeUrl {
    /// Over TCP, in clear.
    Http(WebUrl),
    /// Over TLS.
    Https(WebUrl),
    /// At a socket of this machine.
    Unix(PathBuf),
}

/// The parts of a web address that count here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl {
    /// The host as `Host:` has it: IPv6 in brackets, and a port other than the usual one.
    pub authority: String,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What stands before the paths of the API, without a slash at its end.
    pub base: String,
}

impl NodeUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it; [`FORMS`] are right.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err("the path of the socket does not begin with /")
            };
        }
        let url = Url::parse(text).map_err(|_| "it is not the address of a portway")?;
        let has_more = url.query().is_some() || url.fragment().is_some();
        if !url.username().is_empty() || url.password().is_some() || has_more {
            return Err("it has more than a host, a port and a path");
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err("it has no host");
        };
        let host = match host {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        let authority = url.authority().to_owned();
        let base = url.path().trim_end_matches('/').to_owned();
        let web = WebUrl { authority, host, port, base };
        match url.scheme() {
            "http" => Ok(Self::Http(web)),
            "https" => Ok(Self::Https(web)),
            _ => Err("it is neither http, https nor unix"),
        }
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, web) = match self {
            Self::Http(web) => ("http", web),
            Self::Https(web) => ("https", web),
            Self::Unix(path) => return write!(f, "unix:{}", path.display()),
        };
        write!(f, "{scheme}://{}{}", web.authority, web.base)
    }
}

/// `[probe]` as it is written.
#[derive(Clone)]
pub(crate) struct ProbeText {
    pub(crate) span: Span,
    pub(crate) token_file: Option<Text>,
    from: Option<NodeUrl>,
    proxies: Arc<[IpNet]>,
    /// Where `proxies` stands, if it is there.
    pub(crate) proxies_at: Option<Span>,
}

impl ProbeText {
    /// Reads `[probe]`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>, span: Span) -> Self {
        let token_file = keys.get("token_file");
        if token_file.is_none() && !keys.has_slip_of(reader, &["token_file"]) {
            reader
                .diagnostics
                .problem(Code::MissingKey, span, "[probe] without `token_file`")
                .hint("make one by `openssl rand -hex 32 > FILE`, and name it: token_file = \"FILE\"");
        }
        let proxies = keys.entry(reader, "proxies");
        Self {
            span,
            token_file: token_file.and_then(|v| reader.path("token_file", v)),
            from: keys.get("from").and_then(|v| reader.text("from", v)).and_then(|text| from(reader, &text)),
            proxies: proxies.and_then(|(_, v)| proxy::accept(reader, "proxies", v)).unwrap_or_default(),
            proxies_at: proxies.map(|(at, _)| at),
        }
    }

    /// The terms, with the token of the file.
    pub(crate) fn settings(self, token: Secret) -> ProbeSettings {
        ProbeSettings { token, from: self.from, proxies: self.proxies }
    }
}

fn from(reader: &mut Reader<'_>, text: &Text) -> Option<NodeUrl> {
    let parsed = NodeUrl::parse(&text.value);
    let refuse = |why: &str| {
        let message = format!("`{}` cannot be asked: {why}", text.value);
        let note = reader.diagnostics.problem(Code::InvalidValue, text.span(), message);
        note.text(&text.value).hint(format!("write it {FORMS}"));
    };
    parsed.map_err(refuse).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_node_is_a_web_address_or_a_socket() {
        for (text, shown) in [
            ("https://other.example", "https://other.example"),
            ("https://other.example/", "https://other.example"),
            ("HTTP://Other.Example:80/portway/", "http://other.example/portway"),
            ("http://203.0.113.9:7678", "http://203.0.113.9:7678"),
            ("http://[2001:db8::9]:7678", "http://[2001:db8::9]:7678"),
            ("unix:/run/other.sock", "unix:/run/other.sock"),
            ("unix:///run/other.sock", "unix:/run/other.sock"),
        ] {
            assert_eq!(NodeUrl::parse(text).unwrap().to_string(), shown, "{text}");
        }
        let Ok(NodeUrl::Http(web)) = NodeUrl::parse("http://[2001:db8::9]:7678/x") else { panic!("http") };
        assert_eq!((&*web.host, web.port, &*web.base), ("2001:db8::9", 7678, "/x"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "other.example",
            "other.example:7678",
            "ftp://other.example",
            "http://",
            "http://user@other.example",
            "http://user:x@other.example",
            "http://other.example/?a=b",
            "http://other.example/#x",
            "unix:run/other.sock",
            "unix:",
            "http://other.example:99999",
            "file:///etc/passwd",
        ] {
            assert!(NodeUrl::parse(text).is_err(), "{text}");
        }
    }
}
