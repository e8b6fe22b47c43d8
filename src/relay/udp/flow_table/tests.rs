//! The flow table under a seeded simulation: random events against a model that is too simple to be
//! wrong.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{expiry::STALE_ENTRIES, *};
use crate::fixture::Random;

const SEEDS: u64 = 400;
const STEPS: u32 = 400;
const CLIENTS: u64 = 12;

/// Every seed gives another life, and the same one each time.
struct Dice(Random);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.next() % limit
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let index = self.below(of.len().max(1) as u64) as usize;
        of.get(index)
    }
}

#[derive(Debug)]
struct Handle {
    number: u64,
    _permit: FlowPermit,
}

#[derive(Debug)]
struct ModelFlow {
    id: FlowId,
    number: u64,
    /// `None` once it is open.
    held: Option<Vec<Vec<u8>>>,
    deadline: Option<Instant>,
    opened: Instant,
    asked: usize,
    answered: usize,
    assured: bool,
}

impl ModelFlow {
    fn is_settled(&self) -> bool {
        self.held.is_none() && !self.assured && self.answered > 0 && self.answered >= self.asked
    }

    /// Something passes.
    fn pass(&mut self, idle: Timeout, now: Instant) {
        self.assured |= now > self.opened + Duration::from_secs(2);
        self.deadline = idle.duration().map(|idle| {
            let (part, least) = match (self.assured, self.asked, self.answered) {
                (true, ..) => (1, 0),
                (_, 1, 1..) => (6, 10),
                _ => (2, 30),
            };
            now + (idle / part).max(idle.min(Duration::from_secs(least)))
        });
    }
}

/// A verdict, without the loan of the table that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Known(u64),
    New(FlowId, u64),
    Held,
    Dropped(DropReason),
    Refused(Refusal),
}

/// What the table asked of its shell for one datagram.
#[derive(Default)]
struct Seen {
    asked: bool,
    entered: bool,
    measured: bool,
    gave_way: Vec<u64>,
    way_made: bool,
}

fn said(verdict: &Verdict<'_, Handle>) -> Said {
    match verdict {
        Verdict::Known(handle, _) => Said::Known(handle.number),
        Verdict::New(id, handle) => Said::New(*id, handle.number),
        Verdict::Held => Said::Held,
        Verdict::Dropped(reason) => Said::Dropped(*reason),
        Verdict::Refused(refusal) => Said::Refused(*refusal),
    }
}

/// The table, what it should be, and the world around it.
struct World {
    dice: Dice,
    now: Instant,
    table: FlowTable<Handle>,
    budget: FlowBudget,
    /// Flows of another listener.
    elsewhere: Vec<FlowPermit>,
    flows: BTreeMap<u64, ModelFlow>,
    gone: Vec<FlowId>,
    idle: Timeout,
    hold_off: Option<Instant>,
    tuned_at: u64,
    draining: bool,
    next_number: u64,
    sent: u64,
}

fn key(client: u64) -> FlowKey {
    // Two clients share an address, two local addresses share a client.
    let client_addr = SocketAddr::from(([192, 0, 2, (client / 4) as u8], 4000 + (client / 2 % 2) as u16));
    let local = [None, Some(IpAddr::from([198, 51, 100, 1]))][(client % 2) as usize];
    FlowKey { client: client_addr, local }
}

