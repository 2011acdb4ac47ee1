//! Makes a tree of the tokens.

use std::{iter::Peekable, vec::IntoIter};

use serde_json::Value;

use super::{
    MAX_DEPTH, TemplateError, funcs,
    lex::{Glued, Spanned, Token},
};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
}

/// Commands whose results flow from left to right, perhaps into variables.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    pub(super) binding: Binding,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    None,
    Declare,
    Assign,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Dot,
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`
    Variable(String, Vec<String>),
    Constant(Value),
    /// `(pipeline).A.B`
    Paren(Box<Pipeline>, Vec<String>),
    Function(String),
}

pub(super) fn parse(tokens: Vec<Spanned>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), line: 1, depth: 0, loops: 0 };
    let (nodes, end) = parser.block()?;
    match end {
        Stop::Text => Ok(nodes),
        Stop::End => parser.fail("unexpected {{end}}"),
        Stop::Else | Stop::ElseIf | Stop::ElseWith => parser.fail("unexpected {{else}}"),
    }
}

/// What ended a list of nodes.
enum Stop {
    Text,
    End,
    Else,
    ElseIf,
    ElseWith,
}

struct Parser {
    tokens: Peekable<IntoIter<Spanned>>,
    line: usize,
    depth: usize,
    loops: usize,
}

impl Parser {
    fn fail<T>(&self, why: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::Parse { line: self.line, why: why.into() })
    }

    fn next(&mut self) -> Option<Token> {
        let Spanned { token, line } = self.tokens.next()?;
        self.line = line;
        Some(token)
    }

    fn peek(&mut self) -> Option<&Token> {
        self.tokens.peek().map(|spanned| &spanned.token)
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(format!("nested deeper than {MAX_DEPTH}"));
        }
        Ok(())
    }

    fn block(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        self.deeper()?;
        let mut nodes = Vec::new();
        let end = loop {
            match self.next() {
                None => break Stop::Text,
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(Token::Open) => match self.action()? {
                    Ok(node) => nodes.push(node),
                    Err(end) => break end,
                },
                Some(other) => return self.fail(format!("unexpected {other:?}")),
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    /// One action; the inner `Err` is an action that ends the block.
    fn action(&mut self) -> Result<Result<Node, Stop>, TemplateError> {
        let keyword = match self.peek() {
            Some(Token::Word(word)) => word.clone(),
            Some(Token::Close) => return self.fail("missing value for command"),
            _ => String::new(),
        };
        match keyword.as_str() {
            "if" | "with" | "range" => {
                self.next();
                Ok(Ok(self.control(&keyword)?))
            }
            "else" => {
                self.next();
                Ok(Err(self.after_else()?))
            }
            "end" => {
                self.next();
                self.close()?;
                Ok(Err(Stop::End))
            }
            "break" | "continue" => {
                self.next();
                if self.loops == 0 {
                    return self.fail(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                }
                self.close()?;
                Ok(Ok(if keyword == "break" { Node::Break } else { Node::Continue }))
            }
            "define" | "template" | "block" => {
                self.fail(format!("{{{{{keyword}}}}} is not supported in --format"))
            }
            _ => {
                let pipeline = self.pipeline(&Token::Close, 1)?;
                Ok(Ok(Node::Print(pipeline)))
            }
        }
    }

    fn after_else(&mut self) -> Result<Stop, TemplateError> {
        let end = match self.peek() {
            Some(Token::Word(word)) if word == "if" => Stop::ElseIf,
            Some(Token::Word(word)) if word == "with" => Stop::ElseWith,
            _ => {
                self.close()?;
                return Ok(Stop::Else);
            }
        };
        self.next();
        Ok(end)
    }

    fn control(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        self.deeper()?;
        let most_variables = if keyword == "range" { 2 } else { 1 };
        let head = self.pipeline(&Token::Close, most_variables)?;
        self.loops += usize::from(keyword == "range");
        let (body, end) = self.block()?;
        self.loops -= usize::from(keyword == "range");
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Else => match self.block()? {
                (nodes, Stop::End) => nodes,
                (_, Stop::Text) => return self.fail("unexpected EOF"),
                (_, Stop::Else | Stop::ElseIf | Stop::ElseWith) => {
                    return self.fail("expected end; found {{else}}");
                }
            },
            // `{{else if x}}` is `{{else}}{{if x}}` with one `{{end}}` for both.
            Stop::ElseIf => vec![self.control("if")?],
            Stop::ElseWith => vec![self.control("with")?],
            Stop::Text => return self.fail("unexpected EOF"),
        };
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If { condition: head, then: body, otherwise },
            "with" => Node::With { value: head, then: body, otherwise },
            _ => Node::Range { over: head, body, otherwise },
        })
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        match self.next() {
            Some(Token::Close) => Ok(()),
            Some(other) => self.fail(format!("unexpected {other:?}")),
            None => self.fail("unclosed action"),
        }
    }

    /// A pipeline up to and including `end`.
    fn pipeline(&mut self, end: &Token, most_variables: usize) -> Result<Pipeline, TemplateError> {
        let (variables, binding, first) = self.bindings(most_variables)?;
        let mut commands = Vec::new();
        let mut command: Vec<Operand> = Vec::new();
        command.extend(first);
        loop {
            if self.peek() == Some(end) {
                self.next();
                break;
            }
            if self.peek() == Some(&Token::Pipe) {
                self.next();
                self.finish(&mut commands, std::mem::take(&mut command))?;
                continue;
            }
            let operand = self.operand()?;
            command.push(operand);
        }
        self.finish(&mut commands, command)?;
        Ok(Pipeline { variables, binding, commands })
    }

    fn finish(
        &self,
        commands: &mut Vec<Vec<Operand>>,
        command: Vec<Operand>,
    ) -> Result<(), TemplateError> {
        if command.is_empty() {
            return self.fail("missing value for command");
        }
        let callable = !matches!(command[0], Operand::Constant(_) | Operand::Dot);
        if !callable && (command.len() > 1 || !commands.is_empty()) {
            return self.fail("a value cannot be called like a function");
        }
        commands.push(command);
        Ok(())
    }

    /// `$x :=`, `$i, $x :=` or `$x =`; a variable that is not followed by one of these is the
    /// first operand.
    #[allow(clippy::type_complexity)]
    fn bindings(
        &mut self,
        most: usize,
    ) -> Result<(Vec<String>, Binding, Option<Operand>), TemplateError> {
        let Some(Token::Variable(_)) = self.peek() else {
            return Ok((Vec::new(), Binding::None, None));
        };
        let Some(Token::Variable(first)) = self.next() else {
            return self.fail("unexpected end");
        };
        let mut variables = vec![first];
        if self.peek() == Some(&Token::Comma) {
            self.next();
            match self.next() {
                Some(Token::Variable(second)) if most > 1 => variables.push(second),
                Some(Token::Variable(_)) => return self.fail("too many declarations"),
                _ => return self.fail("expected a variable behind the comma"),
            }
        }
        let binding = match self.peek() {
            Some(Token::Declare) => Binding::Declare,
            Some(Token::Assign) => Binding::Assign,
            _ if variables.len() == 1 => {
                let name = variables.remove(0);
                let path = self.path();
                return Ok((variables, Binding::None, Some(Operand::Variable(name, path))));
            }
            _ => return self.fail("expected := behind the variables"),
        };
        self.next();
        Ok((variables, binding, None))
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        match self.next() {
            Some(Token::Dot) => Ok(Operand::Dot),
            Some(Token::Field(name, _)) => {
                let mut path = vec![name];
                path.extend(self.path());
                Ok(Operand::Field(path))
            }
            Some(Token::Variable(name)) => {
                let path = self.path();
                Ok(Operand::Variable(name, path))
            }
            Some(Token::Constant(value)) => Ok(Operand::Constant(value)),
            Some(Token::Word(word)) if funcs::exists(&word) => Ok(Operand::Function(word)),
            Some(Token::Word(word)) => self.fail(format!("function {word:?} not defined")),
            Some(Token::LeftParen) => {
                self.deeper()?;
                let inner = self.pipeline(&Token::RightParen, 0)?;
                self.depth -= 1;
                let path = self.path();
                Ok(Operand::Paren(Box::new(inner), path))
            }
            Some(Token::RightParen) => self.fail("unexpected right paren"),
            Some(other) => self.fail(format!("unexpected {other:?} in operand")),
            None => self.fail("unclosed action"),
        }
    }

    /// The fields that stand directly behind an operand.
    fn path(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while let Some(Token::Field(_, Glued::Yes)) = self.peek() {
            if let Some(Token::Field(name, _)) = self.next() {
                path.push(name);
            }
        }
        path
    }
}
