//! The answer of a listener to a datagram that proves a way from outside.
//!
//! Comes before the flow table and the admission: such a datagram belongs to no client.

use std::net::{IpAddr, SocketAddr};

use quinn_udp::Transmit;
use tokio::time::Instant;

use super::{super::batch::Run, UdpListener};
use crate::{policy::ProbeReply, sock::udp as sockets};

impl UdpListener {
    /// Answers the questions that are expected, which no target may see. Gives what comes behind
    /// them: a short datagram of the same sender may have come in the same run.
    pub(super) fn answer_probes<'a>(
        &self,
        client: SocketAddr,
        hit: Option<IpAddr>,
        run: Run<'a>,
    ) -> Option<Run<'a>> {
        let Self { service, listener, .. } = self;
        let mut left = Some(run);
        while let Some(run) = left {
            let (datagram, rest) = run.split_first();
            match service.probes.take(datagram, || service.meter.listen().to_string(), Instant::now()) {
                None => return Some(run),
                Some(ProbeReply::Silence) => {}
                Some(ProbeReply::Answer(contents)) => {
                    let transmit = Transmit {
                        destination: client,
                        ecn: None,
                        contents: &contents,
                        segment_size: None,
                        src_ip: sockets::reply_source(hit),
                    };
                    // One that is lost is asked for again.
                    let _ = listener.offload.try_send((&listener.socket).into(), &transmit);
                }
            }
            left = rest;
        }
        None
    }
}
