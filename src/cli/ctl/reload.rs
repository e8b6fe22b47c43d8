//! `portway reload`: applies the configuration, or says what that would change.

use std::fmt::Write as _;

use clap::Args;

use super::{Daemon, Failed, Outcome, human::count, warned};
use crate::{
    api::client::{Ask, LONG_PATIENCE},
    status::view,
    text::Escaped,
};

/// How many sessions are named.
const NAMED: usize = 20;

/// Whether anything is to change.
#[derive(Debug, Args)]
pub(in crate::cli) struct Reload {
    /// Change nothing; list what would open, close and change, and the sessions that would end
    #[arg(long)]
    dry_run: bool,
}

/// Asks for a reload, and waits for the outcome.
pub(super) async fn reload(args: Reload, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask =
        Ask::post("/v1/reload").with("dry_run", args.dry_run.then_some("true")).patiently(LONG_PATIENCE);
    daemon.show(&ask, text).await
}

fn text(reload: &view::Reload) -> String {
    let (done, lists) = match reload.dry_run {
        true => (
            "dry run: the reload would be applied",
            ["would open", "would close", "would change", "would replace"],
        ),
        false => ("reload applied", ["opened", "closed", "changed", "replaced"]),
    };
    let all = [&reload.opened, &reload.closed, &reload.changed, &reload.replaced];
    let changes = all.iter().any(|list| !list.is_empty());
    let mut text = format!("{done}{}\n", if changes { "" } else { "; no listener changes" });
    for (word, list) in lists.iter().zip(all) {
        for listener in list {
            let _ = writeln!(text, "  {word:<13} {}", Escaped(listener));
        }
    }
    if reload.sessions_cut_count > 0 {
        let sessions = count(reload.sessions_cut_count, "session");
        let ids: Vec<String> = reload.sessions_cut.iter().take(NAMED).map(u64::to_string).collect();
        let more = if reload.sessions_cut_count > ids.len() as u64 { ", …" } else { "" };
        let verb = match (reload.dry_run, reload.sessions_cut_count) {
            (true, _) => "would end",
            (false, 1) => "ends",
            (false, _) => "end",
        };
        let _ = writeln!(text, "{sessions} {verb} within the grace of [shutdown]: {}{more}", ids.join(", "));
    }
    text + &warned(&reload.warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_lists_what_would_change_and_the_sessions_that_end() {
        let warning = view::Problem {
            file: Some("portway.toml".into()),
            line: Some(3),
            column: Some(7),
            message: "it is odd".into(),
            help: Some("remove it".into()),
            ..view::Problem::default()
        };
        let mut reload = view::Reload {
            dry_run: true,
            opened: vec!["web 0.0.0.0:80/tcp".into()],
            closed: vec!["old\n 0.0.0.0:81/tcp".into()],
            sessions_cut: (1..=30).collect(),
            sessions_cut_count: 30,
            warnings: vec![warning],
            ..view::Reload::default()
        };
        assert_eq!(
            text(&reload),
            "dry run: the reload would be applied\n  would open    web 0.0.0.0:80/tcp\n  \
             would close   old\\n 0.0.0.0:81/tcp\n\
             30 sessions would end within the grace of [shutdown]: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, \
             15, 16, 17, 18, 19, 20, …\n\
             \nwarning: portway.toml:3:7: it is odd\n   = help: remove it\n"
        );
        reload = view::Reload { sessions_cut: vec![4], sessions_cut_count: 1, ..view::Reload::default() };
        assert_eq!(
            text(&reload),
            "reload applied; no listener changes\n1 session ends within the grace of [shutdown]: 4\n"
        );
        assert_eq!(text(&view::Reload::default()), "reload applied; no listener changes\n");
    }
}
