use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    num::{NonZeroU32, NonZeroU64},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::mapping::{ListenerKey, MappingOrigin, Protocol, Timeout};

mod about;
mod access;
mod api;
mod files;
mod fragments;
mod gate;
mod golden;
mod labels;
mod managed;
mod meaning;
mod router;
mod schema;
mod ways;

/// A machine whose own address is 192.168.1.2.
struct Machine;

impl HostView for Machine {
    fn env(&self, name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".into()),
            "BAD" => Some("0".into()),
            _ => None,
        }
    }

    fn service(&self, name: &str, protocol: Protocol) -> Option<u16> {
        match (name, protocol) {
            ("https", _) => Some(443),
            ("syslog", Protocol::Udp) => Some(514),
            _ => None,
        }
    }

    fn addresses(&self) -> HashSet<IpAddr> {
        HashSet::from([IpAddr::from([192, 168, 1, 2])])
    }

    fn broadcasts(&self) -> HashSet<IpAddr> {
        HashSet::new()
    }

    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
        Some(32768..=60999)
    }
}

/// A directory with configuration files; the main one is `portway.toml`.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Loaded, Problems> {
        let file = Some(self.path("portway.toml"));
        load(&Source { file, ..Source::default() }, &Machine)
    }

    /// The text with the directory left out of every path.
    fn brief(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }

    /// Each problem as its place and its code.
    fn problems(&self) -> Vec<String> {
        let problems = self.load().expect_err("it has problems");
        problems.iter().map(|p| self.line(p)).collect()
    }

    fn line(&self, problem: &Problem) -> String {
        self.brief(&format!("{}:{}", problem.file, found(problem)))
    }
}

/// The line, the column and the code.
fn found(Problem { line, column, code, .. }: &Problem) -> String {
    format!("{line}:{column} {}", code.as_str())
}

fn file(text: &str) -> Files {
    Files::new(&[("portway.toml", text.as_bytes())])
}

fn loaded(text: &str) -> Loaded {
    file(text).load().unwrap_or_else(|e| panic!("{e}"))
}

/// The problems of a file, less `portway.toml:`.
fn problems(text: &str) -> Vec<String> {
    let problems = file(text).problems();
    problems.iter().map(|p| p.strip_prefix("portway.toml:").unwrap_or(p).to_owned()).collect()
}

fn warnings(text: &str) -> Vec<String> {
    loaded(text).warnings.iter().map(found).collect()
}

fn specs(specs: &[&str]) -> Result<Loaded, Problems> {
    let publish = specs.iter().map(|s| (*s).to_owned()).collect();
    load(&Source { publish, ..Source::default() }, &Machine)
}

/// The plan as lines `name listener targets`.
fn plan(loaded: &Loaded) -> Vec<String> {
    let line = |(key, listener): (&ListenerKey, &ListenerPlan)| {
        let targets: Vec<_> = listener
            .service
            .targets()
            .into_iter()
            .flat_map(crate::targets::Targets::iter)
            .map(ToString::to_string)
            .collect();
        format!("{} {key} {}", listener.name, targets.join(","))
    };
    loaded.plan.listeners.iter().map(line).collect()
}
