//! The cookie of a login.
//!
//! A browser shares cookies between the ports of a host. So the name has the port, and two daemons
//! on one machine do not take each other's login away. No script can read the cookie, and no page
//! of another site can have it sent.

use axum::http::{HeaderMap, HeaderValue, header};

/// The number in the cookie of a daemon on this port.
pub(super) fn find(headers: &HeaderMap, port: u16) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name(port)).map(|(_, value)| value)
}

/// The header that sets the cookie for so many seconds; an empty value and 0 remove it.
pub(super) fn set(port: u16, value: &str, seconds: u64) -> Option<HeaderValue> {
    let name = name(port);
    let cookie = format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}");
    cookie.parse().ok()
}

fn name(port: u16) -> String {
    format!("portway_{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_of_a_port_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; portway_80=no".parse().unwrap());
        headers.append(header::COOKIE, "portway_7678=yes; x".parse().unwrap());
        assert_eq!(find(&headers, 7678), Some("yes"));
        assert_eq!(find(&headers, 80), Some("no"));
        assert_eq!(find(&headers, 8), None);
    }
}
