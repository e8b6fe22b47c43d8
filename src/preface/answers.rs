//! What a client gets whose name leads nowhere, in the protocol that it speaks.

use std::borrow::Cow;

use super::verdict::Spoken;

/// Why a client gets no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No target has its name.
    UnknownName,
    /// It breaks the rules of its protocol.
    Invalid,
}

/// A fatal alert of TLS: `unrecognized_name` (RFC 6066, section 3).
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// A fatal alert of TLS: `decode_error`.
const DECODE_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 50];

const MISDIRECTED: &[u8] = b"HTTP/1.1 421 Misdirected Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 31\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nThis server has no such host.\r\n";

const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What to send before the connection is closed. For Minecraft it is nothing: a
/// [`StandIn`](super::minecraft::StandIn) answers such a client.
pub(crate) fn refusal(spoken: Spoken, why: Refused) -> Cow<'static, [u8]> {
    match (spoken, why) {
        (Spoken::Tls, Refused::UnknownName) => UNRECOGNIZED_NAME.into(),
        (Spoken::Tls, Refused::Invalid) => DECODE_ERROR.into(),
        (Spoken::Http1, Refused::UnknownName) => MISDIRECTED.into(),
        (Spoken::Http1, Refused::Invalid) => BAD_REQUEST.into(),
        (Spoken::Http2 { stream }, _) => http2(stream, why).into(),
        (Spoken::Minecraft, _) => Cow::default(),
    }
}

/// Frames of HTTP/2: the server's settings, which are first in any case; 421 for the request, if
/// there is one; the end of the connection.
fn http2(stream: Option<u32>, why: Refused) -> Vec<u8> {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const END_STREAM_AND_HEADERS: u8 = 0x5;
    const PROTOCOL_ERROR: u32 = 1;
    const NO_ERROR: u32 = 0;
    /// A field with the name of an entry of the static table and a value of its own: `:status:
    /// 421`.
    const STATUS_421: &[u8] = b"\x08\x03421";

    let mut frames = Vec::with_capacity(64);
    put_frame(&mut frames, SETTINGS, 0, 0, &[]);
    // That of the client's is taken note of.
    put_frame(&mut frames, SETTINGS, 1, 0, &[]);
    let error = match (stream, why) {
        (Some(stream), Refused::UnknownName) => {
            put_frame(&mut frames, HEADERS, END_STREAM_AND_HEADERS, stream, STATUS_421);
            NO_ERROR
        }
        (None, Refused::UnknownName) => NO_ERROR,
        (_, Refused::Invalid) => PROTOCOL_ERROR,
    };
    let mut content = [0; 8];
    content[..4].copy_from_slice(&stream.unwrap_or(0).to_be_bytes());
    content[4..].copy_from_slice(&error.to_be_bytes());
    put_frame(&mut frames, GOAWAY, 0, 0, &content);
    frames
}

fn put_frame(frames: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, content: &[u8]) {
    let [_, _, a, b] = (content.len() as u32).to_be_bytes();
    frames.extend_from_slice(&[0, a, b, kind, flags]);
    frames.extend_from_slice(&stream.to_be_bytes());
    frames.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_tls_gets_an_alert() {
        let answer = refusal(Spoken::Tls, Refused::UnknownName);
        assert_eq!(*answer, [0x15, 3, 3, 0, 2, 2, 0x70]);
    }

    #[test]
    fn a_client_of_http_gets_a_whole_response() {
        let answer = refusal(Spoken::Http1, Refused::UnknownName);
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        let length = response.parse(&answer).unwrap().unwrap();
        assert_eq!(response.code, Some(421));
        let header = |name: &str| {
            let header = response.headers.iter().find(|header| header.name == name).unwrap();
            str::from_utf8(header.value).unwrap()
        };
        assert_eq!(header("Content-Length"), (answer.len() - length).to_string());
        assert_eq!(header("Connection"), "close");
        assert!(refusal(Spoken::Http1, Refused::Invalid).starts_with(b"HTTP/1.1 400 "));
    }

    #[test]
    fn a_client_of_http2_gets_frames() {
        let settings = &b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0"[..];
        let end = |stream: u8, error: u8| {
            [&b"\0\0\x08\x07\0\0\0\0\0\0\0\0"[..], &[stream, 0, 0, 0, error]].concat()
        };
        let answer = |stream, why| refusal(Spoken::Http2 { stream }, why).into_owned();
        let response = &b"\0\0\x05\x01\x05\0\0\0\x03\x08\x03421"[..];
        assert_eq!(answer(Some(3), Refused::UnknownName), [settings, response, &end(3, 0)].concat());
        assert_eq!(answer(None, Refused::UnknownName), [settings, &end(0, 0)].concat());
        assert_eq!(answer(Some(1), Refused::Invalid), [settings, &end(1, 1)].concat());
    }

    #[test]
    fn minecraft_has_a_stand_in() {
        assert!(refusal(Spoken::Minecraft, Refused::UnknownName).is_empty());
    }
}
