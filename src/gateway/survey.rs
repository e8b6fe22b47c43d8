//! One look at the home router, without keeping anything: for `portway doctor`.
//!
//! Owns the order of the questions: the way to the router, the search, the external address, and
//! what the router has at some ports. Opens and closes nothing. Each question has its limit, and
//! the look ends with the last one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    RouterSettings, Verdict,
    driver::Driver,
    questions::{limited, search},
    route::{NoRoute, router_addr},
    router::{Entry, Found, Holder, MapRequest, RouterAddr},
    upnp,
};
use crate::mapping::Protocol;

/// What should be open on the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// The port of this machine.
    pub(crate) port: std::num::NonZeroU16,
    /// The port on the router.
    pub(crate) external_port: std::num::NonZeroU16,
}

/// The way to the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The router.
    pub(crate) gateway: IpAddr,
    /// The address of this machine toward it.
    pub(crate) own: IpAddr,
}

/// Why there is no way to a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoWay {
    /// The reason.
    pub(crate) reason: String,
    /// The only default route is that of a tunnel or a container bridge.
    pub(crate) only_through: Option<String>,
}

/// What a router has at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing.
    Free,
    /// An opening that leads to this machine and port.
    Taken(Holder),
    /// The router cannot tell, for this reason.
    Unknown(String),
}

/// What a look at the router has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    /// The way to it.
    pub(crate) way: Way,
    /// The router, or why there is none.
    pub(crate) router: Result<Found, String>,
    /// Its external address.
    pub(crate) external: Option<IpAddr>,
    /// What that address says; `None` where the router does not say.
    pub(crate) verdict: Option<Verdict>,
    /// What it has at the wanted ports.
    pub(crate) seen: Vec<(Wanted, Seen)>,
}

impl Survey {
    /// The address by which the internet knows this network, as far as can be seen from inside.
    pub(crate) fn public(&self) -> Option<IpAddr> {
        let is_public = |ip: &IpAddr| ip.is_ipv4() && Verdict::of(Some(*ip)).is_public();
        Some(self.way.own).filter(is_public).or(self.external)
    }
}

/// The way to the router by the kernel's tables. Blocks for well under a millisecond.
///
/// # Errors
/// There is none.
pub(crate) fn way(settings: &RouterSettings) -> Result<Way, NoWay> {
    address(settings).map(|at| Way { gateway: at.gateway, own: at.own }).map_err(|error| {
        let only_through = match &error {
            NoRoute::OnlyThrough(interface) => Some(interface.clone()),
            _ => None,
        };
        NoWay { reason: error.to_string(), only_through }
    })
}

fn address(settings: &RouterSettings) -> Result<RouterAddr, NoRoute> {
    router_addr(settings.gateway, settings.interface.as_deref())
}

/// The routers that answer a search on the network of an address of this machine, wherever the
/// default route leads. Takes two seconds.
pub(crate) async fn routers(own: Ipv4Addr) -> Vec<IpAddr> {
    upnp::routers(own).await
}

/// Looks for the router and asks it about these ports.
pub(crate) async fn survey(settings: &RouterSettings, wanted: &[Wanted]) -> Survey {
    let unspecified = IpAddr::from([0, 0, 0, 0]);
    let mut survey = Survey {
        way: Way { gateway: unspecified, own: unspecified },
        router: Err("no way to it".to_owned()),
        external: None,
        verdict: None,
        seen: Vec::new(),
    };
    let at = match address(settings) {
        Ok(at) => at,
        Err(error) => return Survey { router: Err(error.to_string()), ..survey },
    };
    survey.way = Way { gateway: at.gateway, own: at.own };
    let (driver, found) = match search(&settings.protocols, &at).await {
        Ok(found) => found,
        Err(reason) => return Survey { router: Err(reason), ..survey },
    };
    survey.router = Ok(found);
    if let Ok(health) = limited(driver.health()).await {
        survey.external = health.external;
        let knows = health.external.is_some() || health.tells;
        survey.verdict = knows.then(|| Verdict::of(health.external));
    }
    for wanted in wanted.iter().copied() {
        survey.seen.push((wanted, look(&driver, at.own, wanted).await));
    }
    survey
}

async fn look(driver: &Driver, own: IpAddr, wanted: Wanted) -> Seen {
    let request = MapRequest {
        protocol: wanted.protocol,
        internal: SocketAddr::new(own, wanted.port.get()),
        external_port: wanted.external_port,
        lease: None,
        text: String::new(),
        nonce: [0; 12],
        pinhole: None,
    };
    match limited(driver.look(&request)).await {
        Ok(Entry::Free) => Seen::Free,
        Ok(Entry::Taken { holder, .. }) => Seen::Taken(holder),
        Ok(Entry::Unknown) => Seen::Unknown("it does not show its openings".to_owned()),
        Err(error) => Seen::Unknown(error.to_string()),
    }
}
