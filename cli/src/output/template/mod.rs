//! Go's template language as Docker users write it in `--format`, over JSON values.
//!
//! Reading order: `lex` cuts the text into tokens, `parse` makes a tree of it, `eval` walks the
//! tree, `funcs` and `printf` are the functions, `show` is how Go prints a value. All of it is
//! pure, and everything is limited: nesting, steps, values and output each have a named bound, so that no
//! template can exhaust the machine.

mod eval;
mod funcs;
mod lex;
mod parse;
mod printf;
mod show;
#[cfg(test)]
mod tests;

use serde_json::Value;

/// Longest template, in bytes.
pub const MAX_TEMPLATE: usize = 64 * 1024;
/// Deepest nesting of blocks and parentheses.
pub const MAX_DEPTH: usize = 50;
/// Most nodes that one rendering may visit.
pub const MAX_STEPS: usize = 1_000_000;
/// Longest output of one rendering, in bytes; also of one list that is joined.
pub const MAX_OUTPUT: usize = 16 * 1024 * 1024;
/// Most bytes of all values that one rendering may make, the copies that it works with included.
pub const MAX_VALUES: usize = 8 * MAX_OUTPUT;
/// Most parts that a text may be split into.
pub const MAX_PARTS: usize = 1 << 20;

/// Why a template was not understood, or could not be applied to a value. The texts follow Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("template parsing error: template: :{line}: {why}")]
    Parse { line: usize, why: String },
    #[error("template: executing {at:?}: {why}")]
    Exec { at: String, why: String },
}

/// A template that was understood and can be applied to any number of values.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template. `\t` and `\n` outside of actions stand for a tab and a newline, as in
    /// every list format of Docker's documentation.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE {
            let why = format!("longer than {MAX_TEMPLATE} bytes");
            return Err(TemplateError::Parse { line: 1, why });
        }
        Ok(Self { nodes: parse::parse(lex::lex(text)?)? })
    }

    /// Applies the template to one value.
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data)
    }
}
