//! Units of systemd that run socat, ssh or `systemd-socket-proxyd`, the latter with its `.socket`.

use super::{
    model::{File, Imported, Mapping, Place, Target, Value},
    shell, socat, ssh,
    words::{duration, host_and_port, is_ports, listener, target, why, words},
};

/// What a namespace means.
const NAMESPACE: &str = "the target is in another network namespace: portway has to run there, too";

/// A line of a unit: its section, its key, its value.
struct Line<'t> {
    place: Place,
    section: &'t str,
    key: &'t str,
    value: String,
}

/// Reads the units. A `.socket` and the service of the same name belong together.
pub(super) fn read(files: &[File<'_>], into: &mut Imported) {
    let units: Vec<(File<'_>, Vec<Line<'_>>)> = files.iter().map(|file| (*file, lines(*file))).collect();
    let sockets = || units.iter().filter(|(_, lines)| lines.iter().any(|line| line.section == "Socket"));
    let mut used = Vec::new();
    for (file, lines) in &units {
        let service =
            |key: &'static str| lines.iter().filter(move |line| line.section == "Service" && line.key == key);
        let mut variables = shell::Variables::default();
        for word in service("Environment").flat_map(|line| words(&line.value)) {
            if let Some((name, value)) = shell::assignment(&word) {
                variables.set(name, value);
            }
        }
        let named: Vec<String> = service("Sockets").flat_map(|line| words(&line.value)).collect();
        let commands = service("ExecStart").flat_map(|line| {
            let text = line.value.trim_start_matches(['-', '@', ':', '+', '!']);
            started(&variables, text).into_iter().map(move |command| (line, command))
        });
        for (line, command) in commands.collect::<Vec<_>>() {
            let program = &command[0];
            if socat::is_socat(program) {
                if let Some(mut mapping) = socat::command(line.place, &command[1..], into) {
                    mapping.name = unit(*file).to_owned();
                    into.add(mapping);
                }
            } else if ssh::is_ssh(program) {
                ssh::command(line.place, &command[1..], unit(*file), into);
            } else if program.ends_with("systemd-socket-proxyd") {
                let is_for = |other: File<'_>, lines: &[Line<'_>]| {
                    named.iter().any(|name| name.trim_end_matches(".socket") == unit(other))
                        || is_for(other, lines, *file)
                };
                let socket = sockets().find(|(other, lines)| is_for(*other, lines)).or_else(|| {
                    // One of each: they belong together, whatever they are called.
                    let mut all = sockets();
                    all.next().filter(|_| all.next().is_none() && units.len() <= 2)
                });
                used.extend(socket.map(|(file, _)| file.number));
                proxyd(line, (*file, lines), socket, &command[1..], into);
            } else {
                into.lose(line.place, program.clone(), "not socat, ssh or systemd-socket-proxyd");
            }
        }
    }
    for (file, _) in sockets().filter(|(file, _)| !used.contains(&file.number)) {
        into.lose(file.at(1), "[Socket]", "its service says where it leads: import both units together");
    }
}

/// The name of a unit, without its kind.
fn unit(file: File<'_>) -> &str {
    let name = file.name.rsplit('/').next().unwrap_or(file.name);
    name.rsplit_once('.').map_or(name, |(name, _)| name)
}

/// The commands that a line starts: a shell may start several.
fn started(variables: &shell::Variables, text: &str) -> Vec<Vec<String>> {
    let of_a_shell = |command: Vec<String>| match &*command {
        [program, option, script] if program.ends_with("sh") && option == "-c" => variables.commands(script),
        _ => vec![command],
    };
    variables.commands(text).into_iter().flat_map(of_a_shell).collect()
}

/// Whether a socket is for a service.
fn is_for(socket: File<'_>, lines: &[Line<'_>], service: File<'_>) -> bool {
    let named = lines.iter().find(|line| line.section == "Socket" && line.key == "Service");
    match named {
        Some(line) => line.value.trim_end_matches(".service") == unit(service),
        None => unit(socket) == unit(service),
    }
}

