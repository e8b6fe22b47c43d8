//! The head of an HTTP answer, over TCP or in a datagram, read leniently.
//!
//! Owns the lines before the body. Pure. Routers break the rules of heads in ways that mean only
//! one thing, and other programs accept them: a space before a colon, a value on the lines that
//! follow (RFC 9112, sections 5.1 and 5.2), line feeds alone, a status without a text. Lines that
//! mean nothing are skipped. The caller bounds the length.

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The status code.
    pub(super) status: u16,
    /// The protocol's version is 1.0, where a connection ends with its answer.
    pub(super) is_old: bool,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; `None` where the first line is not a status.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.trim_start_matches(['\r', '\n']).lines();
        let mut first = lines.next()?.split_whitespace();
        let version = first.next()?.strip_prefix("HTTP/1.")?;
        let status = first.next()?.parse().ok().filter(|status| (100..1000).contains(status))?;
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines {
            match (line.starts_with([' ', '\t']), line.split_once(':'), fields.last_mut()) {
                (true, _, Some((_, value))) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                (_, Some((name, value)), _) => fields.push((name.trim().to_owned(), value.trim().to_owned())),
                (_, None, _) => {}
            }
        }
        Some(Self { status, is_old: version == "0", fields })
    }

    /// The values of the fields of this name, in any spelling.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str) -> Option<Vec<String>> {
        Head::parse(text).map(|head| head.values("content-length").map(str::to_owned).collect())
    }

    #[test]
    fn a_field_is_read_however_its_line_is_written() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
            "HTTP/1.1 200 OK\r\nCONTENT-LENGTH : 12\r\n\r\n",
            "HTTP/1.0 200\ncontent-length:12\n\n",
            "\r\nHTTP/1.1  200 \r\nContent-Length:\r\n 12\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded under nothing\r\nno colon\r\n: x\r\nContent-Length:\r\n\t12\r\n",
        ] {
            assert_eq!(lengths(head), Some(vec!["12".to_owned()]), "{head:?}");
        }
        let folded = Head::parse("HTTP/1.1 200 OK\r\nA: b\r\n c: d\r\n").unwrap();
        assert_eq!(folded.values("a").collect::<Vec<_>>(), ["b c: d"]);
    }

    #[test]
    fn what_has_no_status_is_not_an_answer() {
        for text in
            ["", "\r\n", "NOTIFY * HTTP/1.1\r\n", "HTTP/2 200\r\n", "HTTP/1.1 OK\r\n", "HTTP/1.1 20\r\n"]
        {
            assert_eq!(Head::parse(text), None, "{text:?}");
        }
    }
}
