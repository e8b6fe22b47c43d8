//! Where one session leads: by the name that its client wants, or to the targets of the mapping.
//!
//! An exact name wins, then the longest wildcard, then the targets of the mapping. Without these,
//! the client is told in its own protocol that its name leads nowhere. A client that breaks the
//! rules of its protocol gets to no target, because the target could find another name in its
//! bytes.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Names, TcpOptions,
    preface::{self, Misled},
    pump::{ClientSide, Ending},
    said::Said,
    service::TcpService,
    silent_drops::refuse,
    stand_in,
};
use crate::{
    meter::Ended,
    policy::Refusal,
    preface::{Verdict, answers::Refused, minecraft::Greeting, proxy::SendProxy},
    targets::Targets,
    wake::WakeSpec,
};

/// The way of one session.
#[derive(Debug)]
pub(super) struct Way<'a> {
    pub(super) targets: &'a Targets,
    pub(super) send_proxy: SendProxy,
    /// What starts the target.
    pub(super) wake: Option<&'a Arc<WakeSpec>>,
    /// The host of the mapping that takes the client's name.
    pub(super) host: Option<&'a str>,
    /// The name that the client wants.
    pub(super) name: Option<Box<str>>,
    /// What a player said of itself.
    pub(super) player: Option<Greeting>,
}

impl<'a> Way<'a> {
    /// To the targets of the mapping.
    pub(super) fn of_mapping(targets: &'a Targets, options: &'a TcpOptions) -> Self {
        Self {
            targets,
            send_proxy: options.send_proxy,
            wake: options.wake.as_ref(),
            host: None,
            name: None,
            player: None,
        }
    }
}

/// Finds the way of a client that has to say a name.
pub(super) async fn find<'a>(
    near: &ClientSide,
    names: &'a Names,
    options: &'a TcpOptions,
    service: &TcpService,
    said: &mut Said,
) -> Result<Way<'a>, Ending> {
    let deadline = near.meter.live().started + options.match_timeout;
    let (verdict, reader) = preface::name(near, names.by, deadline, said).await?;
    let player = reader.greeting().cloned();
    let wanted = if let Verdict::Name(name) = &verdict { Some(name.clone()) } else { None };
    if let Some((host, route)) = wanted.as_ref().and_then(|name| names.hosts.find(name)) {
        let client = near.meter.live().client.ip();
        let admitted = service.admission.current().admit_to(&route.access, client, Instant::now());
        if let Err(refusal) = admitted {
            return Err(turn_away(near, service, refusal));
        }
        wanted.iter().for_each(|name| near.meter.live().asks_for(name));
        return Ok(Way {
            targets: &route.targets,
            send_proxy: route.send_proxy.unwrap_or(options.send_proxy),
            wake: route.wake.as_ref().or(options.wake.as_ref()),
            host: Some(host),
            name: wanted,
            player,
        });
    }
    if let Some(targets) = names.otherwise.as_ref().filter(|_| verdict != Verdict::Invalid) {
        return Ok(Way { name: wanted, player, ..Way::of_mapping(targets, options) });
    }
    let (why, misled) = match verdict {
        Verdict::Name(name) => (Refused::UnknownName, Misled::UnknownName(name)),
        Verdict::Foreign => (Refused::Invalid, Misled::Foreign),
        Verdict::Invalid => (Refused::Invalid, Misled::Invalid),
        Verdict::Nameless | Verdict::More => (Refused::UnknownName, Misled::NoName),
    };
    match (player, reader.spoken()) {
        (Some(greeting), _) => {
            stand_in::turn_away(near, greeting, wanted.as_deref(), options.match_timeout, said).await;
        }
        (None, Some(spoken)) if !matches!(misled, Misled::Foreign) => {
            stand_in::refuse(near, spoken, why).await;
        }
        _ => {}
    }
    Err(Ending { reason: Ended::Preface, error: Some(std::io::Error::other(misled)) })
}

/// Ends a session whose client may not enter the host that it wants, as a refused client's.
fn turn_away(near: &ClientSide, service: &TcpService, refusal: Refusal) -> Ending {
    let how = service.admission.current().refuse();
    if let Ok(socket) = std::os::fd::AsFd::as_fd(&near.client).try_clone_to_owned() {
        refuse(socket, how, &service.silence);
    }
    service.admission.report(near.meter.live().client, refusal, &service.meter);
    Ended::Policy.into()
}
