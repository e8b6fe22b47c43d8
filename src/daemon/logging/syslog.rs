//! Messages of syslog.
//!
//! Owns the two forms: [`local`] for `/dev/log` (RFC 3164, as syslog(3) writes it, without the name
//! of the machine), and [`remote`] for a server (RFC 5424, the fields as structured data). Knows no
//! socket. Invariants: a message is one line without a character that a terminal obeys. It is
//! bounded, so that it fits into a datagram: what is too long ends with `…`.

use std::fmt::{self, Write as _};

use tracing::Level;

use super::{
    json,
    local_time::LocalTime,
    record::{Record, start_of},
    text::{self, Text},
};
use crate::{config::LogFormat, text::Escaping};

/// The facility of daemons (RFC 5424, table 1).
const FACILITY: u8 = 3;
/// The name of the program.
const TAG: &str = "portway";
/// What names the fields: the number is the one that is kept for programs without their own (RFC
/// 5612).
const STRUCTURE: &str = "portway@32473";
/// The longest name of a field (RFC 5424, section 6.3.3).
const LONGEST_NAME: usize = 32;
/// The longest value of a field, and the longest message.
const LONGEST_VALUE: usize = 1024;
const LONGEST_MESSAGE: usize = 8192;

/// The number of a level (RFC 5424, table 2) with the facility.
fn priority(level: Level) -> u8 {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    FACILITY * 8 + severity
}

/// Appends the message of a record for the syslog of this machine.
pub(super) fn local(out: &mut Vec<u8>, record: Record<'_>, format: LogFormat) {
    let start = out.len();
    let (priority, pid) = (priority(record.level), std::process::id());
    // A vector takes all.
    let _ = write!(Text(out), "<{priority}>{} {TAG}[{pid}]:", Bsd(LocalTime::at(record.at)));
    match format {
        LogFormat::Text => text::body(out, record, false),
        LogFormat::Json => {
            out.push(b' ');
            json::line(out, record);
            // The datagram is the end of the message.
            out.pop();
        }
    }
    if let Ok(message) = str::from_utf8(&out[start..]) {
        let (kept, mark) = start_of(message, LONGEST_MESSAGE);
        out.truncate(start + kept.len());
        out.extend_from_slice(mark.as_bytes());
    }
}

/// A time as RFC 3164 has it: `Nov  9 13:46:51`.
struct Bsd(LocalTime);

impl fmt::Display for Bsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let LocalTime { month, day, hour, minute, second } = self.0;
        let month = MONTHS[usize::from(month) % MONTHS.len()];
        write!(f, "{month} {day:2} {hour:02}:{minute:02}:{second:02}")
    }
}

/// Appends the message of a record for a server.
pub(super) fn remote(out: &mut Vec<u8>, record: Record<'_>, host: &str) {
    let (priority, pid) = (priority(record.level), std::process::id());
    let _ = write!(Text(out), "<{priority}>1 ");
    text::stamp(out, record.at);
    let _ = write!(Text(out), " {host} {TAG} {pid} - ");
    let mut is_first = true;
    for field in record.fields().filter(|field| field.name != "message") {
        if std::mem::take(&mut is_first) {
            let _ = write!(Text(out), "[{STRUCTURE}");
        }
        out.push(b' ');
        let plain = |c: u8| c.is_ascii_graphic() && !matches!(c, b'=' | b']' | b'"');
        out.extend(field.name.bytes().take(LONGEST_NAME).map(|c| if plain(c) { c } else { b'_' }));
        out.extend_from_slice(b"=\"");
        let (value, mark) = start_of(field.value, LONGEST_VALUE);
        let _ = Escaping(Param(out)).write_str(value);
        let _ = write!(Text(out), "{mark}\"");
    }
    out.push(if is_first { b'-' } else { b']' });
    let (message, mark) = start_of(record.message(), LONGEST_VALUE);
    if !message.is_empty() {
        out.push(b' ');
        let _ = write!(Escaping(Text(out)), "{message}{mark}");
    }
}

/// Appends the message of a record for a stream: behind its length (RFC 6587, section 3.4.1).
pub(super) fn framed(out: &mut Vec<u8>, record: Record<'_>, host: &str) {
    let start = out.len();
    remote(out, record, host);
    let length = format!("{} ", out.len() - start);
    out.splice(start..start, length.into_bytes());
}

