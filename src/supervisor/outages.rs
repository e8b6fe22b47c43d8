//! What follows when targets go down and come back, besides the choice of other targets: sessions
//! that end (`on_down`), and listeners that the router is not to lead to (`while_down`).
//!
//! Owns what is withdrawn from the router, and says which targets are probed. What is down the
//! dialer knows.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{mapping::Mappings, running::Running};
use crate::{
    config::{ListenerPlan, Plan, Service},
    mapping::{ListenerKey, Protocol, WhileDown},
    targets::{Dialer, Health, Leg, OnDown, Probe, Probes},
};

/// What is done about targets that are down.
#[derive(Debug)]
pub(super) struct Outages {
    dialer: Dialer,
    probes: watch::Sender<Probes>,
    withdrawn: BTreeSet<ListenerKey>,
}

impl Outages {
    pub(super) fn new(dialer: &Dialer) -> Self {
        let probes = watch::Sender::new(Arc::default());
        Self { dialer: dialer.clone(), probes, withdrawn: BTreeSet::new() }
    }

    /// What is to be probed.
    pub(super) fn probes(&self) -> watch::Receiver<Probes> {
        self.probes.subscribe()
    }

    /// Takes the probes of a plan.
    pub(super) fn apply(&self, plan: &Plan, mappings: &Mappings) {
        let probes = probes(plan, mappings);
        if !(probes.is_empty() && self.probes.borrow().is_empty()) {
            self.probes.send_replace(probes.into());
        }
    }

    /// Whether a listener is to be left out of what the router leads to.
    pub(super) fn is_withdrawn(&self, key: &ListenerKey) -> bool {
        self.withdrawn.contains(key)
    }

    /// Looks which listeners have no target that works. Returns whether these are others than
    /// before.
    pub(super) fn withdraw(&mut self, plan: &Plan) -> bool {
        let all_down = |key: &ListenerKey, listener: &ListenerPlan| {
            listener.service.all_targets().all(|target| {
                let (mapping, target) = (listener.name.clone(), target.clone());
                self.dialer.down(&Leg { mapping, protocol: key.protocol, target }).is_some()
            })
        };
        let withdrawn: BTreeSet<_> = plan
            .listeners
            .iter()
            .filter(|(key, listener)| withdraws(listener) && all_down(key, listener))
            .map(|(key, _)| key.clone())
            .collect();
        for key in withdrawn.symmetric_difference(&self.withdrawn) {
            let is_new = withdrawn.contains(key);
            tracing::info!(
                protocol = key.protocol.as_str(),
                listen.addr = %key.addr,
                withdrawn = is_new,
                "{}",
                if is_new { "every target is down: not on the router" } else { "a target is up: on the router" }
            );
        }
        let is_other = withdrawn != self.withdrawn;
        self.withdrawn = withdrawn;
        is_other
    }

    /// Ends the sessions whose target went down after they had begun, where their mapping wants
    /// that.
    pub(super) fn end_sessions<'r>(&self, plan: &Plan, all: impl Iterator<Item = &'r Running>) {
        for running in all {
            let mapping = running.mapping().and_then(|id| plan.mappings.get(id));
            if mapping.is_some_and(|mapping| mapping.selection.on_down == OnDown::Close) {
                running.end_sessions_of_targets_down(&self.dialer);
            }
        }
    }
}

/// How a target is probed whose listener is withdrawn while it is down: nothing else would find out
/// that it is back.
fn return_probe() -> Health {
    Health {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN.saturating_add(2),
        send: None,
        expect: None,
    }
}

/// Whether the router leads to it only while a target works.
fn withdraws(listener: &ListenerPlan) -> bool {
    listener.exposure.is_some_and(|exposure| exposure.while_down == WhileDown::Close)
}

fn probes(plan: &Plan, mappings: &Mappings) -> Vec<Probe> {
    let (mut probes, mut known) = (Vec::new(), HashSet::new());
    let any_probed = plan.mappings.values().any(|mapping| mapping.selection.health.is_some());
    let any_withdraws = || plan.listeners.values().any(withdraws);
    if !any_probed && !any_withdraws() {
        return probes;
    }
    let mut healths: HashMap<_, Option<Health>> = HashMap::new();
    for (key, listener) in &plan.listeners {
        let (Some(id), Some(mapping)) = (&listener.mapping, plan.mapping_of(listener)) else { continue };
        let withdraws = withdraws(listener);
        let health = healths
            .entry((id, withdraws))
            .or_insert_with(|| mapping.selection.health.clone().or_else(|| withdraws.then(return_probe)));
        let Some(health) =
            health.as_ref().filter(|health| key.protocol == Protocol::Tcp || health.send.is_some())
        else {
            continue;
        };
        let Some(runtime) = mappings.of(listener) else { continue };
        let (source, of_mapping) = match &listener.service {
            Service::Tcp(spec) => (spec.options.source, spec.options.send_proxy),
            Service::Udp(spec) => (spec.options.source, spec.options.send_proxy),
            Service::Trap | Service::Knock | Service::Step => continue,
        };
        for (targets, send_proxy) in listener.service.target_lists_with_proxy(of_mapping) {
            for target in targets.iter() {
                let leg =
                    Leg { mapping: listener.name.clone(), protocol: key.protocol, target: target.clone() };
                if known.insert(leg.clone()) {
                    let member = runtime.pool.member_of(key.protocol, target);
                    probes.push(Probe { leg, member, health: health.clone(), source, send_proxy });
                }
            }
        }
    }
    probes
}
