//! Openings against a model of a router, for days of virtual time and by seed: what holds whatever
//! happens.
//!
//! The model fails as real routers do. Each world is one seed; a failing one is printed and can be
//! run alone. At every request the model checks that nothing of others is touched and that requests
//! are not hurried. At the end of each world all trouble ends, and everything wanted has to be
//! open.

use std::net::SocketAddr;

use super::*;
use crate::{
    gateway::{
        OnConflict,
        jitter::wait_after,
        lease::{Done, Gone, Open},
        router::{Entry, Granted, Holder, MapRequest, RouterError},
    },
    mapping::{ListenAddr, ListenerKey, MappingName, Protocol},
};

const HOUR: Duration = Duration::from_secs(3600);
const WORLDS: u64 = 60;
/// Sets another number of them.
const MORE_WORLDS: &str = "PORTWAY_TEST_WORLDS";

/// How a router behaves, drawn for each world.
#[derive(Clone, Copy, Debug, Default)]
struct Nature {
    /// 725 to a lease.
    permanent_only: bool,
    /// 718 to a renewal, also of one's own.
    refuses_overwriting: bool,
    /// Says yes to a renewal and lets the old lease run on.
    never_prolongs: bool,
    /// Shows each opening as if it had no end.
    hides_leases: bool,
    /// Grants less than was asked for, silently.
    short_grants: bool,
    /// Cannot be looked at.
    blind: bool,
    /// Refuses to close what another address opened.
    secure: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    client: IpAddr,
    port: u16,
    text: String,
    ends: Option<Instant>,
}

struct RouterModel {
    nature: Nature,
    held: BTreeMap<(Protocol, NonZeroPort), Held>,
    /// Percent of the answers that do not arrive; the request may have been carried out.
    loses: u64,
    /// Percent of the requests to which the answer is that it cannot, for now.
    fails: u64,
    rng: Rng,
    last_write: Option<Instant>,
    calls: Vec<Instant>,
    /// Looks at a place in a row that came to nothing; two at most.
    blinks: BTreeMap<(Protocol, NonZeroPort), u32>,
}

type NonZeroPort = std::num::NonZeroU16;

fn port(number: u16) -> NonZeroPort {
    NonZeroPort::new(number).unwrap()
}

fn is_ours(held: &Held) -> bool {
    held.text.starts_with("portway:")
}

impl RouterModel {
    fn answer(&mut self, call: &Call, now: Instant) -> Answer {
        self.calls.push(now);
        if call.is_write() {
            let early = self.last_write.is_some_and(|last| now < last + BETWEEN_WRITES);
            assert!(!early, "two writes within a second: {call:?}");
            self.last_write = Some(now);
        }
        self.end_leases(now);
        let lost = self.rng.u64(..) % 100 < self.loses;
        let unheard = lost && self.rng.u64(..).is_multiple_of(2);
        let gone = || RouterError::Lost("lost".into());
        let look = matches!(call, Call::Look(_));
        let blinks = self.blinks.entry((call.request().protocol, call.request().external_port)).or_default();
        let failed = self.rng.u64(..) % 100 < self.fails && !(look && *blinks == 2);
        match look {
            true if failed => *blinks += 1,
            true if !lost => *blinks = 0,
            _ => {}
        }
        let problem = if unheard { Some(gone()) } else { failed.then(|| RouterError::Failed("501".into())) };
        if let Some(error) = problem {
            return Err(error);
        }
        let answer = match call {
            Call::Look(request) => Ok(Done::Seen(self.look(request, now))),
            Call::Open(request) => self.open(request, now).map(Done::Granted),
            Call::AnyPort(request) => {
                // As PCP and NAT-PMP have it: the same question gets the same port.
                let same = self.held.iter().find(|((protocol, _), held)| {
                    *protocol == request.protocol
                        && SocketAddr::new(held.client, held.port) == request.internal
                });
                let same = same.map(|((_, port), _)| *port);
                let free = || (2000..).map(port).find(|p| !self.held.contains_key(&(request.protocol, *p)));
                let request = MapRequest { external_port: same.or_else(free).unwrap(), ..request.clone() };
                self.open(&request, now).map(Done::Granted)
            }
            Call::Close(request) => self.close(request).map(|()| Done::Closed),
        };
        if lost { Err(gone()) } else { answer }
    }

    fn end_leases(&mut self, now: Instant) {
        self.held.retain(|_, held| held.ends.is_none_or(|ends| ends > now));
    }

