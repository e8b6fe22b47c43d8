//! A relay as a process: started on its core, watched from outside, ended with all that it started.
//!
//! It leads a process group of its own, which is how its workers and children are found, and it dies with us
//! (`setpriv --pdeathsig`). Its CPU time is the kernel's own nanosecond clock of each process, plus what reaped
//! children left behind; its memory is anonymous and shared-memory pages, each divided by the number of processes that
//! map it, because program text says nothing about sessions.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::time::ClockId;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    clock::{self, wait_for},
    kernel::Rules,
};

/// How long a relay may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(3);
/// How long a relay may be busy after its start.
const REST_WITHIN: Duration = Duration::from_secs(30);
/// A relay rests while it uses less than this share of a core.
const RESTING: f64 = 0.02;
/// The unit of the times in `/proc/PID/stat` and `/proc/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

/// The cores of each program.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    /// All that we may use.
    usable: Vec<usize>,
    /// The relay's.
    pub(crate) relay: usize,
    /// Ours: load and target.
    pub(crate) load: usize,
}

impl Cores {
    /// Takes the first and the last core that we may use, and moves this process to the latter.
    pub(crate) fn claim() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("read the allowed cores")?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let (Some(&relay), Some(&load)) = (usable.first(), usable.last()) else {
            bail!("no core is allowed")
        };
        let mut ours = CpuSet::new();
        ours.set(load);
        sched_setaffinity(None, &ours).context("pin the load")?;
        Ok(Self { usable, relay, load })
    }

    /// Whether relay and load have a core each.
    pub(crate) fn apart(&self) -> bool {
        self.relay != self.load
    }

    /// The first cores, as `taskset` takes them. On a machine with two, the second of two is the load's, too.
    pub(crate) fn first(&self, count: usize) -> String {
        let cores: Vec<String> = self.usable.iter().take(count).map(usize::to_string).collect();
        cores.join(",")
    }
}

/// A running relay.
pub(crate) struct Process {
    /// None where the kernel forwards, or nothing does.
    program: Option<Program>,
    /// The kernel's rules in its place.
    _rules: Option<Rules>,
}

struct Program {
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts a program on some cores, silent unless its error output is wanted.
    pub(crate) fn start(command: &[String], cores: &str, home: &Path, show_stderr: bool) -> Result<Self> {
        let mut pinned = Command::new("setpriv");
        pinned.args(["--pdeathsig", "TERM", "taskset", "-c", cores]).args(command);
        // Whatever a program keeps beside its work (a control socket, a pid file) stays in the temporary directory.
        pinned.env("RUNTIME_DIRECTORY", home).env("XDG_RUNTIME_DIR", home).current_dir(home);
        pinned.stdin(Stdio::null()).stdout(Stdio::null());
        pinned.stderr(if show_stderr { Stdio::inherit() } else { Stdio::null() });
        std::os::unix::process::CommandExt::process_group(&mut pinned, 0);
        let child = pinned.spawn().context("start setpriv and taskset (package util-linux)")?;
        let pid =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process without an id")?;
        Ok(Self { program: Some(Program { child, pid }), _rules: None })
    }

    /// In the place of a relay that is no program: it costs no time and no memory of any process.
    pub(crate) fn none(rules: Option<Rules>) -> Self {
        Self { program: None, _rules: rules }
    }

    /// Fails if the relay has ended by itself.
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.program.as_ref().is_some_and(|program| is_over(program.pid.as_raw_nonzero().get())) {
            bail!("the relay ended by itself");
        }
        Ok(())
    }

    /// Sends the relay itself a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let program = self.program.as_ref().context("there is no program to signal")?;
        kill_process(program.pid, signal).context("signal the relay")
    }

    /// User and system seconds of the whole tree so far.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let mut total = 0.0;
        for member in self.members()? {
            // A member may end between the look and the question; its time is then in its parent's sum.
            let Ok(id) = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(member.pid)) else { continue };
            let Ok(time) = nix::time::clock_gettime(id) else { continue };
            total += Duration::from(time).as_secs_f64() + member.reaped;
        }
        Ok(total)
    }

    /// KiB of memory of the whole tree.
    pub(crate) fn memory(&self) -> Result<f64> {
        let mut total = 0.0;
        for member in self.members()? {
            let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", member.pid)).unwrap_or_default();
            total += field(&rollup, "Pss_Anon:") + field(&rollup, "Pss_Shmem:");
        }
        Ok(total)
    }

    /// The memory once it has stopped falling for `calm`, or after ten times that.
    pub(crate) fn settled_memory(&self, calm: Duration) -> Result<f64> {
        let started = clock::now();
        let mut lowest = f64::MAX;
        let mut since = started;
        wait_for("the memory to settle", calm * 12, || {
            let current = self.memory()?;
            if current < lowest - 64.0 {
                (lowest, since) = (current, clock::now());
            }
            let over = since.elapsed() >= calm || started.elapsed() >= calm * 10;
            Ok(over.then_some(lowest.min(current)))
        })
    }

    /// Waits until it has nothing to do: what it still does after its start is no part of the work. One that never rests
    /// is not waited for.
    pub(crate) fn rested(&self, calm: Duration) -> Result<()> {
        let (mut cpu, mut since) = (self.cpu()?, clock::now());
        let _ = wait_for("the relay to rest", REST_WITHIN, || {
            if since.elapsed() < calm {
                return Ok(None);
            }
            let used = self.cpu()? - cpu;
            (cpu, since) = (cpu + used, clock::now());
            Ok((used < RESTING * calm.as_secs_f64()).then_some(()))
        });
        Ok(())
    }

    fn members(&self) -> Result<Vec<Member>> {
        let Some(program) = &self.program else { return Ok(Vec::new()) };
        let group = program.pid.as_raw_nonzero().get();
        let entries = fs::read_dir("/proc").context("read /proc")?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        Ok(pids.filter_map(Member::read).filter(|member| member.group == group).collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(Program { child, pid }) = &mut self.program else { return };
        let leader = pid.as_raw_nonzero().get();
        // The leader is reaped after the whole group was signalled, so its number cannot belong to another process.
        let _ = kill_process_group(*pid, Signal::TERM);
        let _ = wait_for("the relay to end", END_WITHIN, || Ok(is_over(leader).then_some(())));
        let _ = kill_process_group(*pid, Signal::KILL);
        let _ = child.wait();
    }
}

/// Seconds in which the machine's processors were busy, for whatever reason, since it was started.
pub(crate) fn busy_machine() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // User, nice, system, idle, waiting for a disk, interrupts, soft interrupts; guests are in the first two again.
    let [user, nice, system, _, _, hard, soft, ..] = ticks[..] else {
        bail!("/proc/stat begins with {line}")
    };
    Ok((user + nice + system + hard + soft) / TICKS_PER_SECOND)
}

/// How many descriptors a process may have, ours and each relay.
pub(crate) fn descriptors() -> usize {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

/// Seconds of this process: of load and target.
pub(crate) fn own_cpu() -> Result<f64> {
    let time =
        nix::time::clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("read our own CPU time")?;
    Ok(Duration::from(time).as_secs_f64())
}

/// A process of the group, as `/proc/PID/stat` has it.
struct Member {
    pid: i32,
    group: i32,
    /// Seconds of its reaped children.
    reaped: f64,
}

impl Member {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name stands in parentheses and may hold anything; what follows the last one is numbers.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self {
            pid,
            group: fields.get(2)?.parse().ok()?,
            reaped: (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND,
        })
    }
}

/// Whether a process of ours has ended (it stays a zombie until we reap it).
fn is_over(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
