//! Tries the ports of others, from outside: whose, how often, and how many at once.
//!
//! Owns the terms of `[probe]`, the count of tries, and the question which address is tried: the
//! one that the request came from, and no other. So a token lets a client try its own network and
//! nothing else. A private address is never tried.
//!
//! A proxy of `[probe] proxies` says who its client is. At the unix socket, an administrator of
//! this machine names the address.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use ipnet::IpNet;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::{
    entrance::Entrance,
    failure::{Answer, Refused},
};
use crate::{
    config::ProbeSettings,
    mapping::{ClientKey, canonical},
    policy::{ClientLimiter, Crowded, Rate},
    probe::{Question, is_public},
    text::clean_start,
};

/// Tries that a client has at once, and in a minute.
const TRIES: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
/// When a client has a try again.
const AGAIN: &str = "12";
/// Clients whose tries are counted.
const COUNTED: usize = 1024;
/// Tries side by side: each takes a descriptor and up to seven seconds.
const AT_ONCE: usize = 8;
/// The header in which a proxy says who its client is.
const FORWARDED: &str = "x-forwarded-for";
/// How much of a stranger's text is repeated.
const SHOWN: usize = 64;

/// What tries ports.
#[derive(Debug)]
pub(super) struct Prober {
    terms: ArcSwapOption<ProbeSettings>,
    tries: ClientLimiter,
    at_once: Semaphore,
}

impl Prober {
    pub(super) fn new(terms: Option<&ProbeSettings>) -> Self {
        let rate = Rate { count: TRIES, per: Duration::from_secs(60), burst: TRIES };
        Self {
            terms: ArcSwapOption::new(terms.cloned().map(Arc::new)),
            tries: ClientLimiter::new(rate, COUNTED, Crowded::Replace),
            at_once: Semaphore::new(AT_ONCE),
        }
    }

    /// Takes what another configuration says.
    pub(super) fn retune(&self, terms: Option<&ProbeSettings>) {
        self.terms.store(terms.cloned().map(Arc::new));
    }

    /// The terms; `None` where this node tries no ports.
    pub(super) fn terms(&self) -> Option<Arc<ProbeSettings>> {
        self.terms.load_full()
    }

    /// The address that may be tried for this request, and the place for the try.
    ///
    /// # Errors
    /// 400, 403, 404 and 429, with the reason.
    pub(super) fn admit(
        &self,
        entrance: &Entrance,
        headers: &HeaderMap,
        question: &Question,
    ) -> Answer<(IpAddr, SemaphorePermit<'_>)> {
        let Some(terms) = self.terms() else {
            return Err(Refused::missing("this portway tries no ports for others: it has no [probe]"));
        };
        let address = asker(entrance, headers, question.address, &terms.proxies)?;
        if !is_public(address) {
            return Err(forbidden(format!(
                "{address} is not an address of the internet, so it is not tried"
            )));
        }
        if let Some(wanted) = question.address.map(canonical).filter(|wanted| *wanted != address) {
            return Err(forbidden(format!("the request comes from {address}, so {wanted} is not tried")));
        }
        let too_many = |error: &str, again: &'static str| {
            let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, error);
            refused.with_header(header::RETRY_AFTER, HeaderValue::from_static(again))
        };
        let Ok(place) = self.at_once.try_acquire() else {
            return Err(too_many("this portway tries as many ports as it may; try again in a moment", "5"));
        };
        if !self.tries.take(ClientKey::of(address), Instant::now()) {
            let error = format!("{address} has used up its {TRIES} tries a minute");
            return Err(too_many(&error, AGAIN));
        }
        Ok((address, place))
    }
}

/// The address of the client that asks.
fn asker(
    entrance: &Entrance,
    headers: &HeaderMap,
    named: Option<IpAddr>,
    proxies: &[IpNet],
) -> Answer<IpAddr> {
    let Some(ends) = entrance.tcp else {
        return named.map(canonical).ok_or_else(|| {
            Refused::bad("a request at the unix socket comes from no address: name one as `address`")
        });
    };
    let is_proxy = |ip: IpAddr| proxies.iter().any(|net| net.contains(&ip));
    let peer = canonical(ends.client.ip());
    if !is_proxy(peer) {
        if peer == canonical(ends.own.ip()) {
            return Err(forbidden(format!("the request comes from this machine itself, {peer}")));
        }
        return Ok(peer);
    }
    // The last proxy writes at the end. What a client has written itself stands before that.
    let said: Vec<&str> = headers.get_all(FORWARDED).iter().filter_map(|value| value.to_str().ok()).collect();
    let said = said.join(",");
    for text in said.rsplit(',').map(str::trim) {
        let Some(ip) = address_of(text).map(canonical) else {
            let text = clean_start(text, SHOWN);
            return Err(Refused::bad(format!(
                "the proxy {peer} names no client in X-Forwarded-For: `{text}`"
            )));
        };
        if !is_proxy(ip) {
            return Ok(ip);
        }
    }
    Err(forbidden(format!("the request comes from the proxy {peer} itself")))
}

/// An address, with or without a port.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.split_once(']')).map_or(text, |(ip, _)| ip);
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|addr| addr.ip());
    bare.parse().ok().or_else(with_port)
}