/// Whether a connecting flow that holds so much may hold another datagram.
fn is_room(held: &[Vec<u8>], payload: &[u8]) -> bool {
    let bytes: usize = held.iter().map(Vec::len).sum();
    held.len() < 16 && (held.is_empty() || bytes + payload.len() <= 64 * 1024)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(Random::of(seed));
        let budget = FlowBudget::new(dice.below(CLIENTS + 4) as usize);
        let idle = Timeout::After(Duration::from_millis(50));
        Self {
            dice,
            now: tokio::time::Instant::now().into_std(),
            table: FlowTable::new(idle, budget.clone()),
            budget,
            elsewhere: Vec::new(),
            flows: BTreeMap::new(),
            gone: Vec::new(),
            idle,
            hold_off: None,
            tuned_at: 0,
            draining: false,
            next_number: 0,
            sent: 0,
        }
    }

    fn step(&mut self) {
        match self.dice.below(1000) {
            0..500 => self.datagram(),
            500..620 => self.reply(),
            620..800 => self.take_early(),
            800..820 => self.unreachable(),
            820..845 => self.cut(),
            845..865 => self.late_event(),
            865..960 => self.time_passes(),
            960..975 => self.retune(),
            975..997 => self.others(),
            _ => {
                if self.dice.below(10) == 0 {
                    self.draining = true;
                    self.table.drain();
                }
            }
        }
        if self.table.is_armed_late() {
            self.table.arm();
        }
        self.check();
    }

    /// The flow that would make way for another of `client`.
    fn spare(&self, client: u64, or_anyone: bool) -> Option<u64> {
        let oldest = |own: bool| {
            let fits = |of: u64| !own || of / 4 == client / 4;
            let settled = self.flows.iter().filter(|(of, flow)| fits(**of) && flow.is_settled());
            settled.min_by_key(|(_, flow)| flow.number).map(|(of, _)| *of)
        };
        oldest(true).or_else(|| oldest(false).filter(|_| or_anyone))
    }

    /// What the table does about a client without room: another flow makes way, or none can.
    fn make_way(&mut self, client: u64, or_anyone: bool, gone: &[u64]) -> bool {
        let spare = self.spare(client, or_anyone);
        let Some(flow) = spare.map(|of| self.flows.remove(&of).unwrap()) else { return false };
        assert!(gone.contains(&flow.number), "the oldest that is settled makes way");
        self.gone.push(flow.id);
        true
    }

    fn payload(&mut self) -> Vec<u8> {
        let len = match self.dice.below(20) {
            0 => 0,
            1 => 65_507,
            2..5 => 9000 + self.dice.below(20_000) as usize,
            _ => self.dice.below(1500) as usize,
        };
        self.sent += 1;
        let mut payload = vec![0; len];
        for (byte, mark) in payload.iter_mut().zip(self.sent.to_le_bytes()) {
            *byte = mark;
        }
        payload
    }

    /// Gives the table a datagram, with an admission that refuses for `refusal` and a rate that
    /// refuses for `over`.
    fn offer(
        &mut self,
        arrival: Arrival<'_>,
        refusal: Option<Refusal>,
        over: Option<Refusal>,
    ) -> (Said, Seen) {
        let number = self.next_number;
        let mut seen = Seen::default();
        let Seen { asked, entered, measured, gave_way, way_made } = &mut seen;
        let verdict = self.table.datagram(
            arrival,
            |make_way| {
                *asked = true;
                let Some(refusal) = refusal else { return Ok(()) };
                *way_made = make_way(refusal);
                if *way_made { Ok(()) } else { Err(refusal) }
            },
            || {
                *measured = true;
                over.map_or(Ok(()), Err)
            },
            |handle| gave_way.push(handle.number),
            |permit, ()| {
                *entered = true;
                Handle { number, _permit: permit }
            },
        );
        let said = said(&verdict);
        (said, seen)
    }

    fn datagram(&mut self) {
        let client = self.dice.below(CLIENTS);
        let payload = self.payload();
        let count = [1, 1, 1, 7][self.dice.below(4) as usize];
        let (used, held_before) = (self.budget.used(), self.table.held);
        let all_fits = held_before + payload.len() <= EARLY_BYTES_OF_ALL;
        let is_new = !self.flows.contains_key(&client);
        let mut refusal = (self.dice.below(4) == 0)
            .then(|| [Refusal::Banned, Refusal::ClientFull, Refusal::Full][self.dice.below(3) as usize]);
        let over = (self.dice.below(8) == 0).then_some(Refusal::DatagramRate);
        let arrival = Arrival {
            key: key(client),
            client: key(client).client.ip(),
            payload: &payload,
            count,
            now: self.now,
        };
        let (said, seen) = self.offer(arrival, refusal, over);
        let way_for_budget = is_new
            && self.keeps_new_flows_out(all_fits, used) == Some(DropReason::FlowLimit)
            && self.make_way(client, true, &seen.gave_way);
        // A limit that was lowered may keep it out still.
        let free = self.keeps_new_flows_out(all_fits, used - usize::from(way_for_budget));
        if seen.asked
            && let Some(cap) = refusal
        {
            let is_cap = cap == Refusal::ClientFull || cap == Refusal::Full;
            let made = is_cap && self.make_way(client, cap == Refusal::Full, &seen.gave_way);
            assert_eq!(seen.way_made, made);
            refusal = refusal.filter(|_| !made);
        }
        let left = usize::from(way_for_budget) + usize::from(seen.way_made);
        assert_eq!(seen.gave_way.len(), left, "no other flow made way");
        let starts = if is_new {
            assert_eq!(seen.asked, free.is_none(), "admission is asked last: what it takes is used up");
            self.new_flow(client, payload, said, free, refusal)
        } else {
            self.old_flow(client, payload, count, said, (over, all_fits, seen.measured));
            false
        };
        assert!(!seen.asked || held_before == self.table.held || starts, "a refused client leaves nothing");
        assert_eq!(seen.entered, starts, "only a new flow gets a handle");
        assert_eq!(self.budget.used() + left, used + usize::from(starts), "only a new flow takes a permit");
    }

    /// What becomes of a datagram whose client has a flow.
    fn old_flow(
        &mut self,
        client: u64,
        payload: Vec<u8>,
        count: usize,
        said: Said,
        (over, all_fits, measured): (Option<Refusal>, bool, bool),
    ) {
        let flow = self.flows.get_mut(&client).unwrap();
        let Some(held) = &mut flow.held else {
            assert_eq!(said, Said::Known(flow.number));
            flow.asked += count;
            flow.pass(self.idle, self.now);
            return;
        };
        let room = all_fits && is_room(held, &payload);
        assert_eq!(measured, room, "what would be held has to pass, and nothing else");
        match (room, over) {
            (true, None) => {
                assert_eq!(said, Said::Held);
                held.push(payload);
            }
            (true, Some(over)) => assert_eq!(said, Said::Refused(over)),
            (false, _) => assert_eq!(said, Said::Dropped(DropReason::EarlyLimit)),
        }
    }

    /// What becomes of a datagram whose client has none: whether it starts one.
    fn new_flow(
        &mut self,
        client: u64,
        payload: Vec<u8>,
        said: Said,
        free: Option<DropReason>,
        refusal: Option<Refusal>,
    ) -> bool {
        match (free, refusal) {
            (Some(reason), _) => assert_eq!(said, Said::Dropped(reason)),
            (None, Some(refusal)) => assert_eq!(said, Said::Refused(refusal)),
            (None, None) => {
                let Said::New(id, number) = said else { panic!("new, got {said:?}") };
                assert_eq!(number, self.next_number);
                assert!(!self.gone.contains(&id), "an id is never reused");
                let flow = ModelFlow {
                    id,
                    number,
                    held: Some(vec![payload]),
                    deadline: None,
                    opened: self.now,
                    asked: 0,
                    answered: 0,
                    assured: false,
                };
                self.flows.insert(client, flow);
                self.next_number += 1;
            }
        }
        free.is_none() && refusal.is_none()
    }

    /// Why no client gets a new flow.
    fn keeps_new_flows_out(&self, all_fits: bool, used: usize) -> Option<DropReason> {
        let unreachable = self.hold_off.is_some_and(|until| self.now < until);
        let reasons = [
            (self.draining, DropReason::Draining),
            (unreachable, DropReason::Unreachable),
            (!all_fits, DropReason::EarlyLimit),
            (used >= self.budget.limit(), DropReason::FlowLimit),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    }

    fn some_client(&mut self) -> Option<u64> {
        let clients: Vec<u64> = self.flows.keys().copied().collect();
        self.dice.pick(&clients).copied()
    }

    fn reply(&mut self) {
        let Some(client) = self.some_client() else { return };
        let count = 1 + self.dice.below(2) as usize;
        let flow = self.flows.get_mut(&client).unwrap();
        self.table.reply(flow.id, count, self.now);
        if flow.held.is_none() {
            flow.answered += count;
            flow.pass(self.idle, self.now);
        }
    }

    fn take_early(&mut self) {
        let Some(client) = self.some_client() else { return };
        let flow = self.flows.get_mut(&client).unwrap();
        let given = self.table.take_early(flow.id, self.now);
        match &mut flow.held {
            Some(held) if !held.is_empty() => {
                flow.asked += held.len();
                assert_eq!(given, Early::Send(std::mem::take(held)));
            }
            Some(_) => {
                assert_eq!(given, Early::Open);
                (flow.held, flow.opened) = (None, self.now);
                flow.pass(self.idle, self.now);
            }
            None => assert_eq!(given, Early::Open),
        }
    }

    fn unreachable(&mut self) {
        let Some(client) = self.some_client() else { return };
        let flow = self.flows.remove(&client).unwrap();
        let hold_off = Duration::from_millis(self.dice.below(30));
        self.table.unreachable(flow.id, self.now, hold_off);
        if flow.number >= self.tuned_at {
            self.hold_off = Some(self.now + hold_off);
        }
        self.remove(flow);
    }

    fn cut(&mut self) {
        let Some(client) = self.some_client() else { return };
        let flow = self.flows.remove(&client).unwrap();
        self.remove(flow);
    }

    fn remove(&mut self, flow: ModelFlow) {
        let (handle, held) = self.table.remove(flow.id).expect("the flow is there");
        assert_eq!(handle.number, flow.number);
        assert_eq!(held, flow.held.map_or(0, |held| held.len()));
        self.gone.push(flow.id);
    }

    /// An event of a flow that is gone, whose slot another may have by now.
    fn late_event(&mut self) {
        let Some(&id) = self.dice.pick(&self.gone) else { return };
        let armed = self.table.armed;
        assert!(self.table.remove(id).is_none());
        assert_eq!(self.table.take_early(id, self.now), Early::Gone);
        self.table.reply(id, 1, self.now);
        assert_eq!(self.table.armed, armed);
    }

    fn time_passes(&mut self) {
        let until = self.now + Duration::from_millis([1, 7, 20, 60, 500][self.dice.below(5) as usize]);
        while let Some(at) = self.table.arm().filter(|at| *at <= until) {
            assert!(at >= self.now, "the table never asks for the past");
            self.now = at;
            let mut expired = Vec::new();
            self.table.expire(at, |_| false, |handle| expired.push(handle.number));
            expired.sort_unstable();
            let due = |flow: &ModelFlow| flow.held.is_none() && flow.deadline.is_some_and(|d| d <= at);
            let mut expected: Vec<u64> =
                self.flows.values().filter(|flow| due(flow)).map(|flow| flow.number).collect();
            expected.sort_unstable();
            assert_eq!(expired, expected, "exactly the idle flows expire");
            self.gone.extend(self.flows.values().filter(|flow| due(flow)).map(|flow| flow.id));
            self.flows.retain(|_, flow| !due(flow));
            self.check();
        }
        self.now = until;
    }

    fn retune(&mut self) {
        let millis = [1, 10, 50, 200, 3_600_000];
        self.idle = match self.dice.pick(&millis) {
            Some(millis) if self.dice.below(8) != 0 => Timeout::After(Duration::from_millis(*millis)),
            _ => Timeout::Never,
        };
        self.table.retune(self.idle);
        (self.hold_off, self.tuned_at) = (None, self.next_number);
    }

    /// Another listener takes or gives back permits, or the operator changes the limit.
    fn others(&mut self) {
        match self.dice.below(4) {
            0 => self.budget.set_limit(self.dice.below(CLIENTS + 4) as usize),
            1 => self.elsewhere.extend(self.budget.take()),
            _ => drop(self.elsewhere.pop()),
        }
    }

    fn check(&self) {
        self.table.check_invariants();
        assert_eq!(self.table.flows.len(), self.flows.len());
        assert_eq!(self.budget.used(), self.flows.len() + self.elsewhere.len(), "a permit for each flow");
        for (client, flow) in &self.flows {
            let slot = self.table.by_key[&key(*client)];
            assert_eq!(FlowId { slot, serial: self.table.flows[slot].serial }, flow.id);
            let Phase::Open { deadline, .. } = &self.table.flows[slot].phase else {
                assert!(flow.held.is_some());
                continue;
            };
            assert_eq!((*deadline, true), (flow.deadline, flow.held.is_none()));
            if let Some(deadline) = deadline {
                assert!(self.table.due.peek().is_some_and(|due| due.0.at <= *deadline));
            }
        }
    }
}

