//! The results as a table for people.

use crate::{
    cases::{Case, Metric, best_peer, by_name, goal},
    curves,
    results::{CaseResult, Results},
    stats::{human, ratio},
};

/// What the columns and rows are that do not speak of a relay's own time.
const ACCOUNTS: &str = "Machine: the time of all processors, without that in which the load had nothing to do. Rest: without load and target, \
     so the relay and what the kernel does for it elsewhere. kernel: DNAT by nftables, direct: no relay at all.";

/// The whole report in Markdown.
pub(crate) fn markdown(results: &Results) -> String {
    let names = results.names(true).chain(results.names(false)).chain(results.floors());
    let names: Vec<&str> = names.collect();
    let mut text = heading(results);
    text += &format!("| case | measure | {} | portway / best peer | goal |\n", names.join(" | "));
    text += &format!("|---|---|{}---|---|\n", "--:|".repeat(names.len()));
    for (case, result) in cases(results).filter(|(case, _)| !case.load.is_growth()) {
        for metric in case.load.metrics() {
            text += &row(results, case, result, metric, &names);
        }
    }
    text + &curves::markdown(results) + &notes(results)
}

/// The cases that are in the results and that this program knows.
pub(crate) fn cases(results: &Results) -> impl Iterator<Item = (&'static Case, &CaseResult)> {
    results.cases.iter().filter_map(|result| Some((by_name(&result.case)?, result)))
}

fn heading(results: &Results) -> String {
    let programs: Vec<String> = results
        .programs
        .iter()
        .map(|program| match program.version.strip_prefix(program.name.as_str()) {
            Some(_) => program.version.clone(),
            None => format!("{}: {}", program.name, program.version),
        })
        .collect();
    let Results { date, machine, command, rounds, network, pinning, .. } = results;
    let mut text = format!(
        "{date} · {machine} · {pinning} · {network}\n\n`{command}` · medians of {rounds} interleaved rounds · CPU is user + \
         system time of the relay's processes · {}\n\n{ACCOUNTS}\n",
        programs.join(" · ")
    );
    if !results.missing.is_empty() {
        text += &format!("\nNot installed: {}.\n", results.missing.join(", "));
    }
    text + "\n"
}

fn row(results: &Results, case: &Case, result: &CaseResult, metric: &Metric, names: &[&str]) -> String {
    let value = |name: &&str| result.median(name, metric.key).map_or("–".to_owned(), human);
    let values: Vec<String> = names.iter().map(value).collect();
    if values.iter().all(|value| value == "–") {
        return String::new();
    }
    let best = best_peer(metric, results.peers(result, metric.key));
    let ours: Vec<(&str, f64)> =
        results.names(true).filter_map(|name| Some((name, result.median(name, metric.key)?))).collect();
    let ratios = ours.iter().filter_map(|(_, value)| Some(human(ratio(*value, best?.1)?)));
    let ratios: Vec<String> = ratios.collect();
    let ratios = match best {
        Some((peer, _)) if !ratios.is_empty() => format!("{} × {peer}", ratios.join(" · ")),
        _ => "–".to_owned(),
    };
    let goal = goal(case.name, metric.key).map_or(String::new(), |goal| {
        let verdict = |(_, value): &(&str, f64)| match goal.met(*value, best.map(|(_, best)| best)) {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "?",
        };
        let verdicts: Vec<&str> = ours.iter().map(verdict).collect();
        let verdicts = if ours.is_empty() { "–".to_owned() } else { verdicts.join(" · ") };
        format!("{}: {verdicts}", goal.text())
    });
    format!("| {} | {} | {} | {ratios} | {goal} |\n", case.title, metric.label, values.join(" | "))
}

fn notes(results: &Results) -> String {
    let mut text = String::new();
    for (case, result) in cases(results) {
        for (program, note) in &result.notes {
            text += &format!("- {}, {program}: {note}\n", case.title);
        }
    }
    if text.is_empty() { text } else { format!("\nNotes:\n\n{text}") }
}
