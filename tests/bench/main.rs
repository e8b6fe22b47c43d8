//! The benchmark: what portway costs, and what its peers cost on the same machine in the same hour.
//!
//! `tests/bench/run` builds and starts it. Every case is done on every relay in turn, round after round; the relay has
//! a core of its own, load and target share another, all in a [`network`] of their own. [`cases`] says what is measured
//! and what is promised, [`subject`] how each program is configured, [`runs`] does one case on one relay once, [`load`]
//! is both ends of its sessions, [`process`] watches the relay, and [`table`] and [`plot`] show the [`results`].

#![allow(clippy::missing_docs_in_private_items, reason = "the modules of a program document each other")]

mod cases;
mod clock;
mod compare;
mod config;
mod curves;
mod disturb;
mod growing;
mod growth;
mod kernel;
mod load;
mod network;
mod pattern;
mod plot;
mod process;
#[path = "../random.rs"]
mod random;
mod results;
mod runs;
mod stats;
mod subject;
mod table;
mod under;

use std::{fs, path::Path, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use cases::{CASES, Case, Load};
use process::Cores;
use results::{CaseResult, Program, Results};
use runs::{Bench, Pace};
use subject::{Kind, PEERS, Subject};

/// Where the results go unless told otherwise.
const OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench");
/// What the results are compared with.
const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/published/results.json");
/// Rounds unless told otherwise.
const ROUNDS: usize = 5;
/// How the note of a run begins that did not end well.
const FAILED: &str = "failed: ";
/// Peers that `--quick` leaves out unless they are asked for: measured once, slow, and never the best.
const SLOW: [Kind; 1] = [Kind::Socat];

/// Measures portway and its peers.
#[derive(Parser)]
#[command(name = "tests/bench/run")]
struct Args {
    /// Three minutes in all: fewer rounds, shorter cases, the slow peers left out.
    #[arg(long)]
    quick: bool,
    /// Seconds in all: that each case ends and all bytes are right, with tiny sizes and without peers. Says no figures.
    #[arg(long)]
    smoke: bool,
    /// Only this case, or those whose names begin so; may be repeated.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Only this peer; may be repeated; `none` for no peer at all.
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<String>,
    /// How often each case is done on each relay.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Measures in the network of the machine, as it is set up, even where a network of one's own could be had.
    #[arg(long)]
    here: bool,
    /// A portway to measure instead of the one just built; with several, each under its label.
    #[arg(long, value_name = "[LABEL=]PATH")]
    portway: Vec<String>,
    /// Where results.md, results.json and results.svg go.
    #[arg(long, value_name = "DIR", default_value = OUT)]
    out: PathBuf,
    /// Makes table and plot of a results file again, and measures nothing.
    #[arg(long, value_name = "FILE")]
    render: Option<PathBuf>,
    /// The results that these are compared with.
    #[arg(long, value_name = "FILE", default_value = PUBLISHED)]
    published: PathBuf,
    /// Names the cases, and measures nothing.
    #[arg(long)]
    list: bool,
    /// Lets the relays' error output through, which is otherwise thrown away.
    #[arg(long)]
    show_stderr: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.list {
        CASES.iter().for_each(|case| println!("{:16} {}", case.name, case.title));
        return Ok(());
    }
    fs::create_dir_all(&args.out).context("make the directory of the results")?;
    let results = match &args.render {
        Some(file) => Results::read(file)?,
        None => measure(&args)?,
    };
    if args.smoke {
        return judge_smoke(&results);
    }
    show(&results, &args.out)?;
    if args.published.is_file() {
        print!("{}", compare::report(&Results::read(&args.published)?, &results));
    }
    Ok(())
}

/// Every case has ended with the right bytes, or it is a failure.
fn judge_smoke(results: &Results) -> Result<()> {
    let notes =
        results.cases.iter().flat_map(|case| case.notes.iter().map(|note| (case.case.as_str(), note)));
    let failures: Vec<String> = notes
        .filter(|(_, (_, note))| note.starts_with(FAILED))
        .map(|(case, (program, note))| format!("{case}, {program}: {note}"))
        .collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    println!("{} cases ended, and all bytes were right", results.cases.len());
    Ok(())
}

fn show(results: &Results, out: &Path) -> Result<()> {
    let table = table::markdown(results);
    println!("{table}");
    fs::write(out.join("results.md"), &table)?;
    plot::draw(results, &out.join("results.svg"))?;
    curves::draw(results, &out.join("growth.svg"))?;
    results.write(&out.join("results.json"))?;
    eprintln!("written: results.md, results.json, results.svg and growth.svg in {}", out.display());
    Ok(())
}

fn measure(args: &Args) -> Result<Results> {
    let chosen = chosen_cases(args)?;
    let (own_network, network) = network::enter(!args.here)?;
    let cores = Cores::claim()?;
    let rounds = args.rounds.unwrap_or(if args.quick || args.smoke { 1 } else { ROUNDS });
    let pinning = if cores.apart() {
        format!("relay on core {}, load and target on core {}", cores.relay, cores.load)
    } else {
        "relay, load and target share one core: ratios only".to_owned()
    };
    let mut results = Results::begin(rounds, args.quick, network, pinning);
    let subjects = subjects(args, own_network, &mut results)?;
    let home = tempfile::tempdir().context("make a temporary directory")?;
    let pace = match () {
        () if args.smoke => Pace::smoke(),
        () if args.quick => Pace::quick(),
        () => Pace::full(),
    };
    let mut bench = Bench {
        cores,
        pace,
        home: home.path(),
        show_stderr: args.show_stderr,
        descriptors: process::descriptors(),
        runs: 0,
    };
    for case in chosen {
        let mut result = CaseResult::new(case.name);
        for round in 1..=rounds {
            for subject in subjects.iter().filter(|subject| subject.takes_part(case.load)) {
                eprintln!("{} · round {round} of {rounds} · {}", case.title, subject.name);
                once(&mut bench, &case, subject, &mut result);
            }
        }
        results.cases.push(result);
        // What is cut off keeps what it has.
        if !args.smoke {
            results.write(&args.out.join("results.json"))?;
        }
    }
    Ok(results)
}

/// One run; a relay that failed once in a case is not asked again.
fn once(bench: &mut Bench<'_>, case: &Case, subject: &Subject, result: &mut CaseResult) {
    if result.notes.contains_key(&subject.name) {
        return;
    }
    let load = case.load.within(bench.descriptors);
    let reason = subject.declines(case.load).map(str::to_owned);
    if let Some(reason) = reason.or_else(|| load.clone().err()) {
        result.notes.insert(subject.name.clone(), reason);
        return;
    }
    let Ok(load) = load else { return };
    match bench.run(subject, load) {
        Ok(found) => result.add(&subject.name, found),
        Err(error) => {
            eprintln!("  failed: {error:#}");
            result.values.remove(&subject.name);
            result.notes.insert(subject.name.clone(), format!("{FAILED}{error:#}"));
        }
    }
}

fn chosen_cases(args: &Args) -> Result<Vec<Case>> {
    let names = &args.cases;
    for name in names {
        if !CASES.iter().any(|case| case.name.starts_with(name.as_str())) {
            bail!("no case is named {name}; --list names them");
        }
    }
    // A full name means itself only: "flood-64x1" is also how "flood-64x16" begins.
    let wanted = |case: &&Case| {
        let exact = |name: &String| CASES.iter().any(|case| case.name == name);
        let fits = |name: &String| case.name == name || !exact(name) && case.name.starts_with(name.as_str());
        let all = names.is_empty()
            && !(args.quick && (case.load.is_growth() || matches!(case.load, Load::Under(_))));
        all || names.iter().any(fits)
    };
    let mut chosen: Vec<Case> = CASES.iter().filter(wanted).copied().collect();
    if args.smoke {
        chosen.iter_mut().for_each(|case| case.load = case.load.tiny());
        chosen.dedup_by_key(|case| case.load);
    }
    Ok(chosen)
}

/// The programs to measure, ours first; each is noted in the results, and so are the peers that are not here.
fn subjects(args: &Args, own_network: bool, results: &mut Results) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for given in &args.portway {
        let (label, path) = given.split_once('=').unwrap_or(("portway", given));
        subjects.push(Subject::portway(label, Path::new(path))?);
    }
    if subjects.is_empty() {
        let mut built = Subject::portway("portway", Path::new(env!("CARGO_BIN_EXE_portway")))?;
        if let Some(commit) = results::commit() {
            built.version += &format!(" ({commit})");
        }
        subjects.push(built);
    }
    for name in &args.peers {
        if name != "none" && !PEERS.iter().any(|(peer, _)| peer == name) {
            bail!("no peer is named {name}");
        }
    }
    for (name, kind) in PEERS {
        let asked = args.peers.iter().any(|peer| peer == name);
        let unwanted =
            !args.peers.is_empty() || args.quick && SLOW.contains(&kind) || args.smoke && !kind.is_floor();
        if !asked && unwanted {
            continue;
        }
        match Subject::peer(name, kind, own_network) {
            Some(peer) => subjects.push(peer),
            None if kind == Kind::Kernel => {
                results.missing.push("kernel (nft, and a network of its own)".to_owned());
            }
            None if kind == Kind::Realm => results.missing.push("realm (REALM= names a binary)".to_owned()),
            None => results.missing.push(name.to_owned()),
        }
    }
    results.programs = subjects
        .iter()
        .map(|subject| Program {
            name: subject.name.clone(),
            version: subject.version.clone(),
            ours: subject.kind == Kind::Portway,
            floor: subject.kind.is_floor(),
        })
        .collect();
    Ok(subjects)
}
