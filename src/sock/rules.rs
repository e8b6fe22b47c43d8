//! The rules of routing that someone has made, read from the kernel.
//!
//! Three rules are always there: the tables `local`, `main` and `default`. Any further one is an
//! administrator's.

use std::io;

use rustix::{io::Errno, net::AddressFamily};

use super::netlink::{self, DONE, ERROR, REQUEST_DUMP, u32_at};

/// Asks for all rules of a family.
const GET_RULES: u16 = 34;
/// One rule.
const RULE: u16 = 32;
/// The attribute that says where a rule stands among the others.
const PRIORITY: u16 = 6;
/// The length of the head of a rule.
const RULE_HEAD: usize = 12;
/// Where the rules stand that are always there.
const STANDARD: [u32; 3] = [0, 32766, 32767];
/// Answers that are read: more rules than that have an own one among them.
const MOST_ANSWERS: usize = 64;

/// Whether there is any rule of routing, of IPv4 or of IPv6, that is not the kernel's own.
///
/// # Errors
/// The kernel does not say.
pub(super) fn any_own() -> io::Result<bool> {
    Ok(any_own_of(AddressFamily::INET)? || any_own_of(AddressFamily::INET6).unwrap_or(false))
}

fn any_own_of(family: AddressFamily) -> io::Result<bool> {
    let mut question = [0; RULE_HEAD];
    question[0] = u8::try_from(family.as_raw()).unwrap_or_default();
    let mut answers = netlink::ask(GET_RULES, REQUEST_DUMP, &question)?;
    for _ in 0..MOST_ANSWERS {
        match answer(answers.read()?) {
            Answer::Own => return Ok(true),
            Answer::Ended => return Ok(false),
            Answer::Refused => return Err(Errno::NOTSUP.into()),
            Answer::More => {}
        }
    }
    Ok(true)
}

/// What a part of the answer says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// There is a rule of someone's own.
    Own,
    /// There is none, and this was the last part.
    Ended,
    /// The kernel has no list.
    Refused,
    /// There is none so far.
    More,
}

fn answer(part: &[u8]) -> Answer {
    for (kind, body) in netlink::messages(part) {
        match kind {
            DONE => return Answer::Ended,
            ERROR => return Answer::Refused,
            RULE if !STANDARD.contains(&priority(body)) => return Answer::Own,
            _ => {}
        }
    }
    Answer::More
}

/// Where a rule stands; a rule without a word on it stands first.
fn priority(rule: &[u8]) -> u32 {
    let mut all = netlink::attributes(rule.get(RULE_HEAD..).unwrap_or_default());
    all.find(|(kind, _)| *kind == PRIORITY).and_then(|(_, value)| u32_at(value, 0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(priority: Option<u32>) -> Vec<u8> {
        let mut body = vec![0; RULE_HEAD];
        // An attribute that is not asked for, with a length that is no multiple of four.
        body.extend([5_u16.to_ne_bytes(), 15_u16.to_ne_bytes()].concat());
        body.extend([7, 0, 0, 0]);
        if let Some(priority) = priority {
            body.extend([8_u16.to_ne_bytes(), PRIORITY.to_ne_bytes()].concat());
            body.extend(priority.to_ne_bytes());
        }
        message(RULE, &body)
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        netlink::message(kind, 0, body)
    }

    #[test]
    fn a_rule_that_is_not_always_there_is_found() {
        let standard = [rule(None), rule(Some(32766)), rule(Some(32767))].concat();
        let done = message(DONE, &[0; 4]);
        assert_eq!(answer(&standard), Answer::More);
        assert_eq!(answer(&[standard.clone(), done].concat()), Answer::Ended);
        assert_eq!(answer(&[standard, rule(Some(32765))].concat()), Answer::Own);
        assert_eq!(answer(&message(ERROR, &[0; 20])), Answer::Refused);
    }

    #[test]
    fn the_kernel_answers() {
        any_own().expect("Linux has rules of routing");
    }
}
