//! The keys of the PROXY protocol: `send_proxy` and `accept_proxy`.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    config::{
        lower::entries,
        text::{Code, Reader, Value, table::word},
    },
    policy::parse_net,
    preface::proxy::SendProxy,
};

/// Reads `send_proxy`.
pub(crate) fn send(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<SendProxy> {
    let all = [SendProxy::Off, SendProxy::V1, SendProxy::V2, SendProxy::V2Each];
    word(reader, key, value, &all.map(|send| (send.as_str(), send)))
}

/// Reads `accept_proxy`: the networks of the proxies whose header is believed.
pub(crate) fn accept(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Arc<[IpNet]>> {
    /// Every listener has a copy.
    const MOST: usize = 1000;
    let at = reader.span(value.span());
    let texts = reader.texts(key, at, value);
    let mut is_whole = texts.is_whole;
    if texts.items.len() > MOST {
        reader
            .diagnostics
            .problem(Code::TooMany, at, format!("`{key}` has more than {MOST} entries"))
            .hint("name the network of the proxies");
        return None;
    }
    let mut nets = Vec::with_capacity(texts.items.len());
    for text in texts.items {
        let span = text.span();
        if text.value.starts_with('@') {
            is_whole = false;
            reader
                .diagnostics
                .problem(Code::Unsupported, span, format!("`{key}` takes no list such as `{}`", text.value))
                .text(&text.value)
                .hint("write the addresses of the proxies here, as in [\"10.0.0.2\", \"10.1.0.0/24\"]");
            continue;
        }
        match parse_net(&text.value) {
            Ok(net) if net.prefix_len() == 0 => {
                nets.push(net);
                let message = format!("`{key}` believes everyone: any client can pretend to be another");
                reader
                    .diagnostics
                    .warning(Code::UnwiseValue, span, message)
                    .text(&text.value)
                    .hint("name only the proxies in front of this machine");
            }
            Ok(net) => {
                nets.push(net);
                entries::warn_of_host_bits(reader.diagnostics, span, &text.value);
            }
            Err(message) => {
                is_whole = false;
                entries::refuse(reader.diagnostics, span, message).text(&text.value);
            }
        }
    }
    is_whole.then(|| nets.into())
}
