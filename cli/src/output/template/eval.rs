//! Walks the tree of a template over a JSON value.

use serde_json::{Map, Value};

use super::{
    MAX_OUTPUT, MAX_STEPS, MAX_VALUES, TemplateError, funcs,
    parse::{Binding, Node, Operand, Pipeline},
    show,
};

/// Maps whose keys are the user's own. A key that such a map does not hold prints as
/// `<no value>`; elsewhere a missing name is a mistake in the template.
const FREE_MAPS: [&str; 6] =
    ["Labels", "Options", "AuxiliaryAddresses", "Label", "Sysctls", "Annotations"];

pub(super) fn render(nodes: &[Node], data: &Value) -> Result<String, TemplateError> {
    let mut eval = Eval { out: String::new(), steps: 0, bytes: 0, variables: vec![] };
    eval.variables.push((String::new(), data.clone()));
    eval.block(nodes, data)?;
    Ok(eval.out)
}

/// How a block ended.
enum Flow {
    On,
    Break,
    Continue,
}

struct Eval {
    out: String,
    steps: usize,
    /// Of all values so far.
    bytes: usize,
    /// Innermost last; `$` itself has the empty name.
    variables: Vec<(String, Value)>,
}

fn exec<T>(at: impl Into<String>, why: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError::Exec { at: at.into(), why: why.into() })
}

impl Eval {
    fn block(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if !matches!(flow, Flow::On) {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return exec("template", format!("more than {MAX_STEPS} steps"));
        }
        Ok(())
    }

