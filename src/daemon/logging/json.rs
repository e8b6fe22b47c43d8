//! Lines of JSON without characters that a terminal obeys: JSON itself lets all but the first 32
//! stand.

use std::{
    io::{self, Write},
    sync::Arc,
};

use super::lines::Lines;
use crate::text::escaped_json;

/// Where lines of JSON go.
#[derive(Debug)]
pub(super) struct Plain(pub(super) Arc<Lines>);

/// Every write is a whole line, as the formatter makes it.
impl Write for &Plain {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = &*self.0;
        let is_plain = line.iter().all(|c| matches!(c, b' '..=b'~' | b'\n'));
        match str::from_utf8(line) {
            Ok(text) if !is_plain => lines.write_all(escaped_json(text).as_bytes())?,
            _ => lines.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
