//! When the machine gives no thread and no descriptor, when a file does not answer, and when a part of the daemon stands.

use std::{fs, net::SocketAddr, time::Duration};

use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
    thread::sched_getaffinity,
};

use crate::harness::{
    Client, Portway, Setup, TcpTarget, echoes, eventually, eventually_within, mapping, messages, own_addr,
    own_ip, run, with_tools,
};

/// A user of no other test: threads are counted for each.
fn own_user(nth: u32) -> u32 {
    100_000 + std::process::id() * 16 + nth
}

/// With so many threads, soft and hard, for its user.
fn threads(setup: Setup, limit: u32) -> Setup {
    setup.through(["prlimit", &format!("--nproc={limit}:{limit}"), "--"])
}

/// Comes up, or says `cause` and ends with 1; never anything else.
#[track_caller]
fn serves_or_says(setup: Setup, cause: &str, what: &str) -> bool {
    let mut portway = setup.launch();
    let came_up = eventually(what, || {
        if portway.log().contains(" ready ") { Some(true) } else { (!portway.runs()).then_some(false) }
    });
    if came_up {
        portway.stop().with(0);
    } else {
        let exit = portway.exit().with(1).says(cause);
        assert!(!exit.log.contains("panicked"), "{what}: {}", exit.log);
    }
    came_up
}

#[test]
fn a_start_without_enough_threads_says_so_and_ends() {
    with_tools(&["setpriv", "prlimit"], || {
        let target = own_addr(8000);
        let came_up: Vec<bool> = (1..=12)
            .map(|limit| {
                let setup =
                    Portway::publishing(&format!("{}:{target}", own_addr(8080))).user(own_user(limit));
                serves_or_says(threads(setup, limit), "thread", &format!("a limit of {limit} threads"))
            })
            .collect();
        assert!(!came_up[..3].contains(&true), "{came_up:?}");
    });
}

#[test]
fn a_start_without_enough_descriptors_says_so_and_ends() {
    let target = own_addr(8000);
    let came_up: Vec<bool> = (6..=40)
        .step_by(2)
        .map(|limit| {
            let setup = Portway::publishing(&format!("{}:{target}", own_addr(8080))).descriptors(limit);
            serves_or_says(setup, "descriptor", &format!("a limit of {limit} descriptors"))
        })
        .collect();
    assert_eq!((came_up.first(), came_up.last()), (Some(&false), Some(&true)), "{came_up:?}");
}

#[test]
fn a_reload_without_a_thread_is_refused_and_the_next_one_works() {
    with_tools(&["setpriv", "prlimit"], || {
        let target = TcpTarget::echo();
        let (first, second) = (own_addr(8080), own_addr(8081));
        let one = mapping(first, target.addr, "");
        let both = one.clone() + &mapping(second, target.addr, "");
        let user = own_user(0);
        let mut portway = Portway::with(&one).user(user).start();
        let pid = portway.pid();
        let limit = |threads: &str| {
            let user = format!("setpriv --reuid {user} --regid {user} --clear-groups");
            run(&format!("{user} prlimit --pid {pid} --nproc={threads}:"));
        };
        limit("1");
        let line = portway.refused_reload_with(&both);
        assert!(line.text("error").contains("thread"), "{}", line.raw());
        Client::to(first).ping();
        limit("1000");
        portway.reload_with(&both);
        Client::to(second).ping();
        let exit = portway.stop().with(0);
        assert!(!exit.log.contains("panicked"), "{}", exit.log);
    });
}

