//! Colours. Without them every text is the same: a word always stands beside a symbol or a colour.

/// Paints, or leaves alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }
    pub fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }
    /// The name of a status in its colour; words may follow it.
    pub fn status(self, name: &str) -> String {
        self.status_of(name.split_whitespace().next().unwrap_or_default(), name)
    }
    /// A text in the colour of a status.
    pub fn status_of(self, status: &str, text: &str) -> String {
        match status {
            "ran" | "done" => self.green(text),
            "failed" | "refused" => self.red(text),
            "interrupted" | "skipped" | "running" => self.yellow(text),
            _ => self.dim(text),
        }
    }
}
