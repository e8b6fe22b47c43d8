//! The packages: what `.ci/package` makes, installed and upgraded under a real systemd.
//!
//! They hold the program under test, without its symbols.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::harness::{
    Client, Ran, Suite, SystemdLab, TcpTarget, as_root, echoes, mapping, own_addr, portway_program,
    under_bare_systemd,
};

const TOOLS: [&str; 6] = ["cargo", "cargo-deb", "dpkg", "flock", "python3", "strip"];
const CLIENTS: usize = 100;
/// Where the packages are inside the lab.
const OLD: &str = "/packages/old.deb";
const NEW: &str = "/packages/new.deb";

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
fn under_load(at: std::net::SocketAddr, work: impl FnOnce()) -> (usize, usize, usize) {
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

#[test]
fn the_debian_package_installs_upgrades_under_load_and_leaves_what_it_should() {
    let dir = tempfile::tempdir().expect("a directory");
    let files =
        || vec![(package("deb", dir.path(), "1.0-1"), OLD), (package("deb", dir.path(), "1.1-1"), NEW)];
    under_bare_systemd(Suite::Trixie, &TOOLS, files, |lab| {
        let config = "/etc/portway/portway.toml";
        lab.run(&format!("dpkg -i {OLD}"));
        assert_eq!(lab.run("systemctl is-enabled portway.service").trim(), "enabled");
        assert_eq!(lab.show("ActiveState"), "active", "it starts at once");
        assert_eq!(lab.run("ss -Hltun").trim(), "", "it opens nothing until it is configured");
        assert_ne!(lab.run("ps -o user= -C portway").trim(), "root");
        lab.run("portway status");
        let holds = lab.run("dpkg -L portway");
        for part in [
            "/usr/share/man/man8/portway.8.gz",
            "/usr/share/man/man8/portway-status.8.gz",
            "/usr/share/bash-completion/completions/portway",
            "/usr/share/zsh/vendor-completions/_portway",
            "/usr/share/fish/vendor_completions.d/portway.fish",
            "/usr/lib/sysusers.d/portway.conf",
            "/usr/lib/tmpfiles.d/portway.conf",
            "/usr/share/doc/portway/THIRD-PARTY.txt",
            "/usr/share/doc/portway/portway.cdx.json",
            "/usr/share/doc/portway/copyright",
        ] {
            assert!(holds.lines().any(|line| line == part), "no {part} in {holds}");
        }

        let target = TcpTarget::echo();
        let at = own_addr(8080);
        lab.configure(&mapping(at, target.addr, "max_sessions_per_client = \"unlimited\""));
        lab.run("systemctl reload portway");
        let (before, edited) = (lab.show("MainPID"), lab.run(&format!("cat {config}")));
        let (broken, failed, tried) = under_load(at, || drop(lab.run(&format!("dpkg -i {NEW}"))));
        println!("upgrade: {tried} new connections, {failed} failed; {broken} of {CLIENTS} sessions broke");
        assert_eq!((broken, failed), (0, 0), "of {tried} new connections");
        assert!(tried > 0);
        assert_ne!(lab.show("MainPID"), before, "another process serves");
        assert!(lab.run("dpkg-query -W portway").contains("1.1-1"));
        assert_eq!(lab.run(&format!("cat {config}")), edited, "an edited configuration stays");
        assert!(echoes(at));

        lab.run("dpkg -r portway");
        assert!(!echoes(at) && lab.sh("pgrep -x portway").out.is_empty(), "it has stopped");
        assert!(
            is_there(lab, config) && is_there(lab, "/var/lib/portway") && !is_there(lab, "/usr/bin/portway")
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
fn the_rpm_package_has_the_same_parts_and_scripts_that_are_shell() {
    as_root(&["cargo", "cargo-generate-rpm", "flock", "python3", "rpm", "strip"], || {
        let dir = tempfile::tempdir().expect("a directory");
        let rpm = package("rpm", dir.path(), "1.0-1");
        let ask = |what: &[&str]| Ran::of(Command::new("rpm").arg("-qp").args(what).arg(&rpm)).exits(0).out;
        let holds = ask(&["-l"]);
        for part in [
            "/usr/bin/portway",
            "/usr/lib/systemd/system/portway.service",
            "/usr/lib/systemd/system/portway.socket",
            "/usr/lib/sysusers.d/portway.conf",
            "/usr/lib/tmpfiles.d/portway.conf",
            "/usr/share/man/man8/portway.8",
            "/usr/share/bash-completion/completions/portway",
            "/usr/share/zsh/site-functions/_portway",
            "/usr/share/fish/vendor_completions.d/portway.fish",
            "/usr/share/licenses/portway/LICENSE",
            "/usr/share/licenses/portway/THIRD-PARTY.txt",
            "/usr/share/doc/portway/portway.cdx.json",
        ] {
            assert!(holds.lines().any(|line| line == part), "no {part} in {holds}");
        }
        assert_eq!(ask(&["-c"]).trim(), "/etc/portway/portway.toml");
        let scripts = ask(&["--scripts"]);
        for part in ["systemctl enable portway.service", "portway upgrade", "systemctl stop portway.service"]
        {
            assert!(scripts.contains(part), "no {part} in {scripts}");
        }
        for tag in ["%{POSTIN}", "%{PREUN}", "%{POSTUN}"] {
            let script = dir.path().join("script");
            fs::write(&script, ask(&["--qf", tag])).expect("the test's own");
            Ran::of(Command::new("sh").arg("-n").arg(&script)).exits(0);
        }
    });
}
