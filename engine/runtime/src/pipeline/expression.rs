//! Conditions over metrics: the grammar of `require`.
//!
//! ```text
//! or     = and { "or" and }            compare = term ("<" | "<=" | ">" | ">=" | "==" | "!=") term
//! and    = not { "and" not }           term    = number | name
//! not    = "not" not | "(" or ")" | "true" | "false" | compare
//! ```
//! A name may hold dots, slashes, dashes and `@`: `acc_delta.lower95`, `rewards/margins`, `pass@1`.

use std::fmt;

/// Deeper nesting is refused, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;
/// A chain of `and` nests as well: its length is bounded by the text's.
const MAX_BYTES: usize = 4_000;

/// A condition and the text it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    text: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Always(bool),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Compare(Term, Comparison, Term),
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Number(f64),
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

impl Expr {
    /// Reads a condition.
    ///
    /// # Errors
    /// The byte offset of the first thing that does not fit, and what was expected there.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        if text.len() > MAX_BYTES {
            return Err((MAX_BYTES, format!("longer than {MAX_BYTES} bytes: write several conditions")));
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, end: text.len() };
        let condition = parser.or()?;
        match parser.peek() {
            None => Ok(Self { text: text.trim().to_owned(), condition }),
            Some(Token::Compare(_)) => Err(parser.wrong("one comparison at a time: join two with `and`")),
            Some(_) => Err(parser.wrong("`and`, `or` or the end expected here")),
        }
    }

    /// As the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every name, once, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.condition.names(&mut names);
        names
    }

    /// Decides it.
    ///
    /// # Errors
    /// A name without a value, or whose value is not a number: never a silent pass.
    pub fn evaluate(&self, value: &dyn Fn(&str) -> Option<f64>) -> Result<bool, String> {
        for name in self.names() {
            match value(name) {
                None => return Err(format!("there is no metric `{name}`")),
                Some(number) if number.is_nan() => return Err(format!("`{name}` is not a number (NaN)")),
                Some(_) => {}
            }
        }
        Ok(self.condition.holds(&|name| value(name).unwrap_or(f64::NAN)))
    }

    /// What it came to and on which values: `` `acc_delta.lower95 > 0` is false (lower95 = -0.06) ``.
    pub fn explain(&self, value: &dyn Fn(&str) -> Option<f64>) -> String {
        let verdict = match self.evaluate(value) {
            Ok(truth) => format!("is {truth}"),
            Err(reason) => return format!("`{}` cannot be decided: {reason}", self.text),
        };
        let names = self.names();
        let short = |name: &'_ str| name.rsplit(['.', '/']).next().unwrap_or_default().to_owned();
        let is_unique = |name: &str| names.iter().filter(|other| short(other) == short(name)).count() == 1;
        let values = names.iter().map(|name| {
            let shown = if is_unique(name) { short(name) } else { (*name).to_owned() };
            format!("{shown} = {}", four_digits(value(name).unwrap_or(f64::NAN)))
        });
        let values = values.collect::<Vec<_>>().join(", ");
        if values.is_empty() {
            format!("`{}` {verdict}", self.text)
        } else {
            format!("`{}` {verdict} ({values})", self.text)
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Four significant digits, trailing zeros dropped.
fn four_digits(number: f64) -> String {
    if number == 0.0 || !number.is_finite() || number.abs() >= 1e9 || number.abs() < 1e-4 {
        return format!("{number}");
    }
    let decimals = (3 - number.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

impl Condition {
    fn names<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Self::Always(_) => {}
            Self::Not(inner) => inner.names(found),
            Self::And(left, right) | Self::Or(left, right) => {
                left.names(found);
                right.names(found);
            }
            Self::Compare(left, _, right) => {
                for term in [left, right] {
                    if let Term::Name(name) = term
                        && !found.contains(&name.as_str())
                    {
                        found.push(name);
                    }
                }
            }
        }
    }

    fn holds(&self, value: &dyn Fn(&str) -> f64) -> bool {
        let number = |term: &Term| match term {
            Term::Number(number) => *number,
            Term::Name(name) => value(name),
        };
        match self {
            Self::Always(truth) => *truth,
            Self::Not(inner) => !inner.holds(value),
            Self::And(left, right) => left.holds(value) && right.holds(value),
            Self::Or(left, right) => left.holds(value) || right.holds(value),
            Self::Compare(left, comparison, right) => {
                let (left, right) = (number(left), number(right));
                match comparison {
                    Comparison::Less => left < right,
                    Comparison::LessOrEqual => left <= right,
                    Comparison::Greater => left > right,
                    Comparison::GreaterOrEqual => left >= right,
                    Comparison::Equal => left == right,
                    Comparison::NotEqual => left != right,
                }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Bool(bool),
    Compare(Comparison),
    Term(Term),
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, (usize, String)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, len) = match first {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '<' | '>' | '=' | '!' => comparison(rest).map_err(|message| (at, message))?,
            c if c.is_ascii_digit() || c == '-' || c == '+' || c == '.' => {
                number(rest).ok_or_else(|| (at, "a number or the name of a metric expected here".to_owned()))?
            }
            c if c.is_ascii_alphabetic() || c == '_' => word(rest),
            '&' | '|' => return Err((at, "write `and` or `or`".to_owned())),
            c => return Err((at, format!("`{c}` has no meaning here"))),
        };
        tokens.push((at, token));
        at += len;
    }
    Ok(tokens)
}

fn comparison(rest: &str) -> Result<(Token, usize), String> {
    use Comparison as C;
    for (sign, comparison) in [
        ("<=", C::LessOrEqual),
        (">=", C::GreaterOrEqual),
        ("==", C::Equal),
        ("!=", C::NotEqual),
        ("<", C::Less),
        (">", C::Greater),
    ] {
        if rest.starts_with(sign) {
            return Ok((Token::Compare(comparison), sign.len()));
        }
    }
    Err(if rest.starts_with('=') { "write `==` to compare".to_owned() } else { "write `not`".to_owned() })
}

fn number(rest: &str) -> Option<(Token, usize)> {
    let bytes = rest.as_bytes();
    let is_part = |at: usize| match bytes[at] {
        b'0'..=b'9' | b'.' | b'e' | b'E' => true,
        b'+' | b'-' => at == 0 || matches!(bytes[at - 1], b'e' | b'E'),
        _ => false,
    };
    let len = (0..bytes.len()).find(|at| !is_part(*at)).unwrap_or(bytes.len());
    let number: f64 = rest[..len].parse().ok()?;
    number.is_finite().then_some((Token::Term(Term::Number(number)), len))
}

fn word(rest: &str) -> (Token, usize) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_./-@".contains(c);
    let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let token = match &rest[..len] {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        "true" => Token::Bool(true),
        "false" => Token::Bool(false),
        name => Token::Term(Term::Name(name.to_owned())),
    };
    (token, len)
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }
    fn wrong(&self, message: &str) -> (usize, String) {
        (self.tokens.get(self.next).map_or(self.end, |(at, _)| *at), message.to_owned())
    }
    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Condition, (usize, String)> {
        let mut left = self.and()?;
        while self.take(&Token::Or) {
            left = Condition::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Condition, (usize, String)> {
        let mut left = self.not()?;
        while self.take(&Token::And) {
            left = Condition::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Condition, (usize, String)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong("too deeply nested"));
        }
        let condition = if self.take(&Token::Not) {
            Condition::Not(Box::new(self.not()?))
        } else if self.take(&Token::Open) {
            let inner = self.or()?;
            if !self.take(&Token::Close) {
                return Err(self.wrong("`)` expected here"));
            }
            inner
        } else if let Some(Token::Bool(truth)) = self.peek() {
            let truth = *truth;
            self.next += 1;
            Condition::Always(truth)
        } else {
            self.compare()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn compare(&mut self) -> Result<Condition, (usize, String)> {
        let left = self.term()?;
        let Some(Token::Compare(comparison)) = self.peek() else {
            return Err(self.wrong("a comparison expected here, such as `> 0`"));
        };
        let comparison = *comparison;
        self.next += 1;
        Ok(Condition::Compare(left, comparison, self.term()?))
    }

    fn term(&mut self) -> Result<Term, (usize, String)> {
        let Some(Token::Term(term)) = self.peek() else {
            return Err(self.wrong("a number or the name of a metric expected here"));
        };
        let term = term.clone();
        self.next += 1;
        Ok(term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<f64> {
        match name {
            "acc" => Some(0.45),
            "acc_delta.lower95" => Some(-0.06),
            "loss_delta.lower95" => Some(0.25),
            "rewards/margins" => Some(1.5),
            "pass@1" => Some(1.0),
            "broken" => Some(f64::NAN),
            _ => None,
        }
    }
    fn holds(text: &str) -> bool {
        Expr::parse(text).unwrap().evaluate(&value).unwrap()
    }

    #[test]
    fn conditions_hold_or_not() {
        for text in [
            "acc > 0",
            "acc>=.45",
            "not acc > 1",
            "rewards/margins == 1.5 and pass@1 != 0",
            "-1e-1 < acc_delta.lower95",
            "acc > 1 or true",
            "(acc > 1 or acc < 1) and acc == 0.45",
            "acc > 1 and acc > 1 or acc < 1",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in ["acc_delta.lower95 > 0", "acc < 1 and (acc > 1 or false)", "not not acc > 1"] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn mistakes_say_where_and_what() {
        let error = |text: &str| Expr::parse(text).unwrap_err();
        assert_eq!(error("acc").0, 3);
        assert_eq!(error("acc = 1"), (4, "write `==` to compare".to_owned()));
        assert_eq!(error("acc > 1 && acc < 2"), (8, "write `and` or `or`".to_owned()));
        assert_eq!(error("0 < acc < 1").0, 8);
        assert_eq!(error("(acc > 1").0, 8);
        for text in ["", "acc >", "> 1", "acc > 1 acc", "acc ? 1", "acc > 1e999", "acc > é", "not", ")", "acc > 1..2"]
        {
            assert!(Expr::parse(text).is_err(), "{text}");
        }
        assert!(Expr::parse(&"(".repeat(100_000)).is_err());
        assert!(Expr::parse(&"not ".repeat(100_000)).is_err());
    }

    #[test]
    fn a_false_condition_shows_its_values() {
        let explain = |text: &str| Expr::parse(text).unwrap().explain(&value);
        assert_eq!(explain("acc_delta.lower95 > 0"), "`acc_delta.lower95 > 0` is false (lower95 = -0.06)");
        assert_eq!(
            explain("acc_delta.lower95 > 0 and loss_delta.lower95 > 0"),
            "`acc_delta.lower95 > 0 and loss_delta.lower95 > 0` is false (acc_delta.lower95 = -0.06, loss_delta.lower95 = 0.25)"
        );
        assert_eq!(explain("true"), "`true` is true");
    }

    #[test]
    fn a_metric_that_is_absent_or_nan_never_passes() {
        assert_eq!(Expr::parse("gone != 1").unwrap().evaluate(&value), Err("there is no metric `gone`".into()));
        assert!(Expr::parse("not broken > 1").unwrap().evaluate(&value).is_err());
        assert!(Expr::parse("true or gone > 1").unwrap().evaluate(&value).is_err());
    }
}
