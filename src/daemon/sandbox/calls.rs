//! The system calls that portway never makes, refused with `EPERM`: a filter of seccomp.
//!
//! It names what is refused and lets the rest pass: C libraries, the allocator and the runtime
//! change what they call from version to version, and a forwarder must not stop because of that.
//! Refused are the ways into the kernel and into other processes. `execve` stays: a hand-over needs
//! it. The crate's own compiler knows neither 32-bit ARM nor the second numbering of x86-64 (x32),
//! by which every refused call could be made. So the program of the filter is made here, and the
//! crate installs it.
//!
//! `clone3` is said to be missing: its flags lie in memory, where a filter cannot look, and the
//! libraries then use `clone`, whose flags are looked at.

use nix::libc::{self, c_long};
use seccompiler::sock_filter;

/// The calls.
const REFUSED: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    // Files without a path.
    libc::SYS_open_by_handle_at,
    // Parts of the kernel that a forwarder has no use for.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// The number of `kexec_file_load`, which the library does not have everywhere.
const KEXEC_FILE_LOAD: c_long = if cfg!(target_arch = "x86_64") {
    320
} else if cfg!(target_arch = "arm") {
    401
} else {
    294
};

/// The kernel's name for the numbering of this program's calls; `None` where this module does not
/// know it.
const NUMBERING: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else if cfg!(target_arch = "arm") {
    Some(0x4000_0028)
} else {
    None
};
/// Where the numbers of x32 begin.
const X32: u32 = 0x4000_0000;
/// Flags of `clone` that make a namespace.
const NEW_NAMESPACE: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// Where the filter finds things: `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

/// Refuses the calls to every thread, and to what is started later.
///
/// # Errors
/// Why that is not possible.
pub(super) fn refuse() -> Result<(), String> {
    let Some(numbering) = NUMBERING else {
        return Err("portway has no filter of system calls for this processor".into());
    };
    let filter = filter(numbering, REFUSED);
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| match error {
        seccompiler::Error::Seccomp(error) => format!("the system takes no filter of system calls: {error}"),
        error => error.to_string(),
    })
}

/// The program of the filter.
fn filter(numbering: u32, refused: &[c_long]) -> Vec<sock_filter> {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let number = |call: c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut program = vec![load(ARCH)];
    program.extend(unless(libc::BPF_JEQ, numbering, DENY));
    program.push(load(NUMBER));
    if cfg!(target_arch = "x86_64") {
        program.extend(when(libc::BPF_JGE, X32, DENY));
    }
    for call in refused {
        program.extend(when(libc::BPF_JEQ, number(*call), DENY));
    }
    program.extend(when(libc::BPF_JEQ, number(libc::SYS_clone3), ABSENT));
    program.extend(unless(libc::BPF_JEQ, number(libc::SYS_clone), ALLOW));
    program.push(load(FIRST_ARGUMENT));
    program.extend(when(libc::BPF_JSET, NEW_NAMESPACE, DENY));
    program.push(end(ALLOW));
    program
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), offset)
}

fn end(result: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, (0, 0), result)
}

/// Ends where the comparison holds.
fn when(comparison: u32, value: u32, result: u32) -> [sock_filter; 2] {
    [instruction(libc::BPF_JMP | comparison | libc::BPF_K, (0, 1), value), end(result)]
}

/// Ends where the comparison does not hold.
fn unless(comparison: u32, value: u32, result: u32) -> [sock_filter; 2] {
    [instruction(libc::BPF_JMP | comparison | libc::BPF_K, (1, 0), value), end(result)]
}

fn instruction(code: u32, (jt, jf): (u8, u8), k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("codes have eight bits"), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_fits_and_names_no_call_twice() {
        let program = filter(1, REFUSED);
        assert!(program.len() < 4096, "the kernel takes no more: {}", program.len());
        let mut calls = REFUSED.to_vec();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), REFUSED.len());
        assert!(!calls.contains(&libc::SYS_execve) && !calls.contains(&libc::SYS_clone));
    }
}