    /// Counts a value that was made.
    fn count(&mut self, value: &Value) -> Result<(), TemplateError> {
        self.bytes += weight(value);
        if self.bytes > MAX_VALUES {
            return exec("template", format!("more than {MAX_VALUES} bytes of values"));
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.out.len() + text.len() > MAX_OUTPUT {
            return exec("template", format!("more than {MAX_OUTPUT} bytes of output"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        self.step()?;
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.binding == Binding::None {
                    self.write(&show::print(&value))?;
                }
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::If { condition, then, otherwise } => {
                let scope = self.variables.len();
                let holds = show::truth(&self.pipeline(condition, dot)?);
                let flow = self.block(if holds { then } else { otherwise }, dot);
                self.variables.truncate(scope);
                return flow;
            }
            Node::With { value, then, otherwise } => {
                let scope = self.variables.len();
                let value = self.pipeline(value, dot)?;
                let flow = if show::truth(&value) {
                    self.block(then, &value)
                } else {
                    self.block(otherwise, dot)
                };
                self.variables.truncate(scope);
                return flow;
            }
            Node::Range { over, body, otherwise } => return self.range(over, body, otherwise, dot),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let plain = Pipeline { variables: vec![], binding: Binding::None, ..over.clone() };
        let items = items(self.pipeline(&plain, dot)?)?;
        if items.is_empty() {
            return self.block(otherwise, dot);
        }
        for (key, item) in items {
            self.step()?;
            if !over.variables.is_empty() {
                self.count(&item)?;
            }
            let scope = self.variables.len();
            match (over.variables.as_slice(), over.binding) {
                ([value], binding) => self.bind(value, item.clone(), binding)?,
                ([index, value], binding) => {
                    self.bind(index, key, binding)?;
                    self.bind(value, item.clone(), binding)?;
                }
                _ => {}
            }
            let flow = self.block(body, &item)?;
            self.variables.truncate(scope);
            match flow {
                Flow::On | Flow::Continue => {}
                Flow::Break => break,
            }
        }
        Ok(Flow::On)
    }

    fn bind(&mut self, name: &str, value: Value, binding: Binding) -> Result<(), TemplateError> {
        if binding == Binding::Declare {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, slot)) => *slot = value,
            None => return exec(format!("${name}"), format!("undefined variable: ${name}")),
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut last: Option<Value> = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        let value = last.unwrap_or(Value::Null);
        for name in &pipeline.variables {
            self.bind(name, value.clone(), pipeline.binding)?;
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        self.step()?;
        let Some((head, rest)) = command.split_first() else {
            return exec("command", "missing value for command");
        };
        if let Operand::Function(name) = head {
            return self.call(name, rest, piped, dot);
        }
        let mut args = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            args.push(self.operand(operand, dot)?);
        }
        args.extend(piped);
        if args.is_empty() {
            return self.operand(head, dot);
        }
        self.method(head, &args, dot)
    }

    /// `.Label "key"` is the one method that Docker's lists have.
    fn method(
        &mut self,
        head: &Operand,
        args: &[Value],
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let Operand::Field(path) = head else {
            return exec("command", "can't give argument to non-function");
        };
        match (path.last().map(String::as_str), args) {
            (Some("Label"), [Value::String(key)]) => {
                let labels = self.operand(head, dot)?;
                Ok(labels.get(key).cloned().unwrap_or_else(|| Value::String(String::new())))
            }
            _ => {
                let at = format!(".{}", path.join("."));
                exec(at.clone(), format!("{at} has arguments but cannot be invoked as function"))
            }
        }
    }

    fn call(
        &mut self,
        name: &str,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        if matches!(name, "and" | "or") {
            return self.short_circuit(name, operands, piped, dot);
        }
        let mut args = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            args.push(self.operand(operand, dot)?);
        }
        args.extend(piped);
        let made = funcs::call(name, &args)
            .map_err(|why| TemplateError::Exec { at: name.to_owned(), why })?;
        self.count(&made)?;
        Ok(made)
    }

    /// `and` gives its first false argument, `or` its first true one, else the last.
    fn short_circuit(
        &mut self,
        name: &str,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let stops_at = name == "or";
        let mut last = None;
        for operand in operands {
            let value = self.operand(operand, dot)?;
            if show::truth(&value) == stops_at {
                return Ok(value);
            }
            last = Some(value);
        }
        match piped.or(last) {
            Some(value) => Ok(value),
            None => exec(name, format!("wrong number of args for {name}: want at least 1 got 0")),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        self.step()?;
        let value = match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Constant(value) => Ok(value.clone()),
            Operand::Field(path) => walk(dot, path),
            Operand::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                match found {
                    Some((_, value)) => walk(value, path),
                    None => exec(format!("${name}"), format!("undefined variable: ${name}")),
                }
            }
            Operand::Paren(inner, path) => {
                let value = self.pipeline(inner, dot)?;
                walk(&value, path)
            }
            Operand::Function(name) => self.call(name, &[], None, dot),
        }?;
        self.count(&value)?;
        Ok(value)
    }
}

/// About how many bytes a value takes.
fn weight(value: &Value) -> usize {
    let rest = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, item)| key.len() + weight(item)).sum(),
    };
    size_of::<Value>() + rest
}

/// What `range` goes over, with the index or key of each; maps in the order of their keys.
fn items(value: Value) -> Result<Vec<(Value, Value)>, TemplateError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => {
            Ok(items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect())
        }
        Value::Object(map) => {
            let mut items: Vec<(String, Value)> = map.into_iter().collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(items.into_iter().map(|(key, item)| (Value::String(key), item)).collect())
        }
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            exec("range", format!("range can't iterate over {}", show::inner(&other)))
        }
    }
}

fn walk(start: &Value, path: &[String]) -> Result<Value, TemplateError> {
    let mut value = start;
    let mut above = "";
    for name in path {
        let at = || format!(".{}", path.join("."));
        value = match value {
            Value::Object(map) => match lookup(map, name) {
                Some(found) => found,
                None if FREE_MAPS.contains(&above) => &Value::Null,
                None => return exec(at(), format!("map has no entry for key {name:?}")),
            },
            Value::Null => {
                return exec(at(), format!("nil pointer evaluating .{name}"));
            }
            other => {
                let kind = show::kind(other);
                return exec(at(), format!("can't evaluate field {name} in type {kind}"));
            }
        };
        above = name;
    }
    Ok(value.clone())
}

/// Docker's own types spell some fields `ID` and others `Id`; either finds the other.
fn lookup<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).or_else(|| match name {
        "ID" => map.get("Id"),
        "Id" => map.get("ID"),
        _ => None,
    })
}
