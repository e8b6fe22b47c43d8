//! Flows that go from one table to another.

use std::net::IpAddr;

use super::{Flow, FlowId, FlowKey, FlowTable, Phase, Shape};
use crate::mapping::ClientKey;

impl<T> FlowTable<T> {
    /// How far each flow is.
    #[cfg(test)]
    pub(in crate::relay::udp) fn all_shapes(&self) -> impl Iterator<Item = Shape> {
        let id = |(slot, flow): (usize, &Flow<T>)| FlowId { slot, serial: flow.serial };
        self.flows.iter().filter_map(move |flow| self.shape(id(flow)))
    }

    /// How far a flow is.
    pub(in crate::relay::udp) fn shape(&self, id: FlowId) -> Option<Shape> {
        let flow = self.flows.get(id.slot).filter(|flow| flow.serial == id.serial)?;
        Some(match &flow.phase {
            Phase::Connecting { held, sent, .. } => Shape::Connecting { held: held.clone(), sent: *sent },
            Phase::Open { activity, deadline, .. } => {
                Shape::Open { activity: activity.clone(), deadline: *deadline }
            }
        })
    }

    /// Enters a flow of `client` that another table had. What it holds may be more than a flow of
    /// this table could.
    ///
    /// # Errors
    /// The handle, where the key has a flow.
    pub(in crate::relay::udp) fn enter(
        &mut self,
        key: FlowKey,
        client: IpAddr,
        handle: T,
        shape: Shape,
    ) -> Result<FlowId, T> {
        if self.by_key.contains_key(&key) {
            return Err(handle);
        }
        let (owner, serial) = (ClientKey::of(client), self.next_serial);
        self.next_serial += 1;
        let mut due_at = None;
        let phase = match shape {
            Shape::Connecting { held, sent } => {
                let bytes = held.iter().map(Vec::len).sum();
                self.held += bytes;
                Phase::Connecting { held, bytes, sent }
            }
            Shape::Open { activity, deadline } => {
                due_at = deadline;
                Phase::Open { activity, deadline: None, queued: None, is_listed: false }
            }
        };
        let is_settled = matches!(&phase, Phase::Open { activity, .. } if activity.is_settled());
        let slot = self.flows.insert(Flow { key, owner, serial, handle, phase });
        self.by_key.insert(key, slot);
        if is_settled {
            self.list(slot, true);
        }
        self.set_deadline(slot, due_at);
        Ok(FlowId { slot, serial })
    }
}
