//! Cuts a template into text and the tokens inside `{{ }}`.

use serde_json::{Number, Value};

use super::TemplateError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text outside of actions.
    Text(String),
    Open,
    Close,
    /// A keyword or the name of a function.
    Word(String),
    /// `.Name`; true when it stands directly behind the token before it.
    Field(String, Glued),
    Dot,
    /// `$name`, without the dollar sign.
    Variable(String),
    Constant(Value),
    Declare,
    Assign,
    Pipe,
    Comma,
    LeftParen,
    RightParen,
}

/// Whether white space stands before a token: `$x.Name` is one operand, `$x .Name` are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Glued {
    Yes,
    No,
}

/// A token and the line it stands in, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) line: usize,
}

pub(super) fn lex(text: &str) -> Result<Vec<Spanned>, TemplateError> {
    let mut lexer = Lexer { rest: text, line: 1, out: Vec::new() };
    let mut trim_next = false;
    while let Some(start) = lexer.rest.find("{{") {
        let (before, action) = lexer.rest.split_at(start);
        let action = &action[2..];
        let trims_left = action.starts_with('-') && action[1..].starts_with(char::is_whitespace);
        lexer.text(before, trim_next, trims_left);
        lexer.rest = if trims_left { &action[1..] } else { action };
        trim_next = lexer.action()?;
    }
    let tail = lexer.rest;
    lexer.text(tail, trim_next, false);
    Ok(lexer.out)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    out: Vec<Spanned>,
}

impl Lexer<'_> {
    fn push(&mut self, token: Token) {
        self.out.push(Spanned { token, line: self.line });
    }

    fn fail<T>(&self, why: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::Parse { line: self.line, why: why.into() })
    }

    fn text(&mut self, raw: &str, trim_start: bool, trim_end: bool) {
        let mut text = raw;
        if trim_start {
            text = text.trim_start();
        }
        if trim_end {
            text = text.trim_end();
        }
        if !text.is_empty() {
            self.push(Token::Text(text.replace("\\t", "\t").replace("\\n", "\n")));
        }
        self.line += raw.matches('\n').count();
    }

    /// Reads up to and including `}}`; true if it was ` -}}`.
    fn action(&mut self) -> Result<bool, TemplateError> {
        if let Some(comment) = self.rest.trim_start().strip_prefix("/*") {
            return self.comment(comment);
        }
        self.push(Token::Open);
        let mut glued = Glued::No;
        loop {
            let trimmed = self.rest.trim_start();
            if trimmed.len() < self.rest.len() {
                let skipped = &self.rest[..self.rest.len() - trimmed.len()];
                self.line += skipped.matches('\n').count();
                glued = Glued::No;
                if let Some(rest) = trimmed.strip_prefix("-}}") {
                    self.rest = rest;
                    self.push(Token::Close);
                    return Ok(true);
                }
            }
            self.rest = trimmed;
            if let Some(rest) = trimmed.strip_prefix("}}") {
                self.rest = rest;
                self.push(Token::Close);
                return Ok(false);
            }
            self.token(glued)?;
            glued = Glued::Yes;
        }
    }

    fn comment(&mut self, body: &'_ str) -> Result<bool, TemplateError> {
        let Some(end) = body.find("*/") else { return self.fail("unclosed comment") };
        let after = &body[end + 2..];
        let close = after.trim_start();
        let (trims, rest) = match (close.strip_prefix("-}}"), close.strip_prefix("}}")) {
            (Some(rest), _) if close.len() < after.len() => (true, rest.len()),
            (_, Some(rest)) => (false, rest.len()),
            _ => return self.fail("comment ends before closing delimiter"),
        };
        self.rest = &self.rest[self.rest.len() - rest..];
        Ok(trims)
    }

    fn token(&mut self, glued: Glued) -> Result<(), TemplateError> {
        let Some(first) = self.rest.chars().next() else { return self.fail("unclosed action") };
        let simple = match first {
            '|' => Some((Token::Pipe, 1)),
            ',' => Some((Token::Comma, 1)),
            '(' => Some((Token::LeftParen, 1)),
            ')' => Some((Token::RightParen, 1)),
            '=' => Some((Token::Assign, 1)),
            ':' if self.rest.starts_with(":=") => Some((Token::Declare, 2)),
            _ => None,
        };
        if let Some((token, length)) = simple {
            self.push(token);
            self.rest = &self.rest[length..];
            return Ok(());
        }
        match first {
            '"' => self.quoted(),
            '`' => self.raw_string(),
            '\'' => self.character(),
            '.' if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            '.' => {
                self.rest = &self.rest[1..];
                let name = self.name();
                self.push(if name.is_empty() { Token::Dot } else { Token::Field(name, glued) });
                Ok(())
            }
            '$' => {
                self.rest = &self.rest[1..];
                let name = self.name();
                self.push(Token::Variable(name));
                Ok(())
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => self.number(),
            c if c.is_alphabetic() || c == '_' => {
                let word = self.name();
                self.push(match word.as_str() {
                    "true" => Token::Constant(Value::Bool(true)),
                    "false" => Token::Constant(Value::Bool(false)),
                    "nil" => Token::Constant(Value::Null),
                    _ => Token::Word(word),
                });
                Ok(())
            }
            c => self.fail(format!("unexpected {c:?} in command")),
        }
    }

    fn name(&mut self) -> String {
        let end =
            self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    fn number(&mut self) -> Result<(), TemplateError> {
        let end = self
            .rest
            .char_indices()
            .find(|&(at, c)| !(c.is_alphanumeric() || "._".contains(c) || at == 0))
            .map_or(self.rest.len(), |(at, _)| at);
        let (text, rest) = self.rest.split_at(end);
        let plain = text.trim_start_matches('+');
        let number = match (plain.parse::<i64>(), plain.parse::<f64>()) {
            (Ok(whole), _) => Some(Number::from(whole)),
            (_, Ok(real)) => Number::from_f64(real),
            _ => None,
        };
        let Some(number) = number else { return self.fail(format!("bad number syntax: {text:?}")) };
        self.rest = rest;
        self.push(Token::Constant(Value::Number(number)));
        Ok(())
    }

    fn raw_string(&mut self) -> Result<(), TemplateError> {
        let Some(end) = self.rest[1..].find('`') else {
            return self.fail("unterminated raw quoted string");
        };
        let text = self.rest[1..=end].to_owned();
        self.rest = &self.rest[end + 2..];
        self.line += text.matches('\n').count();
        self.push(Token::Constant(Value::String(text)));
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), TemplateError> {
        let text = self.delimited('"', "unterminated quoted string")?;
        self.push(Token::Constant(Value::String(text)));
        Ok(())
    }

    /// A character constant is a number in Go.
    fn character(&mut self) -> Result<(), TemplateError> {
        let text = self.delimited('\'', "unterminated character constant")?;
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => {
                self.push(Token::Constant(Value::from(u32::from(c))));
                Ok(())
            }
            _ => self.fail("malformed character constant"),
        }
    }

    fn delimited(&mut self, quote: char, unclosed: &str) -> Result<String, TemplateError> {
        let mut out = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[1 + at + 1..];
                    return Ok(out);
                }
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, 'r')) => out.push('\r'),
                    Some((_, c @ ('\\' | '"' | '\''))) => out.push(c),
                    Some((_, c)) => return self.fail(format!("unknown escape \\{c} in string")),
                    None => break,
                },
                c => out.push(c),
            }
        }
        self.fail(unclosed)
    }
}
