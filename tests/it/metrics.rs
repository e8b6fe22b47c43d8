//! Metrics: what a scrape says, `promtool`'s opinion of it, a real Prometheus that reads it, and the
//! alerts and the dashboard, which may only ask for metrics that there are.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::{Client, Portway, Program, TcpTarget, eventually, free_port, run, with_tools};

/// The path of a file of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A GET without any library: status line, headers and body, until the server closes.
fn get(at: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("the metrics listener takes clients");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("the request goes out");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer comes");
    answer
}

/// A daemon with metrics: where they are, and where its mappings `web` and `echo` listen.
struct Scraped {
    portway: Portway,
    metrics: SocketAddr,
    web: SocketAddr,
}

impl Scraped {
    fn start(target: &TcpTarget) -> Self {
        let [metrics, web, dead] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let nothing = free_port();
        let portway = Portway::with(&format!(
            "[metrics]\nlisten = \"{metrics}\"\n\
             [[mapping]]\nname = \"web\"\nlisten = \"{web}\"\ntargets = [\"{}\"]\nprotocol = \"tcp+udp\"\n\
             [[mapping]]\nname = \"dead\"\nlisten = \"{dead}\"\ntargets = [\"127.0.0.1:{nothing}\"]\n\
             deny = [\"127.0.0.9\"]\n",
            target.addr
        ))
        .start();
        let scraped = Self { portway, metrics, web };
        Client::to(web).ping();
        // Nothing listens behind it, so the session ends at once.
        Client::to(dead).until_closed();
        scraped
    }

    fn text(&self) -> String {
        let answer = get(self.metrics, "/metrics", "");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        body.to_owned()
    }

    /// The value of a series.
    fn value(&self, series: &str) -> Option<f64> {
        value(&self.text(), series)
    }
}