    fn look(&self, request: &MapRequest, now: Instant) -> Entry {
        if self.nature.blind {
            return Entry::Unknown;
        }
        match self.held.get(&(request.protocol, request.external_port)) {
            None => Entry::Free,
            Some(held) => Entry::Taken {
                holder: Holder { addr: SocketAddr::new(held.client, held.port), text: held.text.clone() },
                lease: held.ends.filter(|_| !self.nature.hides_leases).map(|ends| ends - now),
            },
        }
    }

    fn open(&mut self, request: &MapRequest, now: Instant) -> Result<Granted, RouterError> {
        if self.nature.permanent_only && request.lease.is_some() {
            return Err(RouterError::OnlyPermanent);
        }
        let place = (request.protocol, request.external_port);
        let own = request.internal.ip();
        // As PCP has it: a machine's port has one opening, which is then given back, because it is
        // another port.
        let other = |(at, held): (&(Protocol, NonZeroPort), &Held)| {
            let same =
                at.0 == request.protocol && SocketAddr::new(held.client, held.port) == request.internal;
            (same && *at != place).then_some(*at)
        };
        if let Some(other) = self.held.iter().find_map(other).filter(|_| self.nature.blind) {
            self.held.remove(&other);
            return Err(RouterError::Conflict);
        }
        let before = self.held.get(&place);
        // UPnP overwrites what the same machine has there, whatever its port (WANIPConnection:2,
        // AddPortMapping). PCP and NAT-PMP give a port of the router to one port of one machine.
        let others =
            |held: &Held| held.client != own || self.nature.blind && held.port != request.internal.port();
        if before.is_some_and(|held| others(held) || self.nature.refuses_overwriting) {
            return Err(RouterError::Conflict);
        }
        if let Some(held) = before
            && !self.nature.blind
        {
            assert!(is_ours(held), "another program's opening was overwritten: {held:?} by {request:?}");
        }
        let granted = request.lease.map(|lease| if self.nature.short_grants { lease / 4 } else { lease });
        let mut ends = granted.map(|lease| now + lease);
        if let (Some(held), true) = (before, self.nature.never_prolongs) {
            ends = held.ends;
        }
        self.held.insert(
            place,
            Held { client: own, port: request.internal.port(), text: request.text.clone(), ends },
        );
        Ok(Granted { external_port: request.external_port, lease: request.lease, pinhole: None })
    }

    fn close(&mut self, request: &MapRequest) -> Result<(), RouterError> {
        let place = (request.protocol, request.external_port);
        let Some(held) = self.held.get(&place) else { return Ok(()) };
        // PCP and NAT-PMP know an opening by the machine and port behind it, and find no other.
        if self.nature.blind && SocketAddr::new(held.client, held.port) != request.internal {
            return Ok(());
        }
        if held.client != request.internal.ip() && self.nature.secure {
            return Err(RouterError::Denied("606".into()));
        }
        assert!(is_ours(held), "another's opening was removed: {held:?} by {request:?}");
        self.held.remove(&place);
        Ok(())
    }
}

