//! Machines beside this one, each a network of its own on a cable. They go away with the process that holds them.

use std::{
    fs::File,
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Program, eventually, run};

/// A neighbour of this network: a network of its own, on a cable.
#[derive(Debug)]
pub(crate) struct Neighbour(Child);

impl Neighbour {
    /// Joins it by a cable with these addresses: ours, and its own. Its default route leads here.
    #[track_caller]
    pub(crate) fn join(cable: &str, here: (&str, &str), own: (&str, &str)) -> Self {
        let mut hold = Command::new("unshare");
        hold.args(["--net", "--", "sleep", "infinity"]).stdin(Stdio::null());
        let neighbour = Self(hold.spawn().expect("unshare is there"));
        eventually("the neighbour has a network of its own", || {
            let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            (of(&neighbour.0.id().to_string()) != of("self")).then_some(())
        });
        let (theirs, pid) = (format!("{cable}-far"), neighbour.0.id());
        run(&format!("ip link add {cable} type veth peer name {theirs} netns {pid}"));
        for (ip, length) in [(here.0, 24), (here.1, 64)] {
            run(&format!("ip addr add {ip}/{length} dev {cable} {}", nodad(ip)));
        }
        run(&format!("ip link set {cable} up"));
        neighbour.run("ip link set lo up");
        for (ip, length) in [(own.0, 24), (own.1, 64)] {
            neighbour.run(&format!("ip addr add {ip}/{length} dev {theirs} {}", nodad(ip)));
        }
        neighbour.run(&format!("ip link set {theirs} up"));
        for ip in [here.0, here.1] {
            neighbour.run(&format!("ip route add default via {ip}"));
        }
        for ip in [own.0, own.1] {
            let at = SocketAddr::new(ip.parse().expect("an address"), 9);
            // Nothing listens there, and only the neighbour itself can say so.
            eventually(&format!("{ip} answers"), || {
                let refused = TcpStream::connect_timeout(&at, Duration::from_secs(1)).err()?;
                (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
            });
        }
        neighbour
    }

    fn words(&self, command: &str) -> Vec<String> {
        let enter = format!("--net=/proc/{}/ns/net", self.0.id());
        let words = ["nsenter", &enter, "--"].into_iter().chain(command.split_whitespace());
        words.map(str::to_owned).collect()
    }

    /// Runs a program in its network to its end, and gives what it says.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        run(&self.words(command).join(" ")).out
    }

    /// Starts a program in its network.
    pub(crate) fn start(&self, command: &str) -> Program {
        let words = self.words(command);
        Program::start(&words[0], &words[1..].iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Its network, for a thread that moves there.
    #[track_caller]
    pub(crate) fn network(&self) -> Network {
        Network::of(self.0.id())
    }

    /// Runs `body` on a thread in its network; sockets made there stay there.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let network = self.network();
        let entered = move || {
            network.enter();
            body()
        };
        std::thread::scope(|scope| match scope.spawn(entered).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// The network of a neighbour.
#[derive(Debug)]
pub(crate) struct Network(File);

impl Network {
    /// That of a process.
    #[track_caller]
    pub(super) fn of(pid: u32) -> Self {
        Self(File::open(format!("/proc/{pid}/ns/net")).expect("the process lives"))
    }

    /// Moves this thread there, and the threads that it starts from now on.
    #[track_caller]
    pub(crate) fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter a network");
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nodad(ip: &str) -> &'static str {
    if ip.contains(':') { "nodad" } else { "" }
}
