//! The results: what was measured, on what and of what, as it is kept in the file.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{clock, stats::median};

/// All of a measurement.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) command: String,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    /// The network, and how TCP is paced there.
    #[serde(default)]
    pub(crate) network: String,
    /// How the relay was pinned.
    pub(crate) pinning: String,
    pub(crate) programs: Vec<Program>,
    pub(crate) missing: Vec<String>,
    pub(crate) cases: Vec<CaseResult>,
}

/// A program that was measured; a column of the table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) version: String,
    /// One of ours; the others are peers.
    pub(crate) ours: bool,
    /// No program, but what none can go below; no peer either.
    #[serde(default)]
    pub(crate) floor: bool,
}

/// What was measured in a case: by program and metric, a value for each round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct CaseResult {
    pub(crate) case: String,
    pub(crate) values: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    /// Why a program has no value, by program.
    pub(crate) notes: BTreeMap<String, String>,
}

impl CaseResult {
    /// Nothing yet.
    pub(crate) fn new(case: &str) -> Self {
        Self { case: case.to_owned(), ..Self::default() }
    }

    /// Adds what a run found.
    pub(crate) fn add(&mut self, program: &str, found: BTreeMap<String, f64>) {
        let of_program = self.values.entry(program.to_owned()).or_default();
        for (metric, value) in found {
            of_program.entry(metric).or_default().push(value);
        }
    }

    /// The median of a program's values.
    pub(crate) fn median(&self, program: &str, metric: &str) -> Option<f64> {
        median(self.values.get(program)?.get(metric)?)
    }
}

impl Results {
    /// The frame of a measurement that begins now.
    pub(crate) fn begin(rounds: usize, quick: bool, network: String, pinning: String) -> Self {
        Self {
            date: clock::today(),
            machine: machine(),
            command: command(),
            rounds,
            quick,
            network,
            pinning,
            ..Self::default()
        }
    }

    /// The names of the peers, or of our own programs.
    pub(crate) fn names(&self, ours: bool) -> impl Iterator<Item = &str> {
        let wanted = move |program: &&Program| program.ours == ours && !program.floor;
        self.programs.iter().filter(wanted).map(|program| program.name.as_str())
    }

    /// The names of what is no program.
    pub(crate) fn floors(&self) -> impl Iterator<Item = &str> {
        self.programs.iter().filter(|program| program.floor).map(|program| program.name.as_str())
    }

    /// The medians of all peers that have one.
    pub(crate) fn peers(&self, case: &CaseResult, metric: &str) -> Vec<(&str, f64)> {
        self.names(false).filter_map(|peer| Some((peer, case.median(peer, metric)?))).collect()
    }

    /// From a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a results file", path.display()))
    }

    /// Into a file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

/// Processor, cores, kernel.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let of = |name| {
        info.lines().filter(move |line| line.starts_with(name)).filter_map(|line| line.split_once(": "))
    };
    let cores = of("processor").count();
    let model = of("model name").next().map_or("unknown processor", |(_, model)| model);
    let family = of("model\t").next().map_or("?", |(_, family)| family);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model} (model {family}), {cores} cores, Linux {}", kernel.trim())
}

/// As it was typed, so that it can be repeated.
fn command() -> String {
    let words = std::env::args().skip(1).filter(|word| word != "--bench");
    std::iter::once("tests/bench/run".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The commit of the project's tree, to go with the version of the program built from it.
pub(crate) fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