fn live(seed: u64) {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step()));
        if outcome.is_err() {
            panic!("seed {seed} fails at step {step}: run with PORTWAY_SEED={seed}");
        }
    }
    // Whatever happened, every flow comes to an end and everything is given back.
    for flow in std::mem::take(&mut world.flows).into_values() {
        world.remove(flow);
    }
    world.elsewhere.clear();
    assert_eq!((world.budget.used(), world.table.held), (0, 0), "seed {seed}");
    world.check();
}

#[test]
fn the_table_agrees_with_a_simple_model_in_every_life() {
    match std::env::var("PORTWAY_SEED") {
        Ok(seed) => live(seed.parse().expect("PORTWAY_SEED is a number")),
        Err(_) => (0..SEEDS).for_each(live),
    }
}

/// A datagram that no policy keeps out.
fn arrive<'a>(
    table: &'a mut FlowTable<FlowPermit>,
    key: FlowKey,
    payload: &[u8],
    now: Instant,
) -> Verdict<'a, FlowPermit> {
    let arrival = Arrival { key, client: key.client.ip(), payload, count: 1, now };
    table.datagram(arrival, |_| Ok(()), || Ok(()), drop, |permit, ()| permit)
}

fn table(idle: Timeout) -> (FlowTable<FlowPermit>, Instant) {
    (FlowTable::new(idle, FlowBudget::new(100_000)), tokio::time::Instant::now().into_std())
}

