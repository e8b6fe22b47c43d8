//! The first bytes that a target gets: the PROXY header, where it is to have one, and what the
//! client has said by now. They are one write.

use std::io;

use super::{direction::Pending, preface::Lead, pump::ClientSide, route::Way};
use crate::{
    mapping::{Protocol, canonical_socket},
    preface::proxy::{Addresses, Header, Outgoing, SendProxy},
};

/// What the target gets before anything else; `None` where that is nothing.
///
/// # Errors
/// What the system says of the client's connection.
pub(super) fn first(near: &ClientSide, way: &Way<'_>, lead: &mut Lead) -> io::Result<Option<Box<Pending>>> {
    if way.send_proxy != SendProxy::Off && lead.said.bytes().is_empty() {
        // A client that speaks first has done so by now. Its words save a write of their own.
        lead.said.try_hear(&near.client)?;
    }
    let (header, said) = (lead.header.take(), std::mem::take(&mut lead.said).into_bytes());
    let mut greeting = match way.send_proxy {
        SendProxy::Off => Vec::new(),
        form => outgoing(near, way, header.as_ref(), form),
    };
    let ours = greeting.len();
    if ours == 0 {
        greeting = said;
    } else {
        greeting.extend_from_slice(&said);
    }
    Ok((!greeting.is_empty()).then(|| Box::new(Pending::first(greeting, ours))))
}

fn outgoing(near: &ClientSide, way: &Way<'_>, received: Option<&Header>, form: SendProxy) -> Vec<u8> {
    let live = near.meter.live();
    let source = live.client;
    let told = received.and_then(|header| header.addresses);
    let destination = match told {
        Some(addresses) => addresses.destination,
        // A connection that is gone has no address any more. Its target will hear so.
        None => near.client.local_addr().map_or(source, canonical_socket),
    };
    let id = live.id.to_string();
    let outgoing = Outgoing {
        protocol: Protocol::Tcp,
        addresses: Addresses { source, destination },
        id: id.as_bytes(),
        authority: way.name.as_deref(),
        received,
    };
    outgoing.encode(form)
}
