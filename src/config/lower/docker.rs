//! `[docker]`: the engine whose containers declare mappings by their labels, and what they may say.
//!
//! Does not connect: `sources::docker` does.

use crate::{
    config::text::{Code, Keys, Reader, Span, Text},
    engine::EngineAddress,
};

/// Which engine is asked, and what a label may say (`[docker]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerSettings {
    /// Where the engine is.
    pub(crate) engine: EngineAddress,
    /// What the names of portway's labels begin with, without the dot.
    pub(crate) label_prefix: String,
    /// The network by which containers are reached; `None` is `"auto"`.
    pub(crate) network: Option<String>,
    /// Whether a label may open a port on the router.
    pub(crate) allow_router: bool,
}

/// `[docker]` as it is written.
#[derive(Clone, Debug)]
pub(crate) struct DockerText {
    /// The place to blame where the engine does not answer.
    pub(crate) span: Span,
    pub(crate) settings: DockerSettings,
}

/// The name of no network in particular.
pub(crate) const AUTO: &str = "auto";
const PREFIX: &str = "portway";

impl DockerText {
    /// Reads `[docker]`, whose header is at `span`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>, span: Span) -> Self {
        let socket = keys.get("socket").and_then(|v| reader.text("socket", v));
        let prefix = keys.get("label_prefix").and_then(|v| reader.text("label_prefix", v));
        let network = keys.get("network").and_then(|v| reader.text("network", v));
        let allow_router = keys.get("allow_router").and_then(|v| reader.flag("allow_router", v));
        let at = socket.as_ref().map_or(span, Text::span);
        Self {
            span: at,
            settings: DockerSettings {
                engine: engine(reader, socket),
                label_prefix: prefix
                    .and_then(|text| label_prefix(reader, &text))
                    .unwrap_or_else(|| PREFIX.into()),
                network: network.and_then(|text| self::network(reader, text)),
                allow_router: allow_router.unwrap_or(false),
            },
        }
    }

    /// Notes that this build does not ask engines.
    pub(crate) fn check(&self, reader: &mut Reader<'_>) {
        if !cfg!(feature = "docker") {
            let message = "[docker] has no effect: this portway was built without it";
            reader.diagnostics.warning(Code::Unsupported, self.span, message).hint("remove it");
        }
    }
}

fn engine(reader: &mut Reader<'_>, text: Option<Text>) -> EngineAddress {
    let usual = || EngineAddress::DOCKER.parse().expect("the path of a socket");
    let Some(text) = text else { return usual() };
    text.value.parse().unwrap_or_else(|error: crate::engine::NoAddress| {
        reader.refuse_text::<()>("the engine", &text, &error.to_string(), EngineAddress::FORMS);
        usual()
    })
}

fn label_prefix(reader: &mut Reader<'_>, text: &Text) -> Option<String> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-/".contains(&c);
    let is_prefix = !text.value.is_empty()
        && text.value.len() <= 128
        && text.value.bytes().all(plain)
        && !text.value.starts_with('.')
        && !text.value.ends_with('.');
    if !is_prefix {
        let hint = "write what labels begin with, without the last dot, as in \"portway\"";
        return reader.refuse_text("the prefix", text, "is not one of labels", hint);
    }
    Some(text.value.clone())
}

/// The name of a network, or nothing for the word that leaves the choice.
fn network(reader: &mut Reader<'_>, text: Text) -> Option<String> {
    if text.value.trim().is_empty() {
        return reader.refuse_text(
            "the network",
            &text,
            "is empty",
            "name one, as `docker network ls` shows it",
        );
    }
    (text.value != AUTO).then_some(text.value)
}
