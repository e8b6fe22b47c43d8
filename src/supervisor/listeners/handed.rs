//! The listeners' part of a hand-over: what goes to another process, and what comes from one.

use std::{
    collections::HashMap,
    task::{Context, Poll},
};

use super::Listeners;
use crate::{
    relay::tcp::AT_ONCE,
    supervisor::{
        hand::{Frozen, Inheritance, ListenerSnapshot, TakenOver, Twins},
        kind::{Ahead, Freezing, FrozenListener},
        running::Running,
    },
};

impl Listeners {
    /// Duplicates of the sockets that listen, and the listeners that have none.
    pub(in crate::supervisor) fn twins(&self) -> Twins {
        let waiting = self.running.values().filter(|running| running.is_waiting());
        Twins {
            listening: self.running.values().filter_map(Running::twin).collect(),
            staying: self.shared.inherited.that_stay(),
            waiting: waiting.map(|running| running.key().to_string()).collect(),
        }
    }

    /// Copies of the sockets of live sessions, in batches.
    pub(in crate::supervisor) fn ahead(&self) -> Vec<Ahead> {
        let batches = self.running.values().flat_map(|running| {
            let live = running.meter().live();
            let batches = live.chunks(AT_ONCE).map(<[_]>::to_vec).collect::<Vec<_>>();
            batches.into_iter().map(|batch| running.ahead(batch))
        });
        batches.collect()
    }

    /// Stops every listener of the plan and its sessions. Those of closed listeners go on.
    pub(in crate::supervisor) async fn freeze(&self) -> Frozen {
        // All are asked before one is waited for.
        let asked = self.running.iter().map(|(key, running)| (key, Asked::new(running.freeze())));
        let mut asked: Vec<_> = asked.collect();
        std::future::poll_fn(|cx| {
            asked.iter_mut().for_each(|(_, asked)| asked.poll(cx));
            Poll::Ready(())
        })
        .await;
        let mut listeners = Vec::with_capacity(asked.len());
        for (key, asked) in asked {
            listeners.push((key.clone(), asked.frozen().await));
        }
        Frozen { listeners }
    }

    /// Takes what another process hands over, or a part of it. What a listener is not there for is
    /// not taken.
    pub(in crate::supervisor) fn take_over(
        &mut self,
        Inheritance { snapshot, mut unpacker }: Inheritance,
    ) -> TakenOver {
        let running: HashMap<String, &Running> =
            self.running.iter().map(|(key, running)| (key.to_string(), running)).collect();
        let mut taken = TakenOver::default();
        for ListenerSnapshot { listener, has } in snapshot.listeners {
            let Some(running) = running.get(&listener) else {
                taken.not_taken.extend(has.clients());
                continue;
            };
            let (frozen, not_taken) = running.take_over(&has, &mut unpacker);
            taken.not_taken.extend(not_taken);
            self.arrived.listeners.push((running.key().clone(), frozen));
        }
        (taken.sessions, taken.flows) = self.arrived.counts();
        taken.unpacker = unpacker;
        taken
    }

    /// Takes clients from now on, and lets move what was taken over.
    pub(in crate::supervisor) fn begin(&mut self) {
        self.shared.serves.cancel();
        let arrived = std::mem::take(&mut self.arrived);
        arrived.listeners.into_iter().for_each(|(_, frozen)| frozen.resume());
    }
}

/// A freeze that has begun.
enum Asked {
    Begun(Freezing),
    Over(FrozenListener),
}

impl Asked {
    fn new(freezing: Freezing) -> Self {
        Self::Begun(freezing)
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Self::Begun(freezing) = self
            && let Poll::Ready(frozen) = freezing.as_mut().poll(cx)
        {
            *self = Self::Over(frozen);
        }
    }

    async fn frozen(self) -> FrozenListener {
        match self {
            Self::Begun(freezing) => freezing.await,
            Self::Over(frozen) => frozen,
        }
    }
}