fn lines(file: File<'_>) -> Vec<Line<'_>> {
    let mut found: Vec<Line<'_>> = Vec::new();
    let (mut section, mut goes_on) = ("", false);
    for (place, line) in file.lines() {
        let line = line.trim();
        let (part, more) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        if std::mem::replace(&mut goes_on, more)
            && let Some(last) = found.last_mut()
        {
            last.value.push(' ');
            last.value.push_str(part.trim());
        } else if line.starts_with(['#', ';']) {
            goes_on = false;
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = part.split_once('=') {
            found.push(Line { place, section, key: key.trim(), value: value.trim().to_owned() });
        }
    }
    found
}

fn proxyd(
    line: &Line<'_>,
    (file, service): (File<'_>, &[Line<'_>]),
    socket: Option<&(File<'_>, Vec<Line<'_>>)>,
    arguments: &[String],
    into: &mut Imported,
) {
    let mut mapping =
        Mapping::at(line.place, format!("systemd-socket-proxyd {}", arguments.join(" ")), unit(file));
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
        let mut value = || {
            if value.is_empty() { arguments.next().cloned().unwrap_or_default() } else { value.to_owned() }
        };
        match key {
            "-c" | "--connections-max" => match value().parse::<u64>() {
                Ok(most) if most > 0 => mapping.set("max_sessions", Value::Number(most)),
                _ => mapping.lose(line.place, key, "not a number"),
            },
            "--exit-idle-time" => {
                value();
                mapping.lose(line.place, key, "portway keeps running; for the target there is `wake`");
            }
            option if option.starts_with('-') => {
                mapping.lose(line.place, option, "portway has no such option");
            }
            to => match to_target(to) {
                Some(target) => mapping.targets.push(Target::at(target)),
                None => mapping.lose(line.place, to, why(to, "portway leads to TCP ports alone")),
            },
        }
    }
    for line in service {
        let is_elsewhere = match line.key {
            "PrivateNetwork" => ["yes", "true", "on", "1"].contains(&line.value.as_str()),
            "NetworkNamespacePath" | "JoinsNamespaceOf" => true,
            _ => false,
        };
        if is_elsewhere {
            mapping.lose(line.place, format!("{}={}", line.key, line.value), NAMESPACE);
        }
    }
    let Some((_, lines)) = socket else {
        let why = "its .socket says where it listens: import both units together";
        return into.lose(line.place, mapping.origin, why);
    };
    for line in lines.iter().filter(|line| line.section == "Socket") {
        listen(&mut mapping, line);
    }
    let only = lines.iter().find(|line| line.key == "BindIPv6Only" && line.value == "ipv6-only");
    if let Some(line) = only.filter(|_| mapping.listen.iter().any(|listen| is_ports(listen))) {
        mapping.lose(line.place, line.key, "portway listens on IPv4, too, unless an IPv6 address is named");
    }
    into.add(mapping);
}

/// `HOST:PORT`, or a host alone, where the port is 80.
fn to_target(to: &str) -> Option<String> {
    let (host, port) = host_and_port(to).unwrap_or((to, "80"));
    let port = match port {
        "http" => "80",
        "https" => "443",
        port => port,
    };
    target(host, port).filter(|_| !to.starts_with('/'))
}

/// What a key of the socket says.
fn listen(mapping: &mut Mapping, line: &Line<'_>) {
    match line.key {
        "ListenStream" | "ListenDatagram" if line.value.is_empty() => mapping.listen.clear(),
        "ListenStream" | "ListenDatagram" => {
            let value = line.value.as_str();
            let (host, port) =
                if is_ports(value) { ("", value) } else { host_and_port(value).unwrap_or(("", "")) };
            match listener(host, port) {
                Some(listener) if line.key == "ListenStream" => mapping.listen.push(listener),
                Some(_) => mapping.lose(line.place, value, "systemd-socket-proxyd forwards TCP alone"),
                None => {
                    mapping.lose(line.place, value, why(value, "portway listens on TCP and UDP ports alone"));
                }
            }
        }
        "KeepAliveTimeSec" => mapping.set_text("keepalive", duration(&line.value, 1000)),
        "MaxConnectionsPerSource" => {
            if let Ok(most @ 1..) = line.value.parse::<u64>() {
                mapping.set("max_sessions_per_client", Value::Number(most));
            }
        }
        "IPAddressAllow" | "IPAddressDeny" => {
            mapping.lose(line.place, line.key, "write the networks into `allow` or `deny`");
        }
        "BindToDevice" => mapping.lose(line.place, line.key, "listen on an address of that interface"),
        // What portway does anyway, and what concerns systemd alone.
        "NoDelay"
        | "KeepAlive"
        | "Accept"
        | "Service"
        | "Backlog"
        | "ReusePort"
        | "FreeBind"
        | "Transparent"
        | "BindIPv6Only"
        | "FileDescriptorName"
        | "MaxConnections"
        | "TriggerLimitBurst"
        | "TriggerLimitIntervalSec"
        | "SocketUser"
        | "SocketGroup"
        | "SocketMode"
        | "RemoveOnStop"
        | "FlushPending" => {}
        key => mapping.lose(line.place, key, "portway has no such key"),
    }
}
