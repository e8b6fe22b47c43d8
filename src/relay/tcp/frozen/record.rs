//! The records of what a TCP listener has, and what another process makes of them.
//!
//! A record is made by reference: the session stays as it is. It is unpacked in one go: a session
//! that cannot be taken leaves nothing behind, neither an account nor a permit.

use std::{collections::HashMap, io, net::SocketAddr, os::fd::AsFd, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{FrozenSession, SessionRecord};
use crate::{
    handover::{Held, Packer, SocketId, Span, Unpacker, Unusable},
    mapping::{Protocol, TargetAddr, canonical_socket},
    meter::LiveRecord,
    policy::Permit,
    preface::{
        LIMIT,
        proxy::{Addresses, Header},
    },
    relay::tcp::{
        Route, TcpSpec,
        preface::Lead,
        proxied::{Peer, StoppedPeer},
        pump::{ClientSide, Still},
        said::Said,
        service::TcpService,
        session::{Origin, Stopped},
        sessions::{Admitted, Right},
    },
    targets::Place,
    wake::{self, Awake},
};

/// A client without a session: a listed peer, or one that waits for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NewcomerRecord {
    addr: SocketAddr,
    #[serde(default)]
    age_us: Span,
    #[serde(default)]
    is_peer: bool,
    #[serde(default)]
    waits: bool,
}

/// The PROXY header that came before a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HeaderRecord {
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    length: usize,
    extras: Held,
    has_sum: bool,
}

impl SessionRecord {
    /// The record of a session.
    pub(super) fn of<'a>(
        session: &'a FrozenSession,
        packer: &mut Packer<'a>,
        now: Instant,
    ) -> io::Result<Self> {
        match session {
            FrozenSession::Session(session) => Self::of_stopped(session, packer, now),
            FrozenSession::Peer(peer) => {
                let peer = &peer.peer;
                let said = peer.said.as_ref().map(|said| packer.bytes(said.bytes()));
                let addr = peer.addr;
                let age_us = Span::since(peer.since, now);
                let newcomer = NewcomerRecord { addr, age_us, is_peer: true, waits: false };
                let client = Some(packer.socket(peer.socket.as_fd())?);
                Ok(Self { client, newcomer: Some(newcomer), said, ..Self::default() })
            }
        }
    }

    fn of_stopped<'a>(stopped: &'a Stopped, packer: &mut Packer<'a>, now: Instant) -> io::Result<Self> {
        let Stopped { near, origin, lead, permit: _ } = stopped;
        let mut record = Self {
            client: Some(packer.socket(near.client.as_fd())?),
            live: Some(near.meter.live().record(now)),
            ..Self::default()
        };
        match origin {
            Origin::Still(still) => {
                let (target, still) = &**still;
                record.target = Some(packer.socket(target.as_fd())?);
                record.pump = Some(still.pack(packer, now));
                record.is_awake = lead.as_ref().is_some_and(|lead| lead.awake.is_some());
            }
            Origin::Way(_) => {
                if let Some(lead) = lead {
                    record.is_on_its_way(lead, packer, now);
                }
            }
        }
        Ok(record)
    }

    fn is_on_its_way(&mut self, lead: &Lead, packer: &mut Packer<'_>, now: Instant) {
        let since = |then: Option<Instant>| then.map(|then| Span::since(then, now));
        self.said = (!lead.said.bytes().is_empty()).then(|| packer.bytes(lead.said.bytes()));
        self.header = lead.header.as_ref().map(|header| HeaderRecord {
            source: header.addresses.map(|addresses| addresses.source),
            destination: header.addresses.map(|addresses| addresses.destination),
            length: header.length,
            extras: packer.bytes(&header.extras),
            has_sum: header.has_sum,
        });
        (self.dialled_us, self.waking_us) = (since(lead.dialled), since(lead.waking));
    }

    /// The record of a client that waits for a slot.
    pub(super) fn of_waiting<'a>(
        admitted: &'a Admitted,
        packer: &mut Packer<'a>,
        now: Instant,
    ) -> io::Result<Self> {
        let newcomer = NewcomerRecord {
            addr: admitted.client,
            age_us: Span::since(admitted.since, now),
            is_peer: matches!(admitted.right, Right::Peer),
            waits: true,
        };
        let client = Some(packer.socket(admitted.socket.as_fd())?);
        Ok(Self { client, newcomer: Some(newcomer), ..Self::default() })
    }

    /// The client's socket.
    pub(crate) fn client(&self) -> Option<SocketId> {
        self.client
    }

    /// The number of the session.
    pub(crate) fn id(&self) -> Option<u64> {
        self.live.as_ref().map(|live| live.id)
    }
}

/// What a record became.
pub(super) enum Taken {
    Session(FrozenSession),
    Waiting(Admitted),
}

/// Unpacks the records of one listener.
pub(super) struct Unpacking<'a> {
    service: &'a Arc<TcpService>,
    spec: Arc<TcpSpec>,
    /// The targets of the plan, by their text.
    targets: HashMap<String, TargetAddr>,
    now: Instant,
}

impl<'a> Unpacking<'a> {
    pub(super) fn new(service: &'a Arc<TcpService>) -> Self {
        let spec = Arc::clone(&service.spec.borrow());
        let targets = spec.route.all().map(|target| (target.to_string(), target.clone())).collect();
        Self { service, spec, targets, now: Instant::now() }
    }

