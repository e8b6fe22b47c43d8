//! What a doorkeeper costs: the time of one decision, of one look-up and of reading a list.
//!
//! `cargo bench --bench admission`. The clients are many and come in no order, so that no cache knows them all.

#![allow(clippy::missing_docs_in_private_items, reason = "the macros of criterion make functions")]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portway::testing::{
    AccessSpec, Admission, Caps, Entries, Gate, GateInput, IpSet, Limit, ListName, Policy, Protocol, Rate,
    Rates, Refusal,
};
use tokio::time::Instant;

/// How many clients take turns.
const CLIENTS: u32 = 1024;

/// A list of single addresses and small networks, spread over all of 64.0.0.0/2.
fn list(entries: u32) -> String {
    let lines = (0..entries).map(|n| {
        let address = Ipv4Addr::from(0x4000_0000 | n.wrapping_mul(0x9E37_79B1) >> 2);
        format!("{address}/{}\n", 24 + n % 9)
    });
    lines.collect()
}

fn rate(count: u32) -> Option<Rate> {
    let count = NonZeroU32::new(count).expect("not 0");
    Some(Rate { count, per: Duration::from_secs(1), burst: count })
}

/// Everything on: ten thousand entries, both rates, both caps.
fn doorkeeper() -> (Arc<Admission>, Arc<Gate>) {
    let gate = Gate::new(std::time::SystemTime::now);
    let name = ListName("blocked".into());
    let set = Arc::new(IpSet::parse(&list(10_000)).expect("a list"));
    gate.apply(&GateInput { lists: [(name.clone(), set)].into(), ..GateInput::default() });
    let most = NonZeroU32::new(10_000).map_or(Limit::Unlimited, Limit::AtMost);
    let policy = Policy {
        access: AccessSpec {
            deny: Entries { nets: ["10.0.0.0/8".parse().expect("a network")].into(), lists: [name].into() },
            ..AccessSpec::default()
        },
        rates: Rates {
            new_sessions: rate(1_000_000_000),
            new_sessions_per_client: rate(1_000_000_000),
            ..Rates::default()
        },
        caps: Caps { sessions: most, sessions_per_client: most },
        ..Policy::default()
    };
    (Admission::new(&Arc::new(policy), &gate), gate)
}

/// Clients of that network, in no order.
fn clients(network: Ipv4Addr) -> impl FnMut() -> IpAddr {
    let mut n = 0_u32;
    move || {
        n = n.wrapping_add(1);
        Ipv4Addr::from(u32::from(network) | n.wrapping_mul(0x9E37_79B1) >> 7 & (CLIENTS - 1)).into()
    }
}

fn admit(c: &mut Criterion) {
    let (admission, gate) = doorkeeper();
    let now = Instant::now();
    let mut client = clients(Ipv4Addr::new(192, 0, 2, 0));
    c.bench_function("admit and leave", |b| {
        b.iter(|| drop(black_box(admission.admit(client(), Protocol::Tcp, now).expect("a permit"))));
    });
    let plain = Admission::new(&Arc::new(Policy::default()), &gate);
    c.bench_function("admit and leave, plain policy", |b| {
        b.iter(|| drop(black_box(plain.admit(client(), Protocol::Tcp, now).expect("a permit"))));
    });
    let mut denied = clients(Ipv4Addr::new(10, 0, 0, 0));
    c.bench_function("refused by a list", |b| {
        b.iter(|| assert_eq!(admission.admit(denied(), Protocol::Udp, now).err(), Some(Refusal::Denied)));
    });
    let mut banned = clients(Ipv4Addr::new(198, 51, 0, 0));
    (0..CLIENTS * 10).for_each(|_| {
        gate.guard().ban(banned(), None, now);
    });
    c.bench_function("refused by a ban", |b| {
        b.iter(|| assert_eq!(admission.admit(banned(), Protocol::Tcp, now).err(), Some(Refusal::Banned)));
    });
    c.bench_function("admit and leave while others are banned", |b| {
        b.iter(|| drop(black_box(admission.admit(client(), Protocol::Tcp, now).expect("a permit"))));
    });
}

fn lists(c: &mut Criterion) {
    let text = list(100_000);
    let set = IpSet::parse(&text).expect("a list");
    let mut listed =
        text.lines().map(|line| line.split('/').next().expect("an address").parse().expect("one")).cycle();
    let addresses: Vec<IpAddr> = listed.by_ref().take(4096).collect();
    let mut hits = addresses.iter().copied().cycle();
    c.bench_function("look up one of 100,000 entries", |b| {
        b.iter(|| set.longest(black_box(hits.next().expect("it goes round"))).expect("a hit"));
    });
    let mut misses = clients(Ipv4Addr::new(192, 0, 2, 0));
    c.bench_function("look up an address that is not among 100,000 entries", |b| {
        b.iter(|| assert_eq!(set.longest(black_box(misses())), None));
    });
    let mut reading = c.benchmark_group("reading");
    reading.sample_size(20);
    reading.bench_function("a list of 100,000 entries", |b| {
        b.iter_batched(|| &text, |text| IpSet::parse(text).expect("a list").len(), BatchSize::PerIteration);
    });
    reading.finish();
}

criterion_group!(benches, admit, lists);
criterion_main!(benches);
