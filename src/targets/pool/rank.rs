//! The rules by which one of several targets is the next: pure, without a clock or a lock.

use std::{cmp::Reverse, net::IpAddr};

use crate::{
    mapping::{ClientKey, TargetAddr},
    targets::Balance,
};

/// A target that may be chosen.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Its place in the order given.
    pub(super) at: usize,
    /// Its share, above 0.
    pub(super) weight: i64,
    /// Its sessions.
    pub(super) sessions: u32,
    /// What its address is to the choice by client.
    pub(super) seed: u64,
}

/// Puts the candidates in the order in which they are tried. `turns` has a number for each target
/// of the list; it carries the turns from one call to the next.
pub(super) fn rank(balance: Balance, all: &mut [Candidate], turns: &mut [i64], client: IpAddr) {
    match balance {
        Balance::First => all.sort_by_key(|candidate| candidate.at),
        Balance::RoundRobin => {
            take_turns(all, turns);
            all.sort_by_key(|candidate| Reverse(turns[candidate.at]));
            next_turn(all, all.len(), turns);
        }
        Balance::LeastSessions => {
            all.sort_by(|a, b| (load(a) * share(b)).cmp(&(load(b) * share(a))));
            let least =
                |candidate: &&Candidate| load(candidate) * share(&all[0]) == load(&all[0]) * share(candidate);
            let equal = all.iter().take_while(least).count();
            take_turns(&all[..equal], turns);
            all[..equal].sort_by_key(|candidate| Reverse(turns[candidate.at]));
            next_turn(all, equal, turns);
        }
        Balance::ClientHash => {
            let client = mix(ClientKey::of(client));
            all.sort_by(|a, b| score(b, client).total_cmp(&score(a, client)));
        }
    }
}

/// Smooth weighted turns, as nginx has them: each gets its weight, and the one with the most has
/// its turn and pays for all. So the turns of a heavy target are spread, and none waits for long.
fn take_turns(all: &[Candidate], turns: &mut [i64]) {
    for candidate in all {
        turns[candidate.at] += candidate.weight;
    }
}

/// The first of the candidates pays for the turn of the first `among` of them.
fn next_turn(all: &[Candidate], among: usize, turns: &mut [i64]) {
    if let Some(first) = all.first() {
        turns[first.at] -= all[..among].iter().map(|candidate| candidate.weight).sum::<i64>();
    }
}

/// The sessions with the one that comes.
fn load(candidate: &Candidate) -> u128 {
    u128::from(candidate.sessions) + 1
}

fn share(candidate: &Candidate) -> u128 {
    u128::from(candidate.weight.unsigned_abs())
}

/// Weighted rendezvous: a client goes where its score is highest. Each target's score is its own,
/// so a target that comes or goes moves no client between two others.
fn score(candidate: &Candidate, client: u64) -> f64 {
    // The upper 53 bits, as a number above 0 and below 1.
    let uniform = ((finish(candidate.seed ^ client) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    candidate.weight as f64 / -uniform.ln()
}

/// A number for a target's address.
pub(super) fn seed(addr: &TargetAddr) -> u64 {
    hash(addr.to_string().as_bytes())
}

fn mix(client: ClientKey) -> u64 {
    match client {
        ClientKey::V4(ip) => hash(&ip.octets()),
        ClientKey::V6(net) => hash(&net),
        ClientKey::LinkLocal(rest) => hash(&[&rest[..], b"l"].concat()),
        ClientKey::Isatap(net, last) => hash(&[&net[..], &[last]].concat()),
    }
}

/// FNV-1a, finished: the same in every build and on every machine, so that a client keeps its
/// target over a restart.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    finish(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Spreads a difference of one bit over all of them (the end of MurmurHash3).
fn finish(mut hash: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}