    /// What a record stands for.
    ///
    /// # Errors
    /// It cannot be used. Its sockets are closed here.
    pub(super) fn take(&self, record: &SessionRecord, unpacker: &mut Unpacker) -> Result<Taken, Unusable> {
        let client = record.client.ok_or(Unusable::Value("a client without a socket"))?;
        match (&record.live, &record.newcomer) {
            (Some(live), None) => {
                let session = self.session(record, live, client, unpacker)?;
                Ok(Taken::Session(FrozenSession::Session(Box::new(session))))
            }
            (None, Some(newcomer)) => self.newcomer(record, newcomer, client, unpacker),
            _ => Err(Unusable::Value("a client of an unknown kind")),
        }
    }

    fn session(
        &self,
        record: &SessionRecord,
        live: &LiveRecord,
        client: SocketId,
        unpacker: &mut Unpacker,
    ) -> Result<Stopped, Unusable> {
        let service = self.service;
        // What can fail comes first: an account that was opened has to end.
        let client = unpacker.stream(client)?;
        let (origin, lead, place) = match (record.target, &record.pump) {
            (Some(target), Some(pump)) => {
                let target = unpacker.stream(target)?;
                let still = Still::unpack(pump, unpacker, self.now)?;
                let place = live.place.as_deref().and_then(|text| self.place(text)).unwrap_or_default();
                (Origin::Still(Box::new((target, still))), None, place)
            }
            (None, None) => {
                let lead = self.lead(record, unpacker)?;
                (Origin::Way(Arc::clone(service)), Some(Box::new(lead)), Place::default())
            }
            _ => return Err(Unusable::Value("a session that is joined in part")),
        };
        let meter = service.meter.take_over(live, place, self.now)?;
        let lead = match lead {
            None if record.is_awake => {
                let awake = self.awake(live.name.as_deref());
                awake.map(|awake| Box::new(Lead { awake: Some(awake), ..Lead::default() }))
            }
            lead => lead,
        };
        let permit = self.permit(meter.live().client);
        let near = ClientSide { client, meter, slot: service.sessions.take_over() };
        Ok(Stopped { near, permit, origin, lead })
    }

    fn lead(&self, record: &SessionRecord, unpacker: &Unpacker) -> Result<Lead, Unusable> {
        let since = |then: Option<Span>| then.map(|then| then.before(self.now));
        Ok(Lead {
            said: said(record.said, unpacker)?,
            header: record.header.as_ref().map(|header| header.unpack(unpacker)).transpose()?,
            dialled: since(record.dialled_us),
            waking: since(record.waking_us),
            ..Lead::default()
        })
    }

    fn newcomer(
        &self,
        record: &SessionRecord,
        newcomer: &NewcomerRecord,
        client: SocketId,
        unpacker: &mut Unpacker,
    ) -> Result<Taken, Unusable> {
        let (addr, since) = (canonical_socket(newcomer.addr), newcomer.age_us.before(self.now));
        if newcomer.waits {
            // A stream first: so it is known to be one.
            let stream = unpacker.stream(client)?.into_std().map_err(|_| Unusable::Socket)?;
            let right = if newcomer.is_peer { Right::Peer } else { Right::Own(self.permit(addr)) };
            return Ok(Taken::Waiting(Admitted { socket: stream.into(), client: addr, right, since }));
        }
        if !newcomer.is_peer {
            return Err(Unusable::Value("a client of an unknown kind"));
        }
        let said = Some(Box::new(said(record.said, unpacker)?));
        let socket = unpacker.stream(client)?;
        let peer = Peer { socket, addr, slot: self.service.sessions.take_over(), since, said };
        let service = Arc::clone(self.service);
        Ok(Taken::Session(FrozenSession::Peer(Box::new(StoppedPeer { peer, service }))))
    }

    fn permit(&self, client: SocketAddr) -> Permit {
        self.service.admission.current().take_over(client.ip(), Protocol::Tcp)
    }

    /// The place at a target that the plan still has.
    fn place(&self, text: &str) -> Option<Place> {
        let target = self.targets.get(text)?;
        Some(self.service.pool.current().take_place(Protocol::Tcp, target))
    }

    /// Counts a session at what started its target, where the plan still starts it.
    fn awake(&self, name: Option<&str>) -> Option<Awake> {
        let options = &self.spec.options;
        let (wake, host, targets) = match &self.spec.route {
            Route::Targets(targets) => (options.wake.as_ref(), None, targets),
            Route::Names(names) => match name.and_then(|name| names.hosts.find(name)) {
                Some((host, route)) => {
                    (route.wake.as_ref().or(options.wake.as_ref()), Some(host), &route.targets)
                }
                None => (options.wake.as_ref(), None, names.otherwise.as_ref()?),
            },
        };
        let mapping = &self.service.meter.mapping();
        let waker = self.service.wakers.of(wake?, wake::Place { mapping, host, target: targets.first() });
        let awake = waker.enter();
        if waker.state() == wake::State::Asleep {
            // It carries this session.
            waker.reached();
        }
        Some(awake)
    }
}

impl HeaderRecord {
    fn unpack(&self, unpacker: &Unpacker) -> Result<Header, Unusable> {
        let extras = unpacker.bytes(self.extras)?;
        if extras.len() > usize::from(u16::MAX) {
            return Err(Unusable::Value("a PROXY header that is too long"));
        }
        let addresses =
            self.source.zip(self.destination).map(|(source, destination)| Addresses { source, destination });
        Ok(Header { addresses, length: self.length, extras: extras.into(), has_sum: self.has_sum })
    }
}

fn said(held: Option<Held>, unpacker: &Unpacker) -> Result<Said, Unusable> {
    let bytes = held.map(|held| unpacker.bytes(held)).transpose()?.unwrap_or_default();
    if bytes.len() > LIMIT {
        return Err(Unusable::Value("a client that has said too much"));
    }
    Ok(Said::before(bytes.to_vec()))
}
