//! A real browser, driven by WebDriver: Chromium without a window.
//!
//! The driver has a port of its own, and the browser a profile of its own. Both end with the test: the browser by the
//! driver, and whatever is left of the driver's group by its process id.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fantoccini::{Client, ClientBuilder, Locator, error::CmdError, wd::WebDriverCompatibleCommand};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{eventually, eventually_within, free_port};

/// Where axe-core is, if it is installed: `tests/run` says so.
const AXE: &str = "PORTWAY_TEST_AXE";

/// The rules of WCAG 2 at the levels A and AA.
const RULES: &str = "const done = arguments[arguments.length - 1]; \
    axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] }).then(({ violations }) => \
    done(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(', ')}`)));";

/// A browser with one page.
#[derive(Debug)]
pub(crate) struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// What it takes.
    pub(crate) const TOOLS: [&str; 2] = ["chromium", "chromedriver"];

    /// Starts one with a window of this size.
    #[track_caller]
    pub(crate) fn start(width: u32, height: u32) -> Self {
        Self::start_with(width, height, &[])
    }

    /// The same with further flags of Chromium.
    #[track_caller]
    pub(crate) fn start_with(width: u32, height: u32, flags: &[&str]) -> Self {
        let port = free_port();
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).arg("--silent").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let wanted =
            json!({ "goog:chromeOptions": { "args": args }, "goog:loggingPrefs": { "browser": "ALL" } });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(wanted.as_object().expect("a table").clone());
        let mut browser = Self { runtime, client: None, driver, _profile: profile };
        let url = format!("http://127.0.0.1:{port}");
        let client = eventually_within(Duration::from_secs(60), "the browser starts", || {
            browser.runtime.block_on(builder.connect(&url)).ok()
        });
        browser.client = Some(client);
        browser
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("the browser has started")
    }

    #[track_caller]
    fn done<T>(&self, what: &str, command: impl Future<Output = Result<T, CmdError>>) -> T {
        self.runtime.block_on(command).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Opens a page.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.done(url, self.client().goto(url));
    }

    /// Runs a script in the page, and gives what it returns.
    #[track_caller]
    pub(crate) fn script(&self, script: &str) -> Value {
        self.done(script, self.client().execute(script, vec![]))
    }

    /// The text of the first element that fits, as the page shows it; empty where there is none to see.
    #[track_caller]
    pub(crate) fn text(&self, css: &str) -> String {
        let script = "const node = document.querySelector(arguments[0]); \
            return node?.checkVisibility() ? node.innerText : ''";
        let text = self.done(css, self.client().execute(script, vec![json!(css)]));
        // A number and its unit stay together.
        text.as_str().unwrap_or_default().replace('\u{a0}', " ")
    }

    /// How many elements fit.
    #[track_caller]
    pub(crate) fn count(&self, css: &str) -> usize {
        self.done(css, self.client().find_all(Locator::Css(css))).len()
    }

    /// Waits until an element shows a text.
    #[track_caller]
    pub(crate) fn wait_text(&self, css: &str, text: &str) {
        eventually(&format!("{css} shows {text:?}"), || self.text(css).contains(text).then_some(()));
    }

    /// Waits until no element fits.
    #[track_caller]
    pub(crate) fn wait_gone(&self, css: &str) {
        eventually(&format!("{css} is gone"), || (self.count(css) == 0).then_some(()));
    }

    /// Clicks the first element that fits, as a person does: it has to be there, and in nothing's shadow.
    #[track_caller]
    pub(crate) fn click(&self, css: &str) {
        eventually(&format!("a click at {css}"), || {
            self.runtime.block_on(async { self.client().find(Locator::Css(css)).await?.click().await }).ok()
        });
    }

    /// Types into a field that is empty.
    #[track_caller]
    pub(crate) fn fill(&self, css: &str, text: &str) {
        self.done(css, async {
            let field = self.client().find(Locator::Css(css)).await?;
            field.clear().await?;
            field.send_keys(text).await
        });
    }

    /// Presses a key of [`fantoccini::key::Key`] where the focus is.
    #[track_caller]
    pub(crate) fn press(&self, key: fantoccini::key::Key) {
        self.done("a key", async {
            self.client().active_element().await?.send_keys(&char::from(key).to_string()).await
        });
    }

    /// Has the page believe that its user prefers dark or light pages, and no motion: colours must not be on their way.
    #[track_caller]
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Gives the page this width, as on a telephone.
    #[track_caller]
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": true });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    #[track_caller]
    fn devtools(&self, name: &str, params: &Value) {
        let body = json!({ "cmd": name, "params": params });
        self.done(name, self.client().issue_cmd(Vendor { path: "goog/cdp/execute", body }));
    }

    /// What the browser wrote to its console since the last time: errors of the page, and what its policy forbade.
    #[track_caller]
    pub(crate) fn console(&self) -> Vec<String> {
        let command = Vendor { path: "se/log", body: json!({ "type": "browser" }) };
        let lines = self.done("the console", self.client().issue_cmd(command));
        let lines = lines.as_array().cloned().unwrap_or_default();
        lines.iter().map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What axe-core finds to be wrong with the page as it is now.
    #[track_caller]
    pub(crate) fn barriers(&self, axe: &str) -> Vec<String> {
        if self.script("return Boolean(window.axe)") != true {
            self.script(axe);
        }
        let found = self.done("axe-core", self.client().execute_async(RULES, vec![]));
        let found = found.as_array().cloned().unwrap_or_default();
        found.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            if std::thread::panicking() {
                let script = "return document.body.innerText";
                let page = self.runtime.block_on(client.execute(script, vec![]));
                eprintln!("-- the page\n{}", page.unwrap_or_default().as_str().unwrap_or_default());
            }
            let _ = self.runtime.block_on(client.close());
        }
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

/// The text of axe-core, if it is installed.
pub(crate) fn axe() -> Option<String> {
    let path = PathBuf::from(std::env::var_os(AXE)?);
    Some(std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{AXE}={}: {e}", path.display())))
}

/// A command beyond the standard.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
