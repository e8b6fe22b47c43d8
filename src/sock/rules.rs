//! The rules of routing that someone has made, read from the kernel.
//!
//! Three rules are always there: the tables `local`, `main` and `default`. Any further one is an
//! administrator's.

use std::io;

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv,
        sendto, socket_with,
    },
};

/// Asks for all rules of a family.
const GET_RULES: u16 = 34;
/// One rule.
const RULE: u16 = 32;
/// The end of the answer.
const DONE: u16 = 3;
/// An answer that is an error.
const ERROR: u16 = 2;
/// A question that wants the whole list.
const REQUEST_DUMP: u16 = 0x301;
/// The attribute that says where a rule stands among the others.
const PRIORITY: u16 = 6;
/// The length of the head of each message, and of the head of a rule in it.
const HEAD: usize = 16;
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
    // No protocol is that of routing.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sendto(&socket, &question(family), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; 32 * 1024];
    for _ in 0..MOST_ANSWERS {
        // The kernel answers at once, so there is nothing to wait for.
        let (length, _) = recv(&socket, &mut buffer, RecvFlags::DONTWAIT)?;
        match answer(&buffer[..length.min(buffer.len())]) {
            Answer::Own => return Ok(true),
            Answer::Ended => return Ok(false),
            Answer::Refused => return Err(Errno::NOTSUP.into()),
            Answer::More => {}
        }
    }
    Ok(true)
}

fn question(family: AddressFamily) -> Vec<u8> {
    let length = u32::try_from(HEAD + RULE_HEAD).unwrap_or_default();
    let mut question = Vec::with_capacity(HEAD + RULE_HEAD);
    question.extend(length.to_ne_bytes());
    question.extend(GET_RULES.to_ne_bytes());
    question.extend(REQUEST_DUMP.to_ne_bytes());
    question.extend(1_u32.to_ne_bytes());
    question.extend(0_u32.to_ne_bytes());
    question.push(u8::try_from(family.as_raw()).unwrap_or_default());
    question.resize(HEAD + RULE_HEAD, 0);
    question
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

fn answer(mut rest: &[u8]) -> Answer {
    while let Some((length, kind)) = u32_at(rest, 0).zip(u16_at(rest, 4)) {
        let Some(message) = usize::try_from(length).ok().and_then(|length| rest.get(HEAD..length)) else {
            break;
        };
        match kind {
            DONE => return Answer::Ended,
            ERROR => return Answer::Refused,
            RULE if !STANDARD.contains(&priority(message)) => return Answer::Own,
            _ => {}
        }
        rest = rest.get((HEAD + message.len()).next_multiple_of(4)..).unwrap_or_default();
    }
    Answer::More
}

/// Where a rule stands; a rule without a word on it stands first.
fn priority(rule: &[u8]) -> u32 {
    let mut rest = rule.get(RULE_HEAD..).unwrap_or_default();
    while let Some((length, kind)) = u16_at(rest, 0).zip(u16_at(rest, 2)) {
        if kind == PRIORITY {
            return u32_at(rest, 4).unwrap_or_default();
        }
        rest = rest.get(usize::from(length).next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    0
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
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
        let mut message = u32::try_from(HEAD + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEAD, 0);
        message.extend(body);
        message
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
    fn no_bytes_break_it() {
        let whole = [rule(None), rule(Some(32766))].concat();
        for end in 0..whole.len() {
            let _ = answer(&whole[..end]);
        }
        assert_eq!(answer(&[0; 64]), Answer::More);
        assert_eq!(answer(&[0xff; 64]), Answer::More);
    }

    #[test]
    fn the_kernel_answers() {
        any_own().expect("Linux has rules of routing");
    }
}