fn open(table: &mut FlowTable<FlowPermit>, key: FlowKey, now: Instant) -> FlowId {
    let Verdict::New(id, _) = arrive(table, key, b"", now) else { panic!("not new") };
    while table.take_early(id, now) != Early::Open {}
    id
}

#[test]
fn a_flow_whose_lookup_outlasts_the_timeout_still_forwards_its_first_datagram() {
    let (mut table, now) = table(Timeout::After(Duration::from_millis(1)));
    let Verdict::New(id, _) = arrive(&mut table, key(1), b"first", now) else { panic!("not new") };
    let later = now + Duration::from_secs(10);
    table.expire(later, |_| false, |_| panic!("a connecting flow does not expire"));
    assert_eq!(table.take_early(id, later), Early::Send(vec![b"first".to_vec()]));
    assert_eq!(table.take_early(id, later), Early::Open);
    assert_eq!(table.arm(), Some(later + Duration::from_millis(1)));
}

#[test]
fn a_busy_flow_costs_one_heap_entry_and_no_more() {
    let (mut table, start) = table(Timeout::After(Duration::from_secs(60)));
    open(&mut table, key(1), start);
    for i in 0..100_000 {
        let now = start + Duration::from_micros(i);
        assert!(matches!(arrive(&mut table, key(1), b"x", now), Verdict::Known(..)));
    }
    assert_eq!(table.due.len(), 1);
}

