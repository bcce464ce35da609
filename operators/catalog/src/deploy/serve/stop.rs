//! Ends a text at the first stop sequence, and never lets out what may become one.

/// Passes text on, holding back an end that could be the start of a stop sequence.
#[derive(Clone, Debug)]
pub(super) struct StopFilter {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopFilter {
    /// `stops` are not empty texts.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new(), stopped: false }
    }
    /// The text that is certain after this piece.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let keep = self.held.char_indices().map(|(at, _)| at).find(begins).unwrap_or(self.held.len());
        let certain = self.held[..keep].to_owned();
        self.held.drain(..keep);
        certain
    }
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
    /// What was held back when no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut text: String = pieces.iter().map(|piece| filter.push(piece)).collect();
        text += &filter.finish();
        (text, filter.is_stopped())
    }

    #[test]
    fn a_stop_across_pieces_ends_the_text_before_it() {
        assert_eq!(pass(&["END"], &["go E", "N", "D on"]), ("go ".into(), true));
        assert_eq!(pass(&["END"], &["go E", "NT"]), ("go ENT".into(), false));
    }

    #[test]
    fn the_earliest_of_several_stops_wins_and_none_changes_nothing() {
        assert_eq!(pass(&["b", "a"], &["xxab"]), ("xx".into(), true));
        assert_eq!(pass(&[], &["é", "x"]), ("éx".into(), false));
    }

    #[test]
    fn nothing_that_may_become_a_stop_is_let_out() {
        let mut filter = StopFilter::new(vec!["\n\n".into()]);
        assert_eq!(filter.push("a\n"), "a");
        assert_eq!(filter.push("b"), "\nb");
    }
}