struct World {
    router: RouterModel,
    openings: Openings,
    wants: BTreeMap<Key, Want>,
    own: IpAddr,
    now: Instant,
    rng: Rng,
    settings: RouterSettings,
    lost: u32,
    /// What could not be taken back, and was said so: from which address, with which text.
    given_up: Vec<(IpAddr, String)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut coin = |of: u64| rng.u64(..).is_multiple_of(of);
        let mut nature = Nature {
            permanent_only: coin(5),
            refuses_overwriting: coin(5),
            never_prolongs: coin(5),
            hides_leases: coin(5),
            short_grants: coin(5),
            blind: coin(8),
            secure: coin(2),
        };
        // A blind router that refuses to overwrite could not be told from one where another has the
        // port.
        nature.refuses_overwriting &= !nature.blind;
        // What is hidden cannot be found out: only an hour's lease that was granted in full is
        // renewed in time.
        nature.short_grants &= !nature.hides_leases && !nature.blind;
        nature.never_prolongs &= !nature.hides_leases && !nature.blind;
        let on_conflict = if coin(4) { OnConflict::AnyPort } else { OnConflict::Fail };
        let router = RouterModel {
            nature,
            held: BTreeMap::new(),
            loses: 0,
            fails: 0,
            rng: Rng::with_seed(seed ^ 0xABCD),
            last_write: None,
            calls: Vec::new(),
            blinks: BTreeMap::new(),
        };
        let mut world = Self {
            router,
            openings: Openings::new(Rng::with_seed(seed ^ 0x1234)),
            wants: BTreeMap::new(),
            own: [192, 168, 77, 2].into(),
            now: Instant::now() + HOUR,
            rng,
            settings: RouterSettings { on_conflict, ..RouterSettings::default() },
            lost: 0,
            given_up: Vec::new(),
        };
        world.reload();
        world.openings.move_to(RouterRecord::default(), world.now);
        world
    }

    /// Some listeners of eight; two of them have the same port, by TCP and UDP.
    fn reload(&mut self) {
        self.wants.clear();
        for nth in 0..8_u16 {
            if self.rng.u64(..).is_multiple_of(3) {
                continue;
            }
            let protocol = if nth == 7 { Protocol::Udp } else { Protocol::Tcp };
            let number = 1000 + nth.min(6);
            let addr = ListenAddr::every(port(number));
            let key = Key { listener: ListenerKey { protocol, addr }, pinhole: None };
            let want = Want {
                key: key.clone(),
                mapping: MappingName::new(&format!("m{nth}")).unwrap(),
                internal: SocketAddr::new(self.own, number),
                external_port: port(number),
                text: format!("portway:m{nth}@host"),
            };
            self.wants.insert(key, want);
        }
        self.openings.retarget(self.wants.clone(), self.now);
    }

    fn move_own_address(&mut self, last: u8) {
        self.own = [192, 168, 77, last].into();
        self.wants.values_mut().for_each(|want| want.internal.set_ip(self.own));
        self.openings.retarget(self.wants.clone(), self.now);
    }

    /// Ends without a word and starts again, with what the state file remembers.
    fn crash_and_restart(&mut self) {
        let record = self.openings.record();
        let mut next = Openings::new(Rng::with_seed(self.rng.u64(..)));
        self.now += Duration::from_secs(self.rng.u64(..) % 100 + 2);
        next.retarget(self.wants.clone(), self.now);
        next.move_to(record, self.now);
        self.openings = next;
    }

    fn run(&mut self, until: Instant) {
        while self.now < until {
            match self.openings.next(self.now, &self.settings) {
                Next::Call(slot, call) => self.request(slot, &call),
                Next::Wait(at) => self.now = at.min(until),
                Next::Rest => self.now = until,
            }
        }
    }

    fn request(&mut self, slot: Slot, call: &Call) {
        self.openings.sending(&slot, call, self.now);
        let remembered = self.openings.record().openings;
        let answer = self.router.answer(call, self.now);
        if let (Call::Open(request), Ok(Done::Granted(_))) = (call, &answer) {
            let known = remembered.iter().any(|r| r.want.internal == request.internal);
            assert!(known, "{request:?} was opened before it was remembered");
        }
        self.now += Duration::from_millis(self.rng.u64(..) % 300);
        let lost = matches!(answer, Err(RouterError::Lost(_)));
        self.openings.answered(slot, call, answer, self.now, &self.settings);
        if lost {
            self.lost += 1;
            let search = wait_after(&mut self.rng, self.lost.min(4));
            self.now += search;
            self.openings.doubt(self.now);
        } else {
            self.lost = 0;
        }
        let departed = self.openings.departed();
        let left = departed.iter().filter(|gone| matches!(gone.state(), State::Gone(Gone::Left(_))));
        self.given_up.extend(left.map(|gone| (gone.want().internal.ip(), gone.want().text.clone())));
        self.no_more_than_one_each();
    }

    fn no_more_than_one_each(&self) {
        let mut ours: BTreeMap<(&str, Protocol), usize> = BTreeMap::new();
        // What a former address of this machine holds, or what was given up, only its lease can
        // end.
        let given_up = |held: &Held| self.given_up.contains(&(held.client, held.text.clone()));
        let ours_now = |held: &Held| is_ours(held) && held.client == self.own && !given_up(held);
        for ((protocol, _), held) in self.router.held.iter().filter(|(_, held)| ours_now(held)) {
            *ours.entry((&held.text, *protocol)).or_default() += 1;
        }
        for ((text, protocol), count) in ours {
            let leaving = self.openings.leaving.iter();
            let leaving =
                leaving.filter(|l| l.want().text == text && l.want().protocol() == protocol).count();
            assert!(count <= 1 + leaving, "{count} openings for {text}/{protocol}: {:?}", self.router.held);
        }
    }

    fn trouble(&mut self) {
        let now = self.now;
        match self.rng.u64(..) % 10 {
            0 => {
                self.router.held.retain(|_, held| !is_ours(held) && held.ends.is_none());
                self.openings.try_again(now);
            }
            // Restarted unseen.
            1 => self.router.held.retain(|_, held| !is_ours(held)),
            2 => self.router.loses = self.rng.u64(..) % 60,
            3 => self.router.fails = self.rng.u64(..) % 60,
            4 => (self.router.loses, self.router.fails) = (0, 0),
            5 => {
                let number = 1000 + u16::try_from(self.rng.u64(..) % 8).unwrap();
                let last =
                    if self.rng.u64(..).is_multiple_of(3) { self.own } else { [192, 168, 77, 9].into() };
                let forever = self.rng.u64(..).is_multiple_of(2);
                let ends = (!forever).then(|| now + HOUR / 2);
                let held = Held { client: last, port: 9, text: "a game".into(), ends };
                self.router.held.entry((Protocol::Tcp, port(number))).or_insert(held);
            }
            6 => self.reload(),
            7 => {
                let last = 2 + u8::try_from(self.rng.u64(..) % 3).unwrap();
                self.move_own_address(last);
            }
            8 => self.crash_and_restart(),
            _ => {
                // This machine slept: the router's clock went on.
                let slept = Duration::from_secs(self.rng.u64(..) % 7200);
                for held in self.router.held.values_mut() {
                    held.ends = held.ends.map(|ends| ends.checked_sub(slept).unwrap_or(now));
                }
                self.openings.doubt(now);
            }
        }
    }

    fn others(&self) -> Vec<Held> {
        self.router.held.values().filter(|held| !is_ours(held)).cloned().collect()
    }

    fn no_hurry(&self) {
        let calls = &self.router.calls;
        for window in calls.windows(601) {
            let took = window[600] - window[0];
            assert!(took > Duration::from_secs(180), "600 requests within {took:?}");
        }
    }

    fn all_is_open(&self) -> Result<(), String> {
        for lease in self.openings.leases() {
            let State::Open(Open { settled: true, .. }) = lease.state() else {
                return Err(format!("{:?} is not open: {lease:?}", lease.want().text));
            };
            let held = self.router.held.get(&(lease.want().protocol(), lease.external_port()));
            let place = held.map(|held| SocketAddr::new(held.client, held.port));
            if place != Some(lease.want().internal) {
                return Err(format!("the router has {held:?} for {lease:?}"));
            }
        }
        assert_eq!(self.openings.leases().count(), self.wants.len());
        Ok(())
    }

    /// The end of the program, as the loop does it, with a router that answers.
    fn release(&mut self) {
        for mut lease in self.openings.parting(self.now) {
            while !matches!(lease.state(), State::Gone(_)) {
                self.now += BETWEEN_WRITES;
                let mut habits = self.openings.habits;
                let call = lease.call(&self.settings, habits);
                let answer = self.router.answer(&call, self.now);
                let (now, settings, rng) = (self.now, &self.settings, &mut self.rng);
                let formers = &self.openings.formers;
                lease.answered(answer, &mut Context { now, settings, habits: &mut habits, formers, rng });
            }
        }
    }
}