#[test]
fn a_hundred_thousand_short_flows_leave_nothing_behind() {
    let (mut table, now) = table(Timeout::After(Duration::from_secs(3600)));
    for i in 0..100_000_u32 {
        let client = SocketAddr::from((i.to_be_bytes(), 53));
        let id = open(&mut table, FlowKey { client, local: None }, now);
        if i % 2 == 0 {
            table.remove(id);
        }
    }
    assert_eq!(table.flows.len(), 50_000);
    let mut expired = 0;
    table.expire(now + Duration::from_secs(3600), |_| false, |_| expired += 1);
    assert_eq!((expired, table.flows.len(), table.by_key.len(), table.due.len()), (50_000, 0, 0, 0));
    assert!(table.flows.capacity() <= KEPT_CAPACITY && table.by_key.capacity() <= KEPT_CAPACITY);
    assert_eq!(table.budget.used(), 0);
}

#[test]
fn all_opening_flows_together_hold_four_mebibytes() {
    let (mut table, now) = table(Timeout::Never);
    let payload = vec![0; 65_507];
    let mut held = 0;
    for i in 0..1000_u32 {
        let key = FlowKey { client: SocketAddr::from((i.to_be_bytes(), 53)), local: None };
        match arrive(&mut table, key, &payload, now) {
            Verdict::New(..) => held += payload.len(),
            verdict => assert!(matches!(verdict, Verdict::Dropped(DropReason::EarlyLimit))),
        }
    }
    assert!(held <= EARLY_BYTES_OF_ALL && held > EARLY_BYTES_OF_ALL - payload.len());
    table.check_invariants();
}