#[test]
fn a_pipe_in_the_place_of_a_state_file_stops_no_listener_on_one_processor() {
    with_tools(&["taskset"], || {
        let target = TcpTarget::echo();
        let allowed = sched_getaffinity(None).expect("the kernel tells");
        let processor = (0..1024).find(|n| allowed.is_set(*n)).expect("a processor").to_string();
        for file in ["router.json", "router.lock", "bans.json"] {
            let (dir, at) = (tempfile::tempdir().expect("a temporary directory"), own_addr(8080));
            let pipe = dir.path().join(file);
            mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
            let bans = dir.path().join("bans.json");
            let guard =
                format!("[guard]\nrefusals = \"10/min\"\nban = \"1h\"\nstate = \"{}\"\n", bans.display());
            let portway = Portway::with(&(mapping(at, target.addr, "") + &guard))
                .env("STATE_DIRECTORY", &dir.path().display().to_string())
                .through(["taskset", "-c", &processor])
                .start();
            for _ in 0..5 {
                Client::to(at).ping();
            }
            portway.stop().with(0);
        }
    });
}

#[test]
fn reloads_work_while_clients_hold_every_place_that_is_theirs() {
    let target = TcpTarget::echo();
    let (at, ip) = (own_addr(8080), own_ip());
    let terms = "max_sessions_per_client = \"unlimited\"\ndeny = [\"@none\"]";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let list = dir.path().join("none.txt");
    fs::write(&list, "192.0.2.1\n").expect("the test's own directory");
    let one =
        mapping(at, target.addr, terms) + &format!("[lists]\nnone = {{ file = \"{}\" }}\n", list.display());
    let many = |count: u16, grace: u32| {
        let more = format!("[[mapping]]\npublish = \"{ip}:9000-{}:{}\"\n", 8999 + count, target.addr);
        format!("{one}{more}[shutdown]\ngrace = \"{grace}s\"\n")
    };
    let mut portway = Portway::with(&one).descriptors(256).start();
    portway.reload_with(&many(100, 1));
    let _clients: Vec<Client> = (0..200).map(|_| Client::to(at)).collect();
    portway.wait_text(messages::NO_ROOM_FOR_MORE_SESSIONS);
    // The last of these open further listeners.
    for n in 0..10 {
        portway.reload_with(&many(100 + n, 2 + u32::from(n)));
    }
    assert!(portway.runs());
}

/// The threads on which the tasks of a daemon run.
fn workers(portway: &Portway) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{}/task", portway.pid())).expect("it runs").flatten();
    let ids = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let id: i32 = task.file_name().to_str()?.parse().ok()?;
        (name.trim() == "portway" && id.cast_unsigned() != portway.pid()).then(|| Pid::from_raw(id))
    });
    ids.collect()
}

/// Stops single threads of a daemon, as a mistake that never returns would.
fn stop_threads(ids: &[Pid]) {
    for id in ids {
        ptrace::seize(*id, ptrace::Options::empty()).expect("root may trace any process");
        ptrace::interrupt(*id).expect("it was seized");
        let stopped = waitpid(*id, Some(WaitPidFlag::__WALL)).expect("it is traced");
        assert!(matches!(stopped, WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)), "{stopped:?}");
    }
}

#[test]
fn a_supervisor_that_stands_ends_the_process_and_a_process_that_was_stopped_goes_on() {
    with_tools(&[], || {
        let target = TcpTarget::echo();
        let (here, there) = (own_addr(8080), own_addr(8080));
        let start = |at: SocketAddr| Portway::with(&mapping(at, target.addr, "")).start();
        let (mut stands, mut stopped) = (start(here), start(there));
        let workers = workers(&stands);
        if workers.is_empty() {
            // One processor: the supervisor shares the first thread, which has to hear of the end.
            return;
        }
        stopped.signal(Signal::STOP);
        stop_threads(&workers);
        eventually_within(Duration::from_secs(90), "the watchdog ends the process", || {
            // A traced thread is gone when its tracer has seen its end.
            for worker in &workers {
                let _ = waitpid(*worker, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
            }
            (!stands.runs()).then_some(())
        });
        stands.exit().with(1).says("does not answer").says("supervisor");

        stopped.signal(Signal::CONT);
        Client::to(there).ping();
        stopped.reload_with(&mapping(there, target.addr, "name = \"same\""));
        assert!(echoes(there) && stopped.runs());
        stopped.stop().with(0);
    });
}
