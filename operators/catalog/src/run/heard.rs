//! What a program says, a line at a time and never more of a line than is wanted.

use std::{
    borrow::Cow,
    io::{self, BufRead, BufReader, ErrorKind, Read},
};

/// One line of a program's output.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    /// Without its end.
    pub bytes: Vec<u8>,
    /// Whether more stood on it than was kept.
    pub is_cut: bool,
}

impl Line {
    /// As text; of a line that was cut, without a character that was cut through.
    pub fn text(&self) -> Cow<'_, str> {
        let end = if self.is_cut { whole_characters(&self.bytes) } else { self.bytes.len() };
        String::from_utf8_lossy(&self.bytes[..end])
    }
}

/// Bytes up to a last character that lacks its end.
fn whole_characters(bytes: &[u8]) -> usize {
    let last = (bytes.len().saturating_sub(3)..bytes.len()).rev().find(|at| bytes[*at] & 0b1100_0000 != 0b1000_0000);
    let lacks_its_end = |at: &usize| std::str::from_utf8(&bytes[*at..]).is_err_and(|error| error.error_len().is_none());
    last.filter(lacks_its_end).unwrap_or(bytes.len())
}

/// Which of its streams a line came from.
#[derive(Debug)]
pub(super) enum Heard {
    Out(Line),
    Err(Line),
    /// A stream could not be read further.
    Broken(io::Error),
}

/// Calls `each` with every line until the stream ends or `each` says that nobody listens.
///
/// # Errors
/// The stream's own. A line that it breaks off in is given to nobody.
pub(crate) fn listen(stream: impl Read, max_bytes: usize, mut each: impl FnMut(Line) -> bool) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Line { bytes: Vec::new(), is_cut: false };
    loop {
        let available = match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            available => available?,
        };
        if available.is_empty() {
            if !line.bytes.is_empty() {
                each(line);
            }
            return Ok(());
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let kept = part.len().min(max_bytes - line.bytes.len());
        line.bytes.extend_from_slice(&part[..kept]);
        line.is_cut |= kept < part.len();
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() && !each(std::mem::replace(&mut line, Line { bytes: Vec::new(), is_cut: false })) {
            return Ok(());
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
            let each = |line: Line| {
                lines.push((line.text().into_owned(), line.is_cut));
                true
            };
            listen(bytes, 4, each).unwrap();
            lines
        };
        let line = |text: &str| (text.to_owned(), false);
        let cut = |text: &str| (text.to_owned(), true);
        assert_eq!(heard(b"ab\n\nabcdef\nabcd\nx"), [line("ab"), line(""), cut("abcd"), line("abcd"), line("x")]);
        assert_eq!(heard(&[b"a".repeat(100_000), b"\nb".to_vec()].concat()), [cut("aaaa"), line("b")]);
        assert_eq!(heard(b"\xff\n"), [line("\u{fffd}")]);
        assert_eq!(heard("abcé\nabéé\nab😀\n".as_bytes()), [cut("abc"), cut("abé"), cut("ab")]);
        assert!(heard(b"").is_empty());
    }

    /// Gives its bytes, then fails.
    struct Broken(&'static [u8]);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.is_empty() {
                true => Err(io::Error::other("a bad sector")),
                false => self.0.read(buffer),
            }
        }
    }

    #[test]
    fn a_stream_that_cannot_be_read_further_has_not_ended() {
        let mut lines = Vec::new();
        let heard = listen(Broken(b"one\ntw"), 4, |line| {
            lines.push(line.text().into_owned());
            true
        });
        assert_eq!((heard.unwrap_err().to_string().as_str(), lines), ("a bad sector", vec!["one".to_owned()]));
    }
}