fn value(text: &str, series: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_scrape_counts_sessions_bytes_and_targets_by_mapping() {
    let target = TcpTarget::echo();
    let scraped = Scraped::start(&target);
    let is = |series: &str, expected: f64| {
        eventually(series, || (scraped.value(series) == Some(expected)).then_some(()));
    };
    is(r#"portway_sessions_ended_total{mapping="web",protocol="tcp",reason="client-closed"}"#, 1.0);
    is(r#"portway_sessions_ended_total{mapping="dead",protocol="tcp",reason="unreachable"}"#, 1.0);
    is(r#"portway_dial_duration_seconds_count{mapping="web"}"#, 1.0);
    is(r#"portway_session_duration_seconds_count{mapping="dead",protocol="tcp"}"#, 1.0);
    let bytes_in = scraped.value(r#"portway_bytes_total{mapping="web",protocol="tcp",direction="in"}"#);
    let bytes_out = scraped.value(r#"portway_bytes_total{mapping="web",protocol="tcp",direction="out"}"#);
    assert!(bytes_in.is_some_and(|bytes| bytes > 0.0) && bytes_in == bytes_out, "{}", scraped.text());
    let mut stays = Client::to(scraped.web);
    stays.ping();
    is(r#"portway_sessions_active{mapping="web",protocol="tcp"}"#, 1.0);
    is(r#"portway_listeners{state="listening"}"#, 3.0);
    let listener =
        format!(r#"portway_listener_up{{mapping="web",protocol="udp",listener="{}"}}"#, scraped.web);
    is(&listener, 1.0);
    is("portway_config_last_reload_successful", 1.0);
    assert!(
        scraped
            .text()
            .contains(&format!("portway_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")))
    );
    let down = r#"portway_target_up{mapping="dead",target="#;
    assert!(scraped.text().lines().any(|line| line.starts_with(down) && line.ends_with(" 0")));
}

#[test]
fn a_refused_reload_shows_in_the_metrics_and_so_does_the_next_good_one() {
    let target = TcpTarget::echo();
    let mut scraped = Scraped::start(&target);
    let config = std::fs::read_to_string(scraped.portway.config()).expect("the configuration");
    let applied = "portway_config_last_reload_success_timestamp_seconds";
    let before = scraped.value(applied).expect("the start counts");
    scraped.portway.refused_reload_with("nonsense = 1\n");
    assert_eq!(scraped.value("portway_config_last_reload_successful"), Some(0.0));
    assert_eq!(scraped.value(applied), Some(before));
    scraped.portway.reload_with(&config);
    assert_eq!(scraped.value("portway_config_last_reload_successful"), Some(1.0));
    assert!(scraped.value(applied).is_some_and(|at| at > before));
}

#[test]
fn no_label_has_a_clients_address_and_a_removed_mapping_has_no_series() {
    let target = TcpTarget::echo();
    let mut scraped = Scraped::start(&target);
    let client = Client::to(scraped.web);
    assert!(!scraped.text().contains(&client.0.local_addr().expect("an address").to_string()));
    drop(client);
    let metrics = scraped.metrics;
    scraped.portway.reload_with(&format!("[metrics]\nlisten = \"{metrics}\"\n"));
    assert!(!scraped.text().contains("mapping=\"web\""), "{}", scraped.text());
}

#[test]
fn the_listener_of_metrics_shows_nothing_else() {
    let target = TcpTarget::echo();
    let scraped = Scraped::start(&target);
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/v1/status", 404), ("/v1/sessions", 404), ("/", 404)]
    {
        let answer = get(scraped.metrics, path, "");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    let open_metrics =
        get(scraped.metrics, "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(
        open_metrics.contains("application/openmetrics-text") && open_metrics.contains("# EOF"),
        "{open_metrics}"
    );
}

#[test]
fn promtool_has_nothing_against_the_metrics_nor_the_alerts() {
    with_tools(&["promtool"], || {
        let target = TcpTarget::echo();
        let scraped = Scraped::start(&target);
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool starts");
        promtool.stdin.take().expect("its input").write_all(scraped.text().as_bytes()).expect("it reads");
        let ran = promtool.wait_with_output().expect("promtool ends");
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.trim().is_empty(), "{said}");
        let tests = project("tests/it/metrics.rules.yml");
        run(&format!("promtool test rules {}", tests.display())).says("SUCCESS");
    });
}

/// The names of metrics in a query, such as `portway_listener_up`.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_one = |word: &&str| word.starts_with("portway_") || word.starts_with("process_");
    words.filter(is_one).map(str::to_owned).collect()
}

#[test]
fn the_alerts_and_the_dashboard_ask_for_metrics_that_there_are() {
    let target = TcpTarget::echo();
    let scraped = Scraped::start(&target);
    let there = names(&scraped.text());
    // A lease needs a router.
    let silent = ["portway_lease_up"].map(str::to_owned);
    let rules = std::fs::read_to_string(project("config/prometheus/portway.rules.yml")).expect("the alerts");
    let rules: String = rules.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let dashboard = std::fs::read_to_string(project("config/grafana/portway.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("the dashboard is JSON");
    let mut queries = vec![rules];
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("queries") {
            queries.push(target["expr"].as_str().expect("a query").to_owned());
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        queries.extend(variable["query"]["query"].as_str().map(str::to_owned));
    }
    let asked: BTreeSet<String> = queries.iter().flat_map(|query| names(query)).collect();
    assert!(asked.len() > 10, "{asked:?}");
    let strange: Vec<_> =
        asked.iter().filter(|name| !there.contains(*name) && !silent.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?} are not among {there:?}");
}

#[test]
fn a_real_prometheus_reads_the_metrics() {
    with_tools(&["prometheus"], || {
        let target = TcpTarget::echo();
        let scraped = Scraped::start(&target);
        let (port, dir) = (free_port(), scraped.portway.dir().join("prometheus"));
        std::fs::create_dir(&dir).expect("a directory");
        let config = dir.join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nrule_files: [{:?}]\nscrape_configs:\n  - job_name: portway\n    \
             static_configs: [{{ targets: [\"{}\"] }}]\n",
            project("config/prometheus/portway.rules.yml"),
            scraped.metrics
        );
        std::fs::write(&config, text).expect("its configuration");
        let config = format!("--config.file={}", config.display());
        let data = format!("--storage.tsdb.path={}", dir.join("data").display());
        let listen = format!("--web.listen-address=127.0.0.1:{port}");
        let _prometheus = Program::start("prometheus", &[&config, &data, &listen, "--log.level=error"]);
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("Prometheus takes clients", || TcpStream::connect(at).ok());
        let query =
            "/api/v1/query?query=portway_sessions_ended_total%7Breason%3D%22unreachable%22%7D%20%3E%200";
        eventually("Prometheus has the session that ended", || {
            get(at, query, "").contains("\"mapping\":\"dead\"").then_some(())
        });
        let targets = get(at, "/api/v1/targets", "");
        assert!(targets.contains("\"health\":\"up\""), "{targets}");
    });
}