/// A value of structured data: three characters are escaped (RFC 5424, section 6.3.3).
struct Param<'a>(&'a mut Vec<u8>);

impl fmt::Write for Param<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.bytes() {
            if matches!(c, b'"' | b'\\' | b']') {
                self.0.push(b'\\');
            }
            self.0.push(c);
        }
        Ok(())
    }
}

/// The name of this machine as a message has it: visible characters, or `-`.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fits = (1..=255).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_graphic());
    if fits { name } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::logging::record::{Records, tests::records_of};

    fn messages(say: impl FnOnce(), form: impl Fn(&mut Vec<u8>, Record<'_>)) -> Vec<String> {
        let records = records_of(say);
        let message = |record| {
            let mut out = Vec::new();
            form(&mut out, record);
            String::from_utf8(out).unwrap()
        };
        Records::of(&records).map(message).collect()
    }

    #[test]
    fn a_message_for_a_server_has_the_fields_as_structured_data() {
        let say = || {
            tracing::info!(client.addr = %"[2001:db8::1]:9", odd = "a \"b\" \\ ]\n", "session ended");
            tracing::error!("ünï");
            tracing::debug!("a name with spaces, and too many characters" = 1);
        };
        let said = messages(say, |out, record| remote(out, record, "host"));
        let pid = std::process::id();
        let rest: Vec<(&str, &str)> = said
            .iter()
            .map(|line| line.split_once(" host ").unwrap())
            .map(|(head, rest)| (head.split_once(' ').unwrap().0, rest))
            .collect();
        assert_eq!(
            rest,
            [
                (
                    "<30>1",
                    &*format!(
                        "portway {pid} - [portway@32473 client.addr=\"[2001:db8::1\\]:9\" \
                         odd=\"a \\\"b\\\" \\\\ \\]\\\\n\"] session ended"
                    )
                ),
                ("<27>1", &*format!("portway {pid} - - ünï")),
                (
                    "<31>1",
                    &*format!("portway {pid} - [portway@32473 a_name_with_spaces,_and_too_many=\"1\"]")
                ),
            ]
        );
        assert!(said[0].get(6..33).is_some_and(|stamp| stamp.ends_with('Z')), "{}", said[0]);
    }

    #[test]
    fn a_message_on_a_stream_has_its_length_in_bytes_before_it() {
        let said = messages(|| tracing::warn!("ünï"), |out, record| framed(out, record, "host"));
        let (length, message) = said[0].split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), message.len());
        assert!(message.starts_with("<28>1 "), "{message}");
    }

    #[test]
    fn a_message_for_this_machine_is_that_of_syslog() {
        let say = || tracing::warn!(failures = 3_u64, error = %"one\ntwo", "cannot accept");
        let said = messages(say, |out, record| local(out, record, LogFormat::Text));
        let pid = std::process::id();
        let (head, rest) = said[0].split_at(19);
        assert!(
            head.starts_with("<28>") && head.as_bytes()[7] == b' ' && head.as_bytes()[16] == b':',
            "{head}"
        );
        assert_eq!(rest, format!(" portway[{pid}]: cannot accept failures=3 error=one\\ntwo"));
        let said = messages(say, |out, record| local(out, record, LogFormat::Json));
        let json = said[0].split_once("]: ").unwrap().1;
        assert!(json.starts_with("{\"timestamp\":") && json.ends_with('}'), "{json}");
    }

    #[test]
    fn a_day_has_two_places() {
        let time = LocalTime { month: 10, day: 9, hour: 3, minute: 4, second: 5 };
        assert_eq!(Bsd(time).to_string(), "Nov  9 03:04:05");
    }

    #[test]
    fn what_is_too_long_is_cut_with_a_mark() {
        let long = "ü".repeat(LONGEST_MESSAGE);
        let say = || tracing::info!(long, "{long}");
        let said = messages(say, |out, record| local(out, record, LogFormat::Text)).remove(0);
        assert!(said.len() <= LONGEST_MESSAGE + 3 && said.ends_with('…'), "{}", said.len());
        let said = messages(say, |out, record| remote(out, record, "host")).remove(0);
        assert!(said.len() < 2 * LONGEST_VALUE + 200 && said.ends_with('…'), "{}", said.len());
        assert!(said.contains("…\"] ü"), "{said}");
    }
}