fn forbidden(error: String) -> Refused {
    Refused::new(StatusCode::FORBIDDEN, error)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        api::entrance::{Door, Ends},
        mapping::Protocol,
    };

    fn prober(proxies: &[&str]) -> Prober {
        let proxies = proxies.iter().map(|net| crate::policy::parse_net(net).unwrap()).collect();
        Prober::new(Some(&ProbeSettings { token: "a token of a node".into(), from: None, proxies }))
    }

    fn from(client: Option<&str>) -> Entrance {
        let tcp = client
            .map(|client| Ends { client: client.parse().unwrap(), own: "11.22.33.9:7678".parse().unwrap() });
        let door = if tcp.is_some() { Door::Api } else { Door::Socket };
        Entrance { door, tcp, closing: CancellationToken::new() }
    }

    fn question(address: Option<&str>) -> Question {
        let address = address.map(|address| address.parse().unwrap());
        Question { protocol: Protocol::Tcp, port: 80.try_into().unwrap(), address, nonce: None }
    }

    /// The address that is tried, or the status.
    fn admit(prober: &Prober, client: Option<&str>, said: &[&'static str], own: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        for value in said {
            headers.append(FORWARDED, HeaderValue::from_static(value));
        }
        match prober.admit(&from(client), &headers, &question(own)) {
            Ok((address, _place)) => address.to_string(),
            Err(refused) => refused.into_response().status().as_u16().to_string(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_own_public_address_tried_and_no_other() {
        let prober = prober(&[]);
        let of = |client, own| admit(&prober, Some(client), &["8.8.8.8"], own);
        assert_eq!(of("11.22.33.1:5", None), "11.22.33.1");
        assert_eq!(of("[::ffff:11.22.33.1]:5", Some("11.22.33.1")), "11.22.33.1");
        assert_eq!(of("11.22.33.1:5", Some("11.22.33.2")), "403");
        assert_eq!(of("11.22.33.9:5", None), "403", "its own machine");
        for private in ["127.0.0.1:5", "192.168.1.2:5", "100.64.0.1:5", "169.254.1.1:5", "[fe80::1]:5"] {
            assert_eq!(of(private, None), "403", "{private}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_sixth_try_within_a_minute_is_one_too_many() {
        let prober = prober(&[]);
        let of = |client| admit(&prober, Some(client), &[], None);
        let all: Vec<_> = (0..6).map(|_| of("11.22.33.1:5")).collect();
        assert!(all[..5].iter().all(|one| one == "11.22.33.1") && all[5] == "429", "{all:?}");
        assert_eq!(of("11.22.33.2:5"), "11.22.33.2", "another client");
        assert_eq!(admit(&prober, Some("11.22.33.1:5"), &[], Some("8.8.8.8")), "403", "costs no try");
        tokio::time::advance(Duration::from_secs(12)).await;
        assert_eq!((of("11.22.33.1:5"), of("11.22.33.1:5")), ("11.22.33.1".into(), "429".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_again_after_its_try() {
        let prober = prober(&[]);
        let client = |nth: usize| from(Some(&format!("11.22.34.{nth}:5")));
        let (headers, question) = (HeaderMap::new(), question(None));
        let places: Vec<_> =
            (0..AT_ONCE).map(|nth| prober.admit(&client(nth), &headers, &question).unwrap()).collect();
        assert!(prober.admit(&client(99), &headers, &question).is_err());
        drop(places);
        assert!(prober.admit(&client(99), &headers, &question).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_says_who_its_client_is_and_no_one_else_does() {
        let prober = prober(&["127.0.0.1", "10.0.0.0/24"]);
        let of = |client, said: &[&'static str]| admit(&prober, Some(client), said, None);
        assert_eq!(of("127.0.0.1:5", &["11.22.33.1"]), "11.22.33.1");
        assert_eq!(of("127.0.0.1:5", &["8.8.8.8, 11.22.33.1"]), "11.22.33.1", "a client may write, too");
        assert_eq!(of("127.0.0.1:5", &["8.8.8.8", "11.22.33.1, 10.0.0.7"]), "11.22.33.1");
        assert_eq!(of("127.0.0.1:5", &["[2606:4700::1]:443"]), "2606:4700::1");
        assert_eq!(of("127.0.0.1:5", &["11.22.33.1:443"]), "11.22.33.1");
        assert_eq!(of("127.0.0.1:5", &["192.168.1.1"]), "403");
        assert_eq!(of("127.0.0.1:5", &["10.0.0.7"]), "403");
        assert_eq!(of("127.0.0.1:5", &[]), "400");
        assert_eq!(of("127.0.0.1:5", &["8.8.8.8, unknown"]), "400");
        assert_eq!(of("11.22.33.2:5", &["11.22.33.1"]), "11.22.33.2");
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_unix_socket_the_address_is_named() {
        let prober = prober(&[]);
        assert_eq!(admit(&prober, None, &[], Some("11.22.33.1")), "11.22.33.1");
        assert_eq!(admit(&prober, None, &[], None), "400");
        assert_eq!(admit(&prober, None, &[], Some("192.168.1.2")), "403");
    }

    #[tokio::test(start_paused = true)]
    async fn without_terms_nothing_is_tried() {
        let prober = Prober::new(None);
        assert_eq!(admit(&prober, Some("11.22.33.1:5"), &[], None), "404");
    }
}
