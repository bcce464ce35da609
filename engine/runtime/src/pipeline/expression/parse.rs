//! A condition's text → its tree.

use super::{Comparison, Condition, Operand, Term};

/// Deeper nesting is refused, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
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
            '"' | '\'' => quoted(rest, first).ok_or_else(|| (at, format!("{first} without its end")))?,
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
    number.is_finite().then_some((Token::Term(Term::Literal(Operand::Number(number))), len))
}

/// Text between quotes; it has no escapes.
fn quoted(rest: &str, quote: char) -> Option<(Token, usize)> {
    let len = rest[1..].find(quote)?;
    Some((Token::Term(Term::Literal(Operand::Text(rest[1..=len].to_owned()))), len + 2))
}

fn word(rest: &str) -> (Token, usize) {
    // `=`, `,` and `+` are part of the name of a matrix's stage alone: `eval@lora_r=8,lr=0.0001`.
    let is_part = |at: usize, c: char| match c {
        '=' => {
            rest[..at].contains('@') && rest[at + 1..].starts_with(|next: char| next != '=' && !next.is_whitespace())
        }
        ',' | '+' => rest[..at].contains('='),
        _ => c.is_ascii_alphanumeric() || "_./-@".contains(c),
    };
    let len = rest.char_indices().find(|(at, c)| !is_part(*at, *c)).map_or(rest.len(), |(at, _)| at);
    let token = match &rest[..len] {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        "true" => Token::Term(Term::Literal(Operand::Bool(true))),
        "false" => Token::Term(Term::Literal(Operand::Bool(false))),
        name => Token::Term(Term::Name(name.to_owned(), None)),
    };
    (token, len)
}

pub(super) struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    end: usize,
}

impl Parser {
    pub fn new(text: &str) -> Result<Self, (usize, String)> {
        Ok(Self { tokens: tokens(text)?, next: 0, depth: 0, end: text.len() })
    }

    /// The condition that the whole text is.
    pub fn whole(mut self) -> Result<Condition, (usize, String)> {
        let condition = self.or()?;
        match self.peek() {
            None => Ok(condition),
            Some(Token::Compare(_)) => Err(self.wrong("one comparison at a time: join two with `and`")),
            Some(_) => Err(self.wrong("`and`, `or` or the end expected here")),
        }
    }

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
        } else {
            self.compare()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn compare(&mut self) -> Result<Condition, (usize, String)> {
        let left = self.term()?;
        let Some(Token::Compare(comparison)) = self.peek() else {
            return match left {
                Term::Literal(Operand::Bool(truth)) => Ok(Condition::Always(truth)),
                Term::Name(ref name, _) if name.starts_with("params.") => Ok(Condition::Is(left)),
                _ => Err(self.wrong("a comparison expected here, such as `> 0`")),
            };
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
