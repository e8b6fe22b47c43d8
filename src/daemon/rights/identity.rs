//! Names of users and groups to numbers, by the system's own database.
//!
//! A static program reads `/etc/passwd` and `/etc/group` alone. A number needs no entry there.

use std::{ffi::CString, io};

use nix::unistd::{self, Group, User, getgrouplist};
use rustix::process::{Gid, Uid};

use super::UserError;
use crate::config::RunAs;

/// Who a process is.
#[derive(Debug)]
pub(super) struct Identity {
    /// The user.
    pub(super) uid: Uid,
    /// The group.
    pub(super) gid: Gid,
    /// Every group, with that one.
    pub(super) groups: Vec<Gid>,
}

impl Identity {
    /// Looks the user up.
    ///
    /// # Errors
    /// It does not exist, or the system does not say.
    pub(super) fn of(wanted: &RunAs) -> Result<Self, UserError> {
        let lookup = |error: nix::Error| UserError::Lookup(wanted.clone(), error.into());
        let number = wanted.user.parse::<u32>().ok();
        let user = match number {
            Some(uid) => User::from_uid(unistd::Uid::from_raw(uid)),
            None => User::from_name(&wanted.user),
        };
        let user = user.map_err(lookup)?;
        let uid = match (&user, number) {
            (Some(user), _) => user.uid.as_raw(),
            (None, Some(uid)) => uid,
            (None, None) => return Err(unknown("user", &wanted.user)),
        };
        let gid = match &wanted.group {
            Some(group) => group_of(group, wanted)?,
            // As with `useradd`: the group of a user has its number.
            None => user.as_ref().map_or(uid, |user| user.gid.as_raw()),
        };
        let named = user.and_then(|user| CString::new(user.name).ok());
        let groups = match named {
            Some(name) => getgrouplist(&name, unistd::Gid::from_raw(gid)).map_err(lookup)?,
            None => vec![unistd::Gid::from_raw(gid)],
        };
        let groups = groups.into_iter().map(|group| Gid::from_raw(group.as_raw())).collect();
        Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups })
    }
}

fn group_of(name: &str, wanted: &RunAs) -> Result<u32, UserError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let group =
        Group::from_name(name).map_err(|error| UserError::Lookup(wanted.clone(), io::Error::from(error)))?;
    group.map(|group| group.gid.as_raw()).ok_or_else(|| unknown("group", name))
}

fn unknown(what: &'static str, name: &str) -> UserError {
    let cure = match what {
        "user" => format!(
            "make it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`, or name another one; in an \
             image without /etc/passwd, write its number"
        ),
        _ => format!("make it with `groupadd --system {name}`, or name another one"),
    };
    UserError::Unknown { what, name: name.to_owned(), cure }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Identity, UserError> {
        Identity::of(&RunAs::parse(text).unwrap())
    }

    #[test]
    fn names_and_numbers_are_found_and_a_number_needs_no_entry() {
        let root = of("root").unwrap();
        assert!(root.uid.is_root() && root.gid.is_root() && root.groups.contains(&Gid::ROOT));
        let numbers = of("54321:54322").unwrap();
        assert_eq!((numbers.uid.as_raw(), numbers.gid.as_raw()), (54321, 54322));
        assert_eq!(numbers.groups, [Gid::from_raw(54322)]);
        assert_eq!(of("54321").unwrap().gid.as_raw(), 54321);
        assert_eq!(of("54321:root").unwrap().gid.as_raw(), 0);
    }

    #[test]
    fn who_does_not_exist_is_named_with_the_cure() {
        let user = of("no-such-user").unwrap_err().to_string();
        assert!(user.contains("no user \"no-such-user\"") && user.contains("useradd"), "{user}");
        let group = of("root:no-such-group").unwrap_err().to_string();
        assert!(group.contains("no group \"no-such-group\"") && group.contains("groupadd"), "{group}");
    }
}
