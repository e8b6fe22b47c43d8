//! The packages: what `.ci/package` makes, installed and upgraded under a real systemd.
//!
//! They hold the program under test, without its symbols.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::harness::{
    Client, Ran, Suite, SystemdLab, TcpTarget, echoes, mapping, own_addr, portway_program, under_bare_systemd,
};

const TOOLS: [&str; 6] = ["cargo", "cargo-deb", "dpkg", "flock", "python3", "strip"];
const CLIENTS: usize = 100;
/// Where the packages are inside the lab.
const OLD: &str = "/packages/old.deb";
const NEW: &str = "/packages/new.deb";
const CONFIG: &str = "/etc/portway/portway.toml";

/// Makes one kind of package, in a directory, with a version.
fn package(kind: &str, dir: &Path, version: &str) -> PathBuf {
    let program = dir.join("portway");
    Ran::of(Command::new("strip").arg("-o").arg(&program).arg(portway_program())).exits(0);
    let out = dir.join(version);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/package");
    let mut command = Command::new(script);
    command.arg("-f").arg("-p").arg(&program).args(["-v", version]).arg("-o").arg(&out).arg(kind);
    // One at a time: packages are put together in one place.
    static ONE: Mutex<()> = Mutex::new(());
    let held = ONE.lock();
    Ran::of(&mut command).exits(0);
    drop(held);
    let files = fs::read_dir(&out).expect("the packages").map(|entry| entry.expect("an entry").path());
    let mut made = files.filter(|path| path.extension().is_some_and(|extension| extension == kind));
    made.next().expect("a package")
}

fn is_there(lab: &SystemdLab, path: &str) -> bool {
    lab.try_run(&format!("test -e {path}")).code == Some(0)
}

/// Uses the mapping all the time: `CLIENTS` sessions that stay, and new ones. Returns how many of each failed while `work` ran,
/// and how many new ones there were.
fn under_load(at: SocketAddr, work: impl FnOnce()) -> (usize, usize, usize) {
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::to(at)).collect();
    clients.iter_mut().for_each(Client::ping);
    let (ended, tried, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let stay = scope.spawn(|| {
            let mut live: Vec<bool> = clients.iter().map(|_| true).collect();
            loop {
                let is_last = ended.load(Ordering::Relaxed);
                for (client, live) in clients.iter_mut().zip(&mut live) {
                    *live = *live && client.still_echoes();
                }
                if is_last {
                    return live.iter().filter(|live| !**live).count();
                }
            }
        });
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                tried.fetch_add(1, Ordering::Relaxed);
                if !echoes(at) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        work();
        ended.store(true, Ordering::Relaxed);
        (stay.join().expect("it counts"), failed.load(Ordering::Relaxed), tried.load(Ordering::Relaxed))
    })
}

/// What every package brings, whatever it is for.
const PARTS: [&str; 7] = [
    "/usr/bin/portway",
    "/usr/lib/systemd/system/portway.service",
    "/usr/lib/systemd/system/portway.socket",
    "/usr/lib/sysusers.d/portway.conf",
    "/usr/lib/tmpfiles.d/portway.conf",
    "/usr/share/bash-completion/completions/portway",
    "/usr/share/doc/portway/portway.cdx.json",
];

/// Whether a list of files has these.
#[track_caller]
fn has_parts(holds: &str, more: &[&str]) {
    for part in PARTS.iter().chain(more) {
        assert!(holds.lines().any(|line| line == *part), "no {part} in {holds}");
    }
}

/// After a fresh install: it runs as its own user, and opens nothing until it is configured.
#[track_caller]
fn runs_and_opens_nothing(lab: &SystemdLab) {
    assert_eq!(lab.run("systemctl is-enabled portway.service").trim(), "enabled");
    assert_eq!(lab.show("ActiveState"), "active", "it starts at once");
    assert_eq!(lab.run("ss -Hltun").trim(), "", "it opens nothing until it is configured");
    assert_ne!(lab.run("ps -o user= -C portway").trim(), "root");
    lab.run("portway status");
}

/// Configures a mapping, and upgrades with `command` while clients use it: none of them fails, and another process serves
/// with the same configuration.
#[track_caller]
fn upgrades_under_load(lab: &SystemdLab, command: &str) -> (TcpTarget, SocketAddr) {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    lab.configure(&mapping(at, target.addr, "max_sessions_per_client = \"unlimited\""));
    lab.run("systemctl reload portway");
    let (before, edited) = (lab.show("MainPID"), lab.run(&format!("cat {CONFIG}")));
    let (broken, failed, tried) = under_load(at, || drop(lab.run(command)));
    println!("upgrade: {tried} new connections, {failed} failed; {broken} of {CLIENTS} sessions broke");
    assert_eq!((broken, failed), (0, 0), "of {tried} new connections");
    assert!(tried > 0);
    assert_ne!(lab.show("MainPID"), before, "another process serves");
    assert_eq!(lab.run(&format!("cat {CONFIG}")), edited, "an edited configuration stays");
    assert!(echoes(at));
    (target, at)
}

/// With a configuration that is wrong, `command` upgrades too, and what runs stays as it is.
#[track_caller]
fn outlives_a_wrong_configuration(lab: &SystemdLab, at: SocketAddr, command: &str) {
    let (before, good) = (lab.show("MainPID"), lab.run(&format!("cat {CONFIG}")));
    let mut client = Client::to(at);
    client.ping();
    lab.configure("publish = [\"nonsense\"]\n");
    let ran = lab.sh(command);
    assert!(ran.err.contains("the old program runs on"), "{}{}", ran.out, ran.err);
    client.ping();
    assert_eq!((lab.show("ActiveState"), lab.show("MainPID")), ("active".to_owned(), before));
    lab.configure(&good);
}

