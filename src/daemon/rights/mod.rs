//! The user that the daemon goes on as, where root has started it (`[daemon] user`, `--user`).
//!
//! The configuration is read first as root, for what must exist before: the directories and the
//! log file (`places`). Then [`give_up_root`] gives up all but the right to open ports below 1024,
//! which a reload may need, and CAP_NET_ADMIN where a mapping is `transparent` (`identity` has the
//! user and its groups). Then [the sandbox](super::sandbox) closes what is not needed, and the
//! program executes itself ([`super::again`] says why), once for both. The rights are ambient, so
//! that they outlive that, and a hand-over.
//!
//! The program that starts then is one that this user has started, and reads the configuration as
//! that user: what a reload could not read is found at the start. Invariant: the process never is
//! root again.

mod identity;
mod places;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use identity::Identity;
use rustix::{
    fs::{Access, access},
    io::Errno,
    process::{geteuid, getuid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
        set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::{again::execute_self, logging::for_stderr, sandbox, signals};
use crate::{
    config::{DaemonSettings, Loaded, Problems, RunAs},
    supervisor::PlanSource,
    text::escaped_lines,
};

/// The rights that a forwarder can need, with their names.
const RIGHTS: [(CapabilitySet, &str); 2] =
    [(CapabilitySet::NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"), (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN")];

/// Why the process cannot go on as the user that is named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Problems),
    /// This machine does not have it.
    #[error("this machine has no {what} {name:?}: {cure}")]
    Unknown {
        /// User or group.
        what: &'static str,
        /// Its name.
        name: String,
        /// What to do.
        cure: String,
    },
    /// Files of the configuration are for root alone.
    #[error(
        "the user {user} may not read {}: every reload would fail; `chgrp {group} FILE && chmod g+r FILE` lets it",
        list(files)
    )]
    Unreadable {
        /// The user.
        user: String,
        /// Its group, by number.
        group: u32,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Another user than root has started it.
    #[error(
        "only root can go on as {wanted}, and user {is} has started this: start it as root or as {wanted}, or leave out \
         [daemon] user and --user"
    )]
    NotRoot {
        /// The user that is named.
        wanted: RunAs,
        /// The number of the user that it is.
        is: u32,
    },
    /// The name came after the first look at the file.
    #[error(
        "[daemon] user came while portway started, or its file is not a regular one: start again, or use --user {0}"
    )]
    TooLate(RunAs),
    /// Signals cannot be held.
    #[error(transparent)]
    System(io::Error),
    /// The configuration is gone once it was read.
    #[error("the configuration comes out of {}, and cannot be read again as another user: put it into a file", .0.display())]
    Once(PathBuf),
    /// The system does not let it.
    #[error("go on as {user}: {step}: {error}{}", cure(*error))]
    Refused {
        /// The user.
        user: RunAs,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        error: Errno,
    },
    /// The system does not say who its users are.
    #[error("look for {0}: {1}")]
    Lookup(RunAs, io::Error),
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn cure(error: Errno) -> &'static str {
    match error {
        Errno::PERM => {
            "; root without CAP_SETUID and CAP_SETGID (a container with `cap_drop`?) cannot become another user: start \
             it as that user"
        }
        _ => "",
    }
}

/// Uses the rights that the process may use. A file can carry one that is not in force from the
/// start: so the program runs also where it cannot have the right. Only for the first thread.
pub(super) fn raise() {
    let Ok(mut sets) = capabilities(None) else { return };
    let all = RIGHTS.into_iter().fold(CapabilitySet::empty(), |all, (right, _)| all | right);
    let more = sets.permitted & all;
    if !sets.effective.contains(more) {
        sets.effective |= more;
        // Where that fails, a port below 1024 says what is missing.
        let _ = set_capabilities(None, sets);
    }
}

/// Whether the process is the user that the settings name.
///
/// # Errors
/// The process is another user, and cannot become that one now.
pub(super) fn check(settings: &DaemonSettings) -> Result<(), UserError> {
    let Some(user) = &settings.user else { return Ok(()) };
    if Identity::of(user)?.uid != geteuid() {
        return Err(if geteuid().is_root() {
            UserError::TooLate(user.clone())
        } else {
            UserError::NotRoot { wanted: user.clone(), is: getuid().as_raw() }
        });
    }
    Ok(())
}

/// Logs who the process is, where the settings name a user.
pub(super) fn tell(settings: &DaemonSettings) {
    let Some(user) = &settings.user else { return };
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let rights: Vec<_> = RIGHTS.into_iter().filter(|(right, _)| held.contains(*right)).collect();
    let rights = rights.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" ");
    tracing::info!(%user, rights, "no more rights than these");
}

