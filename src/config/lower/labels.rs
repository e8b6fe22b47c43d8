//! What the labels of a container may not say.
//!
//! The author of an image can write labels, too, and a container may run what its host knows
//! little of. So a label starts nothing on the machine that portway runs on, asks nothing of its
//! routing, and opens no port on the router unless `[docker] allow_router` says so. What
//! `[defaults]` says of these is not meant for containers either.

use crate::config::{
    lower::{hosts::HostsText, overrides::Overrides, router::Wish},
    text::{Code, Diagnostics, Located, Setting, Span},
};

/// Notes what labels say and may not, and takes from a mapping what it would get of `[defaults]`.
pub(crate) fn restrict(
    own: &mut Overrides,
    hosts: Option<&HostsText>,
    span: Span,
    may_open_router: bool,
    diagnostics: &mut Diagnostics,
) {
    let wakes = hosts.into_iter().flat_map(|hosts| &hosts.items).map(|host| &host.wake);
    let wakes = wakes.chain([&own.options.wake]).filter_map(Setting::given);
    for given in wakes.filter(|given| given.value.is_some()) {
        diagnostics
            .problem(Code::MisplacedKey, given.span, "a label cannot say what portway starts (`wake`)")
            .hint("put this mapping into a file");
    }
    if let Some(given) = own.options.transparent.given().filter(|given| given.value) {
        diagnostics
            .problem(Code::MisplacedKey, given.span, "a label cannot ask for `transparent`")
            .hint("it needs rights and routing of this machine: put this mapping into a file");
    }
    own.options.wake = Setting::Set(Located { value: None, span });
    own.options.transparent = Setting::Set(Located { value: false, span });
    if may_open_router {
        return;
    }
    if let Some(given) = own.router.given().filter(|given| given.value != Wish::Closed) {
        diagnostics
            .problem(Code::MisplacedKey, given.span, "labels may not open ports on the router")
            .hint("say allow_router = true in [docker], or put this mapping into a file");
    }
    own.router = Setting::Set(Located { value: Wish::Closed, span });
}
