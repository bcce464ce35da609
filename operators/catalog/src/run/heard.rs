//! What a program says, a line at a time and never more of a line than is wanted.

use std::io::{BufRead, BufReader, Read};

/// One line of a program's output.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    /// Without its end.
    pub bytes: Vec<u8>,
    /// Whether more stood on it than was kept.
    pub is_cut: bool,
}

impl Line {
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.is_cut { format!("{text}…") } else { text.into_owned() }
    }
}

/// Which of its streams a line came from.
#[derive(Debug)]
pub(super) enum Heard {
    Out(Line),
    Err(Line),
}

/// Calls `each` with every line until the stream ends or `each` says that nobody listens.
pub(crate) fn listen(stream: impl Read, max_bytes: usize, mut each: impl FnMut(Line) -> bool) {
    let mut reader = BufReader::new(stream);
    let mut line = Line { bytes: Vec::new(), is_cut: false };
    loop {
        let Ok(available) = reader.fill_buf() else { return };
        if available.is_empty() {
            if !line.bytes.is_empty() {
                each(line);
            }
            return;
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let kept = part.len().min(max_bytes - line.bytes.len());
        line.bytes.extend_from_slice(&part[..kept]);
        line.is_cut |= kept < part.len();
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() && !each(std::mem::replace(&mut line, Line { bytes: Vec::new(), is_cut: false })) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_cut_and_the_last_one_needs_no_end() {
        let heard = |bytes: &[u8]| {
            let mut lines = Vec::new();
            listen(bytes, 4, |line| {
                lines.push(line.text());
                true
            });
            lines
        };
        assert_eq!(heard(b"ab\n\nabcdef\nabcd\nx"), ["ab", "", "abcd…", "abcd", "x"]);
        assert_eq!(heard(&[b"a".repeat(100_000), b"\nb".to_vec()].concat()), ["aaaa…", "b"]);
        assert_eq!(heard(b"\xff\n"), ["\u{fffd}"]);
        assert!(heard(b"").is_empty());
    }
}