#[test]
fn the_debian_package_installs_upgrades_under_load_and_leaves_what_it_should() {
    the_debian_package_works(Suite::Trixie);
}

#[test]
fn the_debian_package_works_on_the_release_before() {
    the_debian_package_works(Suite::Bookworm);
}

fn the_debian_package_works(suite: Suite) {
    let dir = tempfile::tempdir().expect("a directory");
    let files =
        || vec![(package("deb", dir.path(), "1.0-1"), OLD), (package("deb", dir.path(), "1.1-1"), NEW)];
    under_bare_systemd(suite, &TOOLS, files, |lab| {
        lab.run(&format!("dpkg -i {OLD}"));
        runs_and_opens_nothing(lab);
        has_parts(
            &lab.run("dpkg -L portway"),
            &[
                "/usr/share/man/man8/portway.8.gz",
                "/usr/share/man/man8/portway-status.8.gz",
                "/usr/share/zsh/vendor-completions/_portway",
                "/usr/share/fish/vendor_completions.d/portway.fish",
                "/usr/share/portway/portway.schema.json",
                "/usr/share/doc/portway/THIRD-PARTY.txt",
                "/usr/share/doc/portway/copyright",
            ],
        );

        let (_target, at) = upgrades_under_load(lab, &format!("dpkg -i {NEW}"));
        assert!(lab.run("dpkg-query -W portway").contains("1.1-1"));
        outlives_a_wrong_configuration(lab, at, &format!("dpkg -i {NEW}"));

        lab.run("dpkg -r portway");
        assert!(!echoes(at) && lab.sh("pgrep -x portway").out.is_empty(), "it has stopped");
        assert!(
            is_there(lab, CONFIG) && is_there(lab, "/var/lib/portway") && !is_there(lab, "/usr/bin/portway")
        );
        lab.run(&format!("dpkg -i {NEW}"));
        assert!(echoes(at), "an install after a remove goes on as it was");
        lab.run("dpkg -P portway");
        for gone in
            ["/etc/portway", "/var/lib/portway", "/run/portway", "/usr/lib/systemd/system/portway.service"]
        {
            assert!(!is_there(lab, gone), "{gone} is left: {}", lab.sh(&format!("ls -lR {gone}")).out);
        }
        assert_ne!(lab.try_run("getent passwd portway").code, Some(0), "the user is left");
    });
}

#[test]
fn the_rpm_package_installs_upgrades_under_load_and_leaves_what_it_should() {
    const TOOLS: [&str; 5] = ["cargo", "cargo-generate-rpm", "flock", "python3", "strip"];
    const OLD: &str = "/packages/old.rpm";
    const NEW: &str = "/packages/new.rpm";
    let dir = tempfile::tempdir().expect("a directory");
    let files =
        || vec![(package("rpm", dir.path(), "1.0-1"), OLD), (package("rpm", dir.path(), "1.1-1"), NEW)];
    under_bare_systemd(Suite::Trixie, &TOOLS, files, |lab| {
        // No package of this Debian is one of RPM's, not even the shell.
        let rpm = |words: &str| lab.run(&format!("rpm {words}"));
        rpm(&format!("-i --nodeps {OLD}"));
        runs_and_opens_nothing(lab);
        has_parts(
            &rpm("-ql portway"),
            &[
                "/usr/share/man/man8/portway.8",
                "/usr/share/zsh/site-functions/_portway",
                "/usr/share/fish/vendor_completions.d/portway.fish",
                "/usr/share/portway/portway.schema.json",
                "/usr/share/licenses/portway/LICENSE",
                "/usr/share/licenses/portway/THIRD-PARTY.txt",
            ],
        );
        assert_eq!(rpm("-qc portway").trim(), CONFIG);

        let (_target, at) = upgrades_under_load(lab, &format!("rpm -U --nodeps {NEW}"));
        assert_eq!(rpm("-q portway").lines().count(), 1, "the old one is gone");
        assert!(rpm("-q portway").contains("1.1"));
        assert!(!is_there(lab, "/etc/portway/portway.toml.rpmnew"), "the shipped file is the same as before");
        outlives_a_wrong_configuration(lab, at, &format!("rpm -U --nodeps --oldpackage {OLD}"));

        rpm("-e portway");
        assert!(!echoes(at) && lab.sh("pgrep -x portway").out.is_empty(), "it has stopped");
        assert_ne!(lab.try_run("systemctl is-enabled portway.service").code, Some(0));
        // RPM keeps a changed configuration under another name, and what the service has written.
        let mut left: Vec<String> = lab
            .run("find / -xdev ( -path /proc -o -path /packages ) -prune -o -name *portway* -print")
            .lines()
            .map(str::to_owned)
            .collect();
        left.sort();
        let kept =
            ["/etc/portway", "/etc/portway/portway.toml.rpmsave", "/var/lib/portway", "/var/log/portway"];
        assert_eq!(left, kept);
        rpm(&format!("-i --nodeps {NEW}"));
        assert_eq!(lab.show("ActiveState"), "active", "an install after a removal starts it again");
        rpm("-e portway");
    });
}