/// Becomes the user that the configuration names, if this is root. Then it does not return: the
/// program starts once more. What was passed to this process by number is still there then.
///
/// # Errors
/// A configuration that is wrong, and a user that cannot be had.
pub(crate) fn give_up_root(source: &PlanSource) -> Result<(), UserError> {
    if !geteuid().is_root() {
        return Ok(());
    }
    signals::hold().map_err(UserError::System)?;
    let loaded = source()?;
    let Some(user) = loaded.settings.daemon.user.clone() else { return Ok(()) };
    let identity = Identity::of(&user)?;
    if identity.uid.is_root() {
        return Ok(());
    }
    let is_once = |file: &&PathBuf| fs::metadata(file).is_ok_and(|meta| !meta.is_file());
    if let Some(file) = loaded.read.files.iter().find(is_once) {
        return Err(UserError::Once(file.clone()));
    }
    let places = places::Places::of(&loaded);
    let mut troubles = places.prepare(&identity);
    let refused = |(step, error)| UserError::Refused { user: user.clone(), step, error };
    become_user(&identity, wanted(&loaded), &mut troubles).map_err(refused)?;
    troubles.extend(places.troubles(&identity));
    let unreadable = |path: &PathBuf| matches!(access(path, Access::READ_OK), Err(Errno::ACCESS));
    let files: Vec<PathBuf> = loaded.read.files.iter().filter(|file| unreadable(file)).cloned().collect();
    if !files.is_empty() {
        return Err(UserError::Unreadable { user: user.to_string(), group: identity.gid.as_raw(), files });
    }
    for trouble in troubles {
        say(&trouble);
    }
    let confined = sandbox::enter_before_exec(&loaded);
    let error = execute_self(confined.mark().as_ref());
    Err(refused(("execute /proc/self/exe (is /proc there?)", error)))
}

/// Tells a person, while there is no log yet.
fn say(trouble: &str) {
    let line = for_stderr(&escaped_lines(&format!("warning: {trouble}")));
    // This failure cannot be reported anywhere else.
    let _ = writeln!(io::stderr(), "{line}");
}

/// The rights that these mappings need. A reload may want a port below 1024 at any time.
fn wanted(loaded: &Loaded) -> CapabilitySet {
    let mut wanted = CapabilitySet::NET_BIND_SERVICE;
    wanted.set(
        CapabilitySet::NET_ADMIN,
        loaded.plan.listeners.values().any(|listener| listener.service.is_transparent()),
    );
    wanted
}

/// Becomes the user, with those of the rights that this process has.
fn become_user(
    identity: &Identity,
    wanted: CapabilitySet,
    troubles: &mut Vec<String>,
) -> Result<(), (&'static str, Errno)> {
    let at = |step| move |error| (step, error);
    let had = capabilities(None).map_err(at("read the rights"))?.permitted;
    let kept = wanted & had;
    let bounded = bound(kept);
    set_keep_capabilities(true).map_err(at("keep rights"))?;
    set_thread_groups(&identity.groups).map_err(at("set the groups"))?;
    set_thread_res_gid(identity.gid, identity.gid, identity.gid).map_err(at("set the group"))?;
    set_thread_res_uid(identity.uid, identity.uid, identity.uid).map_err(at("set the user"))?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).map_err(at("give up the rights"))?;
    let ambient: Result<(), Errno> =
        kept.iter().try_for_each(|right| configure_capability_in_ambient_set(right, true));
    let restricted = set_no_new_privs(true);
    for (what, done) in [
        ("programs that it starts could get other rights back", bounded),
        ("a program that takes over cannot open ports below 1024", ambient),
        ("programs that it starts could have more rights", restricted),
    ] {
        if let Err(error) = done {
            troubles.push(format!("this kernel does not let portway give up everything ({error}): {what}"));
        }
    }
    // What cannot happen is looked at all the same.
    let is_root_again = set_thread_res_uid(None, rustix::process::Uid::ROOT, None).is_ok();
    if is_root_again {
        return Err(("give up the user root", Errno::PERM));
    }
    Ok(())
}

/// Takes all but `kept` from what programs that this one starts could ever get.
fn bound(kept: CapabilitySet) -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        let right = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(right) {
            Ok(true) if !kept.contains(right) => remove_capability_from_bounding_set(right)?,
            Ok(_) => {}
            // The kernel has no more.
            Err(_) => break,
        }
    }
    Ok(())
}