fn live_through(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..30 {
        let calm = Duration::from_secs(world.rng.u64(..) % 3000);
        world.run(world.now + calm);
        world.trouble();
    }
    // All trouble ends: others leave, the router does what it can.
    (world.router.loses, world.router.fails) = (0, 0);
    world.router.held.retain(|_, held| is_ours(held));
    // A refusal holds for an hour, the lease of a former address as well, and permanent ones are
    // closed by hand.
    world.router.held.retain(|_, held| held.ends.is_some() || held.client == world.own);
    world.run(world.now + 3 * HOUR);
    // One may be on its way to be replaced at this very moment, or gone for up to a check, where a
    // router neither shows how long it lasts nor prolongs it.
    let mut open = world.all_is_open();
    for _ in 0..90 {
        if open.is_ok() {
            break;
        }
        world.run(world.now + BETWEEN_WRITES);
        open = world.all_is_open();
    }
    open.expect("a sane router and no other machine in the way");
    world.no_hurry();
    let others = world.others();
    world.release();
    assert_eq!(world.others(), others);
    let given_up = |held: &Held| world.given_up.contains(&(held.client, held.text.clone()));
    let ours = |held: &&Held| is_ours(held) && held.client == world.own && !given_up(held);
    let left: Vec<_> = world.router.held.values().filter(ours).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn whatever_a_router_does_nothing_of_others_is_touched_and_all_is_open_in_the_end() {
    let worlds = std::env::var(MORE_WORLDS).ok().and_then(|worlds| worlds.parse().ok()).unwrap_or(WORLDS);
    for seed in 0..worlds {
        let world = std::panic::catch_unwind(|| live_through(seed));
        assert!(world.is_ok(), "world {seed} ended badly: {:?}", World::new(seed).router.nature);
    }
}
