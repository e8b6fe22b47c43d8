//! The texts of other tools as the text of a file of portway.
//!
//! Owns which tool a text is for ([`Kind`]), what is understood of it ([`Imported`]), and how that
//! is written. A reader a kind fills [`Imported`]; none knows another. Pure, and no text makes it
//! fail: what is not understood is a loss with its place. Knows no file and not whether portway
//! takes what is written: the caller tries that.

#[cfg(any(test, fuzzing))]
pub(crate) mod claims;
mod compose;
mod detect;
mod dnat;
mod frp;
mod haproxy;
mod iptables;
mod model;
mod nft;
mod nginx;
mod rathole;
mod realm;
mod rinetd;
mod shell;
mod socat;
mod ssh;
mod systemd;
mod tree;
mod words;
mod write;

pub(crate) use detect::Kind;
#[cfg(test)]
pub(crate) use model::Value;
pub(crate) use model::{File, Imported};
#[cfg(test)]
pub(crate) use write::value;
pub(crate) use write::{Written, told, written};

/// Where a PROXY header of every peer is believed, as before.
const EVERY_PROXY: &str = "Name the proxies in `accept_proxy`: this believes everyone, as before.";
/// What a tunnel had.
const TUNNEL: &str = "portway makes no tunnel: it has to reach the target from where it listens";

/// The files by their kinds, in the order of the kinds' first files; and those of no known kind.
pub(crate) fn sorted<'t>(
    texts: &'t [(String, String)],
    from: Option<Kind>,
) -> (Vec<(Kind, Vec<File<'t>>)>, Vec<&'t str>) {
    let (mut kinds, mut unknown): (Vec<(Kind, Vec<File<'t>>)>, _) = (Vec::new(), Vec::new());
    for (number, (name, text)) in texts.iter().enumerate() {
        let file = File { number, name, text };
        let Some(kind) = from.or_else(|| Kind::of(file)) else {
            unknown.push(&**name);
            continue;
        };
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, files)) => files.push(file),
            None => kinds.push((kind, vec![file])),
        }
    }
    (kinds, unknown)
}

/// What is in the files.
pub(crate) fn read(files: &[(Kind, Vec<File<'_>>)]) -> Imported {
    let mut into = Imported::default();
    for (kind, files) in files {
        let read: fn(File<'_>, &mut Imported) = match kind {
            Kind::Rinetd => rinetd::read,
            Kind::Haproxy => haproxy::read,
            Kind::Nginx => nginx::read,
            Kind::Realm => realm::read,
            Kind::Compose => compose::read,
            Kind::Socat => socat::read,
            Kind::Ssh => ssh::read,
            Kind::Iptables => iptables::read,
            Kind::Nft => nft::read,
            Kind::Systemd => {
                systemd::read(files, &mut into);
                continue;
            }
            Kind::Frp => {
                frp::read(files, &mut into);
                continue;
            }
            Kind::Rathole => {
                rathole::read(files, &mut into);
                continue;
            }
        };
        files.iter().for_each(|file| read(*file, &mut into));
    }
    into.mappings.sort_by_key(|mapping| mapping.place);
    into
}
