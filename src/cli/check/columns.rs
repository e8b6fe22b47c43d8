//! Rows of cells as lines of a terminal.
//!
//! Where all columns fit, a row is a line. Where they do not, the first columns that fit make the
//! line, and each further cell has lines of its own below, indented.

use std::fmt::Write as _;

/// A row: the last cell is words between spaces.
pub(super) type Row = [String; 5];

const INDENT: usize = 4;
/// A narrower terminal is not a place for a table.
const NARROWEST: usize = 20;

/// The rows, the headings first, in lines of at most `width` characters; of any length where that
/// is `None`.
pub(super) fn fitted(rows: &[Row], width: Option<usize>) -> String {
    let most = width.map_or(usize::MAX, |width| width.max(NARROWEST));
    let widths = [0, 1, 2, 3, 4].map(|column| rows.iter().map(|row| length(&row[column])).max().unwrap_or(0));
    let line = |columns: usize| widths[..columns].iter().sum::<usize>() + 2 * (columns - 1);
    let columns = (1..=widths.len()).rev().find(|columns| line(*columns) <= most).unwrap_or(1);
    let mut text = String::new();
    for (nth, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(widths).take(columns).map(|(cell, width)| format!("{cell:width$}"));
        let first = cells.collect::<Vec<_>>().join("  ");
        for part in chunks(first.trim_end(), most) {
            let _ = writeln!(text, "{part}");
        }
        // The headings of the cells that stand below would say nothing there.
        for cell in row.iter().skip(columns).filter(|_| nth > 0) {
            for part in wrapped(cell, most - INDENT) {
                let _ = writeln!(text, "{:INDENT$}{part}", "");
            }
        }
    }
    text
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Words in lines of at most `most` characters.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()).flat_map(|word| chunks(word, most)) {
        match lines.last_mut() {
            Some(line) if length(line) + 1 + length(&word) <= most => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// A text in parts of at most `most` characters.
fn chunks(text: &str, most: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(most.max(1)).map(|part| part.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows() -> Vec<Row> {
        [
            ["MAPPING", "PROTOCOL", "LISTEN", "TARGET", "OPTIONS"],
            [
                "web",
                "tcp",
                "[::]:8080 (every address)",
                "10.0.0.5:80",
                "idle_timeout=1h max_sessions=20 refuse=drop",
            ],
            ["53/udp", "udp", "127.0.0.1:53", "10.0.0.53:53", ""],
        ]
        .map(|row| row.map(str::to_owned))
        .to_vec()
    }

    #[test]
    fn what_does_not_fit_goes_to_lines_of_its_own() {
        assert_eq!(fitted(&rows(), None).lines().count(), 3);
        assert_eq!(
            fitted(&rows(), Some(70)),
            "MAPPING  PROTOCOL  LISTEN                     TARGET\n\
             web      tcp       [::]:8080 (every address)  10.0.0.5:80\n    \
                 idle_timeout=1h max_sessions=20 refuse=drop\n\
             53/udp   udp       127.0.0.1:53               10.0.0.53:53\n"
        );
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(width in 0_usize..120, cell in "[a-z=, ]{0,200}") {
            let mut rows = rows();
            rows[2][4] = cell.clone();
            rows[1][3] = cell;
            for line in fitted(&rows, Some(width)).lines() {
                prop_assert!(length(line) <= width.max(NARROWEST), "{}", line);
            }
        }
    }
}
