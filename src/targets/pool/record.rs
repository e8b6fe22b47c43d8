//! What a pool hands to the next process: which targets are paused or on hold, what their probes
//! say, how long they have been back, and whose turn is next.
//!
//! Not the sessions of a target: each that is handed over takes its place again. A target that the
//! plan of the next process does not know is kept until its next plan, as one that a reload
//! removes: nothing leads there.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{Group, Pool, PoolRecord, Targets, member};
use crate::mapping::{Protocol, TargetAddr};

/// The entries of each list that are taken over.
const MOST: usize = 4096;
/// No turn is further from the others than this, however many targets there are and of whatever
/// weight.
const FURTHEST: i64 = 1 << 40;

impl PoolRecord {
    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Pool {
    /// What is handed to the next process.
    pub(crate) fn snapshot(&self, now: Instant) -> PoolRecord {
        let state = self.state();
        let mut record =
            PoolRecord { paused: state.paused.iter().cloned().collect(), ..PoolRecord::default() };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (addr, member) in &state.members[protocol as usize] {
                if let Some(standing) = member.snapshot(now) {
                    record.members.push((protocol, addr.clone(), standing));
                }
            }
            let groups = state.groups[protocol as usize].iter();
            for (targets, Group { turns, .. }) in
                groups.filter(|(_, group)| group.turns.iter().any(|t| *t != 0))
            {
                record.turns.push((protocol, targets.iter().cloned().collect(), turns.clone()));
            }
        }
        record
    }

    /// Takes over what an earlier process knew.
    pub(crate) fn take_over(&self, record: &PoolRecord, now: Instant) {
        let mut state = self.state();
        let super::State { selection, paused, members, turns, .. } = &mut *state;
        paused.extend(record.paused.iter().take(MOST).cloned());
        for (protocol, addr, standing) in record.members.iter().take(MOST) {
            member(&mut members[*protocol as usize], addr, paused).take_over(*standing, now);
        }
        for member in members.iter().flat_map(HashMap::values) {
            member.pause(paused.contains(member.addr()));
            if selection.health.is_none() {
                // No probe would ever say that it is up.
                member.is_not_probed();
            }
        }
        for (protocol, targets, stand) in record.turns.iter().take(MOST) {
            if targets.len() == stand.len() {
                turns[*protocol as usize].insert(targets.clone(), stand.clone());
            }
        }
        self.note_strictness(&state);
    }
}

/// Gives the turns of an earlier process to a list that has just come into use.
pub(super) fn take_turns_over(
    known: &mut HashMap<Vec<TargetAddr>, Vec<i64>>,
    targets: &Targets,
    turns: &mut [i64],
) {
    if known.is_empty() {
        return;
    }
    let addrs: Vec<TargetAddr> = targets.iter().cloned().collect();
    if let Some(stand) = known.remove(&addrs) {
        for (turn, stood) in turns.iter_mut().zip(stand) {
            *turn = stood.clamp(-FURTHEST, FURTHEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, time::Duration};

    use super::*;
    use crate::{
        fixture::each_spoilt,
        targets::{Balance, Health, OnDown, Selection, Sign, Target},
    };

    fn addr(n: u8) -> TargetAddr {
        format!("10.0.0.{n}:80").parse().unwrap()
    }

    fn targets() -> Targets {
        let weighted = |n: u8| Target { weight: NonZeroU16::new(n.into()).unwrap(), ..addr(n).into() };
        Targets::new((1..=3).map(weighted)).unwrap()
    }

    fn selection(balance: Balance) -> Selection {
        let second = Duration::from_secs(1);
        let (rise, fall) = (2.try_into().unwrap(), 2.try_into().unwrap());
        let health = Some(Health { interval: second, timeout: second, rise, fall, send: None, expect: None });
        Selection { balance, health, on_down: OnDown::Keep, slow_start: Some(10 * second) }
    }

    fn order(pool: &Pool) -> Vec<String> {
        let targets = targets();
        let order = pool.order(Protocol::Tcp, &targets, [192, 0, 2, 1].into());
        order.map(|(target, _)| target.to_string()).collect()
    }

    fn next(before: &Pool, balance: Balance) -> Pool {
        let json = serde_json::to_string(&before.snapshot(Instant::now())).unwrap();
        let next = Pool::new(&selection(balance));
        next.take_over(&serde_json::from_str(&json).unwrap(), Instant::now());
        next
    }

    #[tokio::test(start_paused = true)]
    async fn the_turns_go_on_where_they_stood() {
        let (whole, mut moving) = (Pool::new(&selection(Balance::RoundRobin)), Pool::default());
        moving.retune(&selection(Balance::RoundRobin), &[], false);
        for round in 0..40 {
            assert_eq!(order(&whole), order(&moving), "round {round}");
            if round % 3 == 0 {
                moving = next(&moving, Balance::RoundRobin);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_paused_down_on_hold_or_just_back_is_so_in_the_next_process() {
        let before = Pool::new(&selection(Balance::First));
        assert_eq!(order(&before).len(), 3);
        before.pause(&addr(1), true);
        before.member_of(Protocol::Tcp, &addr(2)).failed(Sign::Clear);
        let health = selection(Balance::First).health.unwrap();
        let third = before.member_of(Protocol::Tcp, &addr(3));
        assert_eq!((third.probed(false, &health), third.probed(false, &health)), (None, Some(false)));
        let next = next(&before, Balance::First);
        assert!(next.is_paused(&addr(1)));
        assert_eq!(order(&next), order(&before));
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = next.member_of(Protocol::Tcp, &addr(2));
        assert!(second.worked());
        assert_eq!(order(&next), ["10.0.0.2:80", "10.0.0.3:80"]);
        tokio::time::advance(Duration::from_secs(4)).await;
        let third = self::next(&next, Balance::First);
        let state = third.member_of(Protocol::Tcp, &addr(2)).state(Instant::now());
        assert_eq!(state.share(Some(Duration::from_secs(10)), Instant::now()), 400, "4 s of 10 s");
        assert!(third.member_of(Protocol::Tcp, &addr(3)).is_down());
        third.pause(&addr(1), false);
        assert!(self::next(&third, Balance::First).snapshot(Instant::now()).paused.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_spoilt_record_leaves_every_target_that_is_not_paused_to_be_tried() {
        let before = Pool::new(&selection(Balance::RoundRobin));
        order(&before);
        before.member_of(Protocol::Tcp, &addr(2)).failed(Sign::Clear);
        before.pause(&addr(9), true);
        each_spoilt(&before.snapshot(Instant::now()), |spoilt| {
            let Ok(record) = serde_json::from_value::<PoolRecord>(spoilt) else { return };
            let next = Pool::new(&selection(Balance::RoundRobin));
            next.take_over(&record, Instant::now());
            for _ in 0..5 {
                assert_eq!(order(&next).len(), 3);
            }
            let _ = next.snapshot(Instant::now());
        });
    }
}
