//! What is behind a router that tells no external address.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::Beyond;
use crate::{
    gateway::{Survey, Verdict},
    sock::hops::{self, OnTheWay},
};

/// An address somewhere on the internet. Nothing comes so far.
const FAR: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
/// How long a router may take to answer, and how often it is asked.
const ANSWER: Duration = Duration::from_secs(1);
const TRIES: usize = 2;

/// Asks for the router behind the home router, if that one has no address to tell.
pub(in crate::doctor) async fn look(survey: Option<&Survey>) -> Beyond {
    let Some(survey) = survey else { return Beyond::Unknown };
    let (IpAddr::V4(own), IpAddr::V4(gateway)) = (survey.way.own, survey.way.gateway) else {
        return Beyond::Unknown;
    };
    if survey.verdict != Some(Verdict::NoAddress) || survey.external.is_some() {
        return Beyond::Unknown;
    }
    for _ in 0..TRIES {
        match hops::router_at(2, own, FAR, ANSWER).await {
            Ok(Some(OnTheWay::Dead(router))) if router == gateway => return Beyond::Nothing,
            Ok(Some(OnTheWay::Router(next) | OnTheWay::Dead(next))) if next != gateway => {
                return Beyond::Router(next);
            }
            _ => {}
        }
    }
    Beyond::Unknown
}
