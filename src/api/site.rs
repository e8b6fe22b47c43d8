//! Which pages of a browser may send requests.
//!
//! A browser sends whatever a page asks for, with the user's address and cookies. Two rules keep
//! pages of other sites out. Both judge headers alone, which a page cannot forge.
//!
//! - *DNS rebinding*: a name of another site that leads to this machine. So `Host` must be a
//!   literal address, `localhost`, or a name of `[api] hosts`.
//! - *Cross-site requests*: a form or a script of another site. So a request that changes something
//!   must come from our own page, if it comes from a page. A script of another site may not read
//!   anything, either: each stream would hold one of the clients' places.
//!
//! A program that is not a browser sends neither `Origin` nor `Sec-Fetch-Site`, and passes.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts};

use super::failure::Refused;

/// Refuses a request whose host is not ours.
pub(super) fn check_host(request: &Parts, hosts: &[String]) -> Result<(), Refused> {
    let named = text(&request.headers, header::HOST.as_str());
    // A proxy's form of a request names the host before the path, and counts more.
    let in_target = request.uri.authority().map(axum::http::uri::Authority::as_str);
    let Some(host) = in_target.or(named) else {
        return Err(Refused::bad("the request has no Host header"));
    };
    let all = [in_target, named];
    if all.into_iter().flatten().all(|host| is_ours(host, hosts)) {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!(
            "the host `{}` is not one of this daemon; use an address or `localhost`, or add the name to `[api] hosts`",
            clean(host)
        ),
    ))
}

/// Refuses a request of a page of another site.
pub(super) fn check_site(request: &Parts) -> Result<(), Refused> {
    let Parts { method, headers, uri, .. } = request;
    let fetched = |name| text(headers, name);
    let site = fetched("sec-fetch-site");
    // A link on another page may lead here.
    let is_link = is_safe(method) && fetched("sec-fetch-mode") == Some("navigate");
    let foreign_fetch = site.is_some_and(|site| !matches!(site, "same-origin" | "none")) && !is_link;
    let foreign_origin = !is_safe(method) && !has_own_origin(headers, uri);
    if foreign_fetch || foreign_origin {
        return Err(Refused::new(StatusCode::FORBIDDEN, "the request comes from a page of another site"));
    }
    Ok(())
}

/// Whether a request with this method changes nothing.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether the page that sent it, if any, has the host that it is sent to.
fn has_own_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = uri.authority().map(axum::http::uri::Authority::as_str).or(text(headers, "host"));
    let (Some(host), Some((scheme, authority))) = (host, origin.split_once("://")) else { return false };
    // A proxy in front may speak TLS.
    matches!(scheme, "http" | "https") && authority.eq_ignore_ascii_case(host)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // A value that is not text is a value, and matches nothing.
    headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

/// Whether `host`, with or without a port, is an address, `localhost` or one of `hosts`.
fn is_ours(host: &str, hosts: &[String]) -> bool {
    let Some(name) = without_port(host) else { return false };
    let bare = name.strip_suffix('.').unwrap_or(name);
    let is_address = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
    };
    is_address
        || bare.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|own| own.eq_ignore_ascii_case(bare))
}

/// The host, where what follows it is a port or nothing.
fn without_port(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(end);
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    is_port.then_some(name)
}

/// The start of a text of a stranger, for a message.
fn clean(host: &str) -> String {
    host.chars().filter(char::is_ascii_graphic).take(64).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_host_is_an_address_or_a_name_that_we_were_given() {
        let hosts = ["nas.lan".to_owned()];
        let ours = |host: &str| is_ours(host, &hosts);
        for host in
            ["127.0.0.1", "127.0.0.1:7678", "[::1]:7678", "[::1]", "localhost:80", "LocalHost.", "NAS.lan:1"]
        {
            assert!(ours(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "nas.lan.evil.example",
            "127.0.0.1:x",
            "127.0.0.1:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[evil.example]",
            "2130706433",
            "0x7f.1",
            "",
            ":80",
            "evil@127.0.0.1",
        ] {
            assert!(!ours(host), "{host}");
        }
    }

    #[test]
    fn every_host_of_a_request_counts() {
        let check =
            |uri: &str, headers: &[(&str, &str)]| check_host(&parts("GET", uri, headers), &[]).is_ok();
        assert!(check("/", &[("host", "127.0.0.1:1")]));
        assert!(check("http://localhost:1/", &[("host", "127.0.0.1:1")]));
        assert!(!check("/", &[("host", "evil.example")]));
        assert!(!check("/", &[]));
        assert!(!check("http://evil.example/", &[("host", "127.0.0.1")]));
        assert!(!check("http://127.0.0.1/", &[("host", "evil.example")]));
    }

    #[test]
    fn a_change_comes_from_our_own_page_or_from_no_page() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:7678");
        let allowed =
            |method: &str, headers: &[(&str, &str)]| check_site(&parts(method, "/v1/bans", headers)).is_ok();
        assert!(allowed("POST", &[HOST]));
        assert!(allowed(
            "POST",
            &[HOST, ("origin", "http://127.0.0.1:7678"), ("sec-fetch-site", "same-origin")]
        ));
        assert!(allowed("POST", &[HOST, ("origin", "https://127.0.0.1:7678")]));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:80", "", "file://127.0.0.1:7678"] {
            assert!(!allowed("POST", &[HOST, ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "unknown"] {
            assert!(!allowed("DELETE", &[HOST, ("sec-fetch-site", site)]), "{site}");
            assert!(!allowed("GET", &[HOST, ("sec-fetch-site", site)]), "{site}");
            let link = [HOST, ("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
            assert!(allowed("GET", &link) && !allowed("POST", &link), "{site}");
        }
    }
}
