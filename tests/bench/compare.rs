//! What has changed since the published results: ratios, because a machine differs from another, and from itself.
//!
//! A ratio is that of our median to the best peer's, as it was published, with the same peer both times. Its noise is how
//! far the ratio of a single round lies from it. A change counts when it is greater than the noise of both together.

use crate::{
    cases::best_peer,
    results::{CaseResult, Results},
    stats::{Ratio, human},
    table::cases,
};

/// A ratio that has moved.
struct Move {
    text: String,
    /// How many times its noise the change is.
    weight: f64,
}

/// What moved, in Markdown; nothing where nothing can be compared.
pub(crate) fn report(before: &Results, now: &Results) -> String {
    let (mut moves, mut still) = (Vec::new(), 0);
    for (case, result) in cases(now) {
        let Some(published) = before.cases.iter().find(|published| published.case == case.name) else {
            continue;
        };
        // How much went on beside a ping-pong is what was asked for, and no result.
        for metric in case.load.metrics().iter().filter(|metric| metric.key != "beside") {
            let Some((peer, _)) = best_peer(metric, before.peers(published, metric.key)) else { continue };
            let ratios = (ratio(before, published, metric.key, peer), ratio(now, result, metric.key, peer));
            let (Some(old), Some(new)) = ratios else { continue };
            match old.moved(new) {
                None => still += 1,
                Some(weight) => {
                    let words = metric.better.word(new.value / old.value);
                    let text = format!(
                        "- {}, {}: {} × {peer}, before {} ×: **{words}** (noise {:.0} %)\n",
                        case.title,
                        metric.label,
                        human(new.value),
                        human(old.value),
                        100.0 * old.noise_with(new)
                    );
                    moves.push(Move { text, weight });
                }
            }
        }
    }
    if moves.is_empty() && still == 0 {
        return String::new();
    }
    moves.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let mut text =
        format!("\nSince {}: {still} ratios are within their noise, {} moved.\n\n", before.date, moves.len());
    if before.machine != now.machine {
        text += &format!("The machine is another one, which moves ratios, too: {}\n\n", before.machine);
    }
    text.extend(moves.into_iter().map(|moved| moved.text));
    text
}

/// Of the first of our programs.
fn ratio(results: &Results, case: &CaseResult, metric: &str, peer: &str) -> Option<Ratio> {
    let rounds = |name: &str| case.values.get(name)?.get(metric);
    Ratio::of(rounds(results.names(true).next()?)?, rounds(peer)?)
}