impl<T> FlowTable<T> {
    /// Panics where the table contradicts itself.
    fn check_invariants(&self) {
        assert_eq!(self.by_key.len(), self.flows.len(), "every flow has one key");
        let (mut held_by_all, mut listed) = (0, 0);
        for (slot, flow) in &self.flows {
            assert_eq!(self.by_key.get(&flow.key), Some(&slot), "a flow's key leads to it");
            assert!(flow.serial < self.next_serial);
            if matches!(&flow.phase, Phase::Open { activity, .. } if activity.is_settled()) {
                let own = self.settled.oldest_of(ClientKey::of(flow.key.client.ip()));
                assert!(own.is_some_and(|own| self.flows[own].serial <= flow.serial), "the oldest is first");
            }
            if let Phase::Open { activity, is_listed, .. } = &flow.phase {
                listed += usize::from(*is_listed);
                assert!(*is_listed || !activity.is_settled(), "every settled flow is listed");
                assert!(!(*is_listed && activity.is_assured()), "and none that goes on for long");
            }
            match &flow.phase {
                Phase::Connecting { held, bytes, .. } => {
                    assert_eq!(held.iter().map(Vec::len).sum::<usize>(), *bytes);
                    assert!(held.len() <= EARLY_DATAGRAMS && (*bytes <= EARLY_BYTES || held.len() == 1));
                    held_by_all += bytes;
                }
                Phase::Open { deadline: Some(deadline), queued, .. } => {
                    let at = queued.expect("a flow with a deadline is queued");
                    assert!(at <= *deadline, "a flow is looked at before its deadline");
                    let due = Due { at, slot, serial: flow.serial };
                    assert!(self.due.iter().any(|entry| entry.0 == due), "its entry is in the heap");
                }
                Phase::Open { deadline: None, .. } => {}
            }
        }
        assert_eq!(self.settled.len(), listed, "the list knows those flows, and no others");
        assert_eq!(held_by_all, self.held);
        assert!(self.held <= EARLY_BYTES_OF_ALL);
        assert!(self.due.len() <= 2 * self.flows.len() + STALE_ENTRIES, "stale entries are swept out");
    }
}
