//! Streams as fast as the relay moves them, from the target to the client.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    EventFlags, Work, World, not_yet,
    probe::{connect, stream_request},
};
use crate::pattern::LONGEST;

/// Clients that read and check.
pub(crate) struct Bulk {
    clients: Vec<(TcpStream, u64)>,
    scratch: Vec<u8>,
    received: u64,
}

impl Bulk {
    /// Opens the streams.
    pub(crate) fn open(world: &World, relay: SocketAddr, streams: usize) -> Result<Self> {
        let mut clients = Vec::new();
        for id in 0..streams as u64 {
            let mut socket = connect(relay).context("connect to the relay")?;
            world.reactor.watch(&socket, id, EventFlags::IN)?;
            socket.write_all(&stream_request(id, u64::MAX))?;
            clients.push((socket, 0));
        }
        Ok(Self { clients, scratch: vec![0; LONGEST], received: 0 })
    }
}

impl Work for Bulk {
    fn ready(&mut self, world: &mut World, token: usize, _: EventFlags) -> Result<()> {
        let (socket, offset) = &mut self.clients[token];
        let length = match socket.read(&mut self.scratch) {
            Ok(length) => length,
            Err(error) if not_yet(&error) => return Ok(()),
            Err(error) => return Err(error).context("read from the relay"),
        };
        ensure!(length > 0, "the relay ended a stream");
        world.pattern.check(token as u64, *offset, &self.scratch[..length])?;
        *offset += length as u64;
        self.received += length as u64;
        Ok(())
    }

    fn done(&self, _: &World) -> u64 {
        self.received
    }

    fn restart(&mut self, _: &mut World) {
        self.received = 0;
    }
}
