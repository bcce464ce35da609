//! Conditions over metrics and params: the grammar of `require` and `when`.
//!
//! ```text
//! or     = and { "or" and }            compare = term ("<" | "<=" | ">" | ">=" | "==" | "!=") term
//! and    = not { "and" not }           term    = number | name | "text" | "true" | "false"
//! not    = "not" not | "(" or ")" | "true" | "false" | param | compare
//! ```
//! A name may hold dots, slashes, dashes and `@`: `acc_delta.lower95`, `rewards/margins`, `pass@1`,
//! `eval@lora_r=8.acc`. A param that is true or false stands alone: `params.use_dpo and eval.acc > 0.4`.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use parse::Parser;

/// A chain of `and` nests as deep as it is long: its length is bounded by the text's.
const MAX_BYTES: usize = 4_000;

/// A condition and the text it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    text: String,
    condition: Condition,
}

/// A value that is known before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Number(f64),
    Bool(bool),
    Text(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Always(bool),
    /// A param that is true or false.
    Is(Term),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Compare(Term, Comparison, Term),
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Literal(Operand),
    /// A metric; or a param, once it has its value.
    Name(String, Option<Operand>),
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
        let condition = Parser::new(text)?.whole()?;
        Ok(Self { text: text.trim().to_owned(), condition })
    }

    /// As the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every name that has no value yet, once, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.condition.each_term(&mut |term| {
            if let Term::Name(name, None) = term
                && !names.contains(&name.as_str())
            {
                names.push(name.as_str());
            }
        });
        names
    }

    /// Gives names their values, before anything runs.
    pub fn bind(&mut self, value: &dyn Fn(&str) -> Option<Operand>) {
        self.condition.each_term_mut(&mut |term| {
            if let Term::Name(name, bound @ None) = term {
                *bound = value(name);
            }
        });
    }

    /// Whether each comparison makes sense: numbers by size, text and truth by equality alone. Names without a
    /// value are metrics: numbers.
    ///
    /// # Errors
    /// The first that does not, in words.
    pub fn check_types(&self) -> Result<(), String> {
        self.condition.check_types()
    }

    /// Decides it.
    ///
    /// # Errors
    /// A name without a value, or whose value is not a number: never a silent pass.
    pub fn evaluate(&self, value: &dyn Fn(&str) -> Option<f64>) -> Result<bool, String> {
        for name in self.names() {
            match value(name) {
                None => return Err(format!("there is no metric `{name}`")),
                Some(number) if number.is_nan() => return Err(format!("`{name}` is no finite number")),
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
        let mut known: Vec<(&str, Operand)> = Vec::new();
        self.condition.each_term(&mut |term| {
            if let Term::Name(name, bound) = term
                && !known.iter().any(|(other, _)| other == name)
            {
                let bound = bound.clone();
                known.push((name, bound.unwrap_or_else(|| Operand::Number(value(name).unwrap_or(f64::NAN)))));
            }
        });
        let short = |name: &str| name.rsplit(['.', '/']).next().unwrap_or_default().to_owned();
        let is_unique = |name: &str| known.iter().filter(|(other, _)| short(other) == short(name)).count() == 1;
        let values = known.iter().map(|(name, value)| {
            let shown = if is_unique(name) { short(name) } else { (*name).to_owned() };
            format!("{shown} = {value}")
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

/// As a condition writes it, numbers with four significant digits.
impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.write_str(&four_digits(*number)),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Text(text) => write!(f, "\"{text}\""),
        }
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
    fn each_term<'a>(&'a self, visit: &mut dyn FnMut(&'a Term)) {
        match self {
            Self::Always(_) => {}
            Self::Is(term) => visit(term),
            Self::Not(inner) => inner.each_term(visit),
            Self::And(left, right) | Self::Or(left, right) => {
                left.each_term(visit);
                right.each_term(visit);
            }
            Self::Compare(left, _, right) => {
                visit(left);
                visit(right);
            }
        }
    }

    fn each_term_mut(&mut self, visit: &mut dyn FnMut(&mut Term)) {
        match self {
            Self::Always(_) => {}
            Self::Is(term) => visit(term),
            Self::Not(inner) => inner.each_term_mut(visit),
            Self::And(left, right) | Self::Or(left, right) => {
                left.each_term_mut(visit);
                right.each_term_mut(visit);
            }
            Self::Compare(left, _, right) => {
                visit(left);
                visit(right);
            }
        }
    }

    fn check_types(&self) -> Result<(), String> {
        match self {
            Self::Always(_) => Ok(()),
            Self::Is(term) => match term.operand(&|_| f64::NAN) {
                Operand::Bool(_) => Ok(()),
                _ => Err(format!("`{term}` is neither true nor false: compare it with something")),
            },
            Self::Not(inner) => inner.check_types(),
            Self::And(left, right) | Self::Or(left, right) => left.check_types().and_then(|()| right.check_types()),
            Self::Compare(left, comparison, right) => {
                let (a, b) = (left.operand(&|_| f64::NAN), right.operand(&|_| f64::NAN));
                if a.what() != b.what() {
                    return Err(format!("`{left}` is {}, `{right}` is {}", a.what(), b.what()));
                }
                let is_ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
                match is_ordered && !matches!(a, Operand::Number(_)) {
                    true => Err(format!("{} is compared with `==` and `!=` alone", a.what())),
                    false => Ok(()),
                }
            }
        }
    }

    fn holds(&self, value: &dyn Fn(&str) -> f64) -> bool {
        match self {
            Self::Always(truth) => *truth,
            Self::Is(term) => term.operand(value) == Operand::Bool(true),
            Self::Not(inner) => !inner.holds(value),
            Self::And(left, right) => left.holds(value) && right.holds(value),
            Self::Or(left, right) => left.holds(value) || right.holds(value),
            Self::Compare(left, comparison, right) => {
                let (left, right) = (left.operand(value), right.operand(value));
                let order = match (&left, &right) {
                    (Operand::Number(left), Operand::Number(right)) => left.partial_cmp(right),
                    _ => None,
                };
                match comparison {
                    Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
                    Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
                    Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
                    Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
                    Comparison::Equal => left == right,
                    Comparison::NotEqual => left != right,
                }
            }
        }
    }
}

impl Term {
    fn operand(&self, value: &dyn Fn(&str) -> f64) -> Operand {
        match self {
            Self::Literal(operand) | Self::Name(_, Some(operand)) => operand.clone(),
            Self::Name(name, None) => Operand::Number(value(name)),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(operand) => operand.fmt(f),
            Self::Name(name, _) => f.write_str(name),
        }
    }
}

impl Operand {
    /// How a message names its type.
    fn what(&self) -> &'static str {
        match self {
            Self::Number(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Text(_) => "text",
        }
    }
}
