//! `portway demo`: a complete example with nothing set up.
//!
//! A web page and a UDP echo run as targets inside the program, on loopback and on ports that the
//! system chooses. In front of them, the real daemon runs a real configuration file, on ports that
//! are easy to type. A few visitors come by, so that the windows have something to show. What a
//! person can do next is printed, then the log goes on as always. The file and the socket are in a
//! directory of the demo's own, which it removes at its end.

mod targets;
#[cfg(feature = "api")]
mod visitors;

use std::{
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use super::{FAILED, code_of, print, say, start};
use crate::{
    config::{self, Source, System},
    daemon::{self, Options},
};

/// Where the first free pair of ports is looked for.
const FIRST_PORT: u16 = 8080;
/// Where the first free port for the dashboard is looked for.
#[cfg(feature = "api")]
const FIRST_API_PORT: u16 = 7678;
const TRIES: u16 = 100;

/// Where the demo is.
struct Places {
    /// The directory of its own.
    directory: PathBuf,
    web: u16,
    echo: u16,
    #[cfg(feature = "api")]
    api: u16,
}

/// Runs the demo until it is stopped.
pub(super) fn run() -> ExitCode {
    let (web, echo) = match daemon::hold_signals().and_then(|()| targets::start()) {
        Ok(addrs) => addrs,
        Err(error) => return failed(&format!("start the targets: {error}")),
    };
    let Some((web_port, echo_port)) = free_ports() else {
        return failed("no free port on 127.0.0.1 between 8080 and 8180");
    };
    #[cfg(feature = "api")]
    let Some(api) = (FIRST_API_PORT..FIRST_API_PORT + TRIES).find(is_free_tcp) else {
        return failed("no free port on 127.0.0.1 between 7678 and 7778");
    };
    let directory = match directory() {
        Ok(directory) => directory,
        Err(error) => {
            return failed(&format!("make a directory in {}: {error}", std::env::temp_dir().display()));
        }
    };
    let places = Places {
        directory,
        web: web_port,
        echo: echo_port,
        #[cfg(feature = "api")]
        api,
    };
    let code = serve(&places, web, echo);
    // Nothing is lost if it stays: it is in the directory for temporary files.
    let _ = fs::remove_dir_all(&places.directory);
    code
}

fn failed(why: &str) -> ExitCode {
    say(&format!("portway demo: {why}"));
    ExitCode::from(FAILED)
}

fn serve(places: &Places, web: SocketAddr, echo: SocketAddr) -> ExitCode {
    let file = places.directory.join("portway.toml");
    if let Err(error) = fs::write(&file, places.configuration(web, echo)) {
        return failed(&format!("write {}: {error}", file.display()));
    }
    if let Err(error) = print(&places.invitation(&file))
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return code_of(Err(error), ExitCode::SUCCESS);
    }
    #[cfg(feature = "api")]
    if let Err(error) = visitors::start(places.web, places.echo) {
        say(&format!("portway demo: no visitors come: {error}"));
    }
    let source = Source { file: Some(file), ..Source::default() };
    // Where one of its ports is taken meanwhile, half a demo is of no use.
    let options = Options { strict: true, ..Options::default() };
    start(Arc::new(move || config::load(&source, &System)), options, daemon::Given::default())
}

impl Places {
    /// The configuration. A demo has no sessions to wait for: Ctrl-C ends it.
    fn configuration(&self, web: SocketAddr, echo: SocketAddr) -> String {
        let Self { web: web_port, echo: echo_port, .. } = self;
        let mut text = format!(
            "[[mapping]]\nname = \"web\"\npublish = \"127.0.0.1:{web_port}:{web}\"\n\n\
             [[mapping]]\nname = \"echo\"\npublish = \"127.0.0.1:{echo_port}:{echo}/udp\"\n\n\
             [shutdown]\ngrace = \"0s\"\n"
        );
        #[cfg(feature = "api")]
        {
            // By `Debug`, quotes and backslashes are as TOML wants them.
            let path = |name: &str| format!("{:?}", self.directory.join(name).to_string_lossy());
            let _ = write!(
                text,
                "\n[api]\nlisten = \"127.0.0.1:{}\"\nsocket = {}\nmanaged = {}\n",
                self.api,
                path("portway.sock"),
                path("managed.toml")
            );
        }
        text
    }

    fn invitation(&self, file: &Path) -> String {
        let Self { web, echo, .. } = self;
        let mut text = String::from(
            "portway demo: two mappings on this machine, with a target behind each\n\nTry them:\n\n",
        );
        #[cfg(feature = "api")]
        let _ = writeln!(
            text,
            "  open   http://127.0.0.1:{}/            the dashboard: visitors come and go",
            self.api
        );
        let _ = write!(
            text,
            "  open   http://127.0.0.1:{web}/            in a browser, or: curl http://127.0.0.1:{web}/\n  \
             type   nc -u 127.0.0.1 {echo}              and some words: each line comes back\n"
        );
        #[cfg(feature = "api")]
        {
            let socket = self.directory.join("portway.sock");
            let _ = writeln!(text, "  run    portway status --socket {}", socket.display());
        }
        let _ = write!(
            text,
            "\nIts configuration is {}.\n\
             Each connection ends with a line `session ended` below. Ctrl-C stops the demo.\n",
            file.display()
        );
        text
    }
}

/// A directory of the demo's own.
fn directory() -> io::Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("portway-demo-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&directory)?;
    Ok(directory)
}

fn is_free_tcp(port: &u16) -> bool {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
}

/// A TCP and a UDP port on 127.0.0.1 that are free now, one after the other. If another program
/// takes one before the daemon binds it, the start fails and names that program.
fn free_ports() -> Option<(u16, u16)> {
    let is_free_udp = |port: &u16| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let web = (FIRST_PORT..FIRST_PORT + TRIES).find(is_free_tcp)?;
    let echo = (web + 1..FIRST_PORT + TRIES + 1).find(is_free_udp)?;
    Some((web, echo))
}
