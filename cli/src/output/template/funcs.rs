//! The functions of a template: Go's own, and those that Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::{MAX_OUTPUT, MAX_PARTS, printf, show};

/// Longest result of `pad`, in characters.
const MAX_PAD: u64 = 1_000;

const NAMES: [&str; 25] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not",
    "or", "pad", "print", "printf", "println", "slice", "split", "table", "title", "truncate",
    "upper", "html",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function other than `and` and `or`, whose arguments are not all evaluated.
/// The error is the reason only.
pub(super) fn call(name: &str, args: &[Value]) -> Result<Value, String> {
    match name {
        "not" => one(name, args).map(|arg| Value::Bool(!show::truth(arg))),
        "json" => one(name, args).map(|arg| Value::String(arg.to_string())),
        "len" => len(one(name, args)?),
        "index" => index(args),
        "slice" => slice(args),
        "join" => join(args),
        "split" => split(args),
        "lower" => text(name, args).map(|s| Value::String(s.to_lowercase())),
        "upper" => text(name, args).map(|s| Value::String(s.to_uppercase())),
        "title" => text(name, args).map(|s| Value::String(title(s))),
        "html" => text(name, args).map(|s| Value::String(html(s))),
        "pad" => pad(args),
        "truncate" => truncate(args),
        "table" => Ok(Value::String(String::new())),
        "print" | "println" => Ok(Value::String(print(name, args))),
        "printf" => match args.split_first() {
            Some((Value::String(format), rest)) => Ok(Value::String(printf::printf(format, rest))),
            _ => Err("printf needs a format".to_owned()),
        },
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, args).map(Value::Bool),
        other => Err(format!("function {other:?} not defined")),
    }
}

fn one<'a>(name: &str, args: &'a [Value]) -> Result<&'a Value, String> {
    match args {
        [arg] => Ok(arg),
        _ => Err(format!("wrong number of args for {name}: want 1 got {}", args.len())),
    }
}

fn text<'a>(name: &str, args: &'a [Value]) -> Result<&'a str, String> {
    let arg = one(name, args)?;
    arg.as_str()
        .ok_or_else(|| format!("wrong type for {name}; expected string; got {}", show::kind(arg)))
}

fn len(arg: &Value) -> Result<Value, String> {
    match arg {
        Value::String(s) => Ok(s.len().into()),
        Value::Array(items) => Ok(items.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        Value::Null => Err("error calling len: len of nil pointer".to_owned()),
        Value::Bool(_) | Value::Number(_) => {
            Err(format!("error calling len: len of type {}", show::kind(arg)))
        }
    }
}

fn index(args: &[Value]) -> Result<Value, String> {
    let Some((first, keys)) = args.split_first() else {
        return Err("wrong number of args for index: want at least 1 got 0".to_owned());
    };
    keys.iter().try_fold(first.clone(), |value, key| step(&value, key))
}

/// One step of `index`. A key that a map does not hold gives the zero value of what it holds.
fn step(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Array(items), Value::Number(n)) => {
            let at = n.as_u64().and_then(|n| usize::try_from(n).ok());
            at.and_then(|at| items.get(at)).cloned().ok_or_else(|| {
                format!("error calling index: reflect: slice index out of range: {n}")
            })
        }
        (Value::Object(map), Value::String(key)) => Ok(match map.get(key) {
            Some(found) => found.clone(),
            None if map.values().all(Value::is_string) => Value::String(String::new()),
            None => Value::Null,
        }),
        (Value::String(s), Value::Number(n)) => {
            let at = n.as_u64().and_then(|n| usize::try_from(n).ok());
            at.and_then(|at| s.as_bytes().get(at))
                .map(|&byte| Value::from(byte))
                .ok_or_else(|| format!("error calling index: index out of range: {n}"))
        }
        (Value::Null, _) => Err("error calling index: index of untyped nil".to_owned()),
        (value, key) => Err(format!(
            "error calling index: cannot index {} with {}",
            show::kind(value),
            show::kind(key)
        )),
    }
}

fn slice(args: &[Value]) -> Result<Value, String> {
    let Some((value, bounds)) = args.split_first() else {
        return Err("wrong number of args for slice".to_owned());
    };
    let length = match value {
        Value::String(s) => s.len(),
        Value::Array(items) => items.len(),
        other => return Err(format!("error calling slice: can't slice {}", show::kind(other))),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(n) => n
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n <= length)
            .ok_or_else(|| format!("error calling slice: index out of range: {n}")),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to || bounds.len() > 2 {
        return Err(format!("error calling slice: invalid slice index: {from} > {to}"));
    }
    match value {
        Value::String(s) => s
            .get(from..to)
            .map(|part| Value::String(part.to_owned()))
            .ok_or_else(|| "error calling slice: inside of a character".to_owned()),
        Value::Array(items) => Ok(Value::Array(items[from..to].to_vec())),
        other => Err(format!("error calling slice: can't slice {}", show::kind(other))),
    }
}

/// `join LIST SEPARATOR`, as in Docker.
fn join(args: &[Value]) -> Result<Value, String> {
    match args {
        [Value::Array(items), Value::String(separator)] => {
            let between = separator.len().saturating_mul(items.len());
            if between > MAX_OUTPUT {
                return Err(format!("error calling join: more than {MAX_OUTPUT} bytes"));
            }
            let items: Vec<String> = items.iter().map(show::inner).collect();
            Ok(Value::String(items.join(separator)))
        }
        [Value::Null, Value::String(_)] => Ok(Value::String(String::new())),
        [list, separator] => Err(format!(
            "wrong type for join; expected []string and string; got {} and {}",
            show::kind(list),
            show::kind(separator)
        )),
        _ => Err(format!("wrong number of args for join: want 2 got {}", args.len())),
    }
}

fn split(args: &[Value]) -> Result<Value, String> {
    if let [Value::String(text), Value::String(separator)] = args
        && text.matches(separator.as_str()).count() >= MAX_PARTS
    {
        return Err(format!("error calling split: more than {MAX_PARTS} parts"));
    }
    match args {
        [Value::String(text), Value::String(separator)] if separator.is_empty() => {
            Ok(text.chars().map(|c| Value::String(c.to_string())).collect())
        }
        [Value::String(text), Value::String(separator)] => {
            Ok(text.split(separator.as_str()).map(|part| Value::String(part.to_owned())).collect())
        }
        _ => Err("wrong args for split: want two strings".to_owned()),
    }
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// `pad TEXT BEFORE AFTER`: blanks around a text that is not empty.
fn pad(args: &[Value]) -> Result<Value, String> {
    match args {
        [Value::String(text), Value::Number(before), Value::Number(after)] => {
            if text.is_empty() {
                return Ok(Value::String(String::new()));
            }
            let blanks =
                |n: &serde_json::Number| " ".repeat(n.as_u64().unwrap_or(0).min(MAX_PAD) as usize);
            Ok(Value::String(format!("{}{text}{}", blanks(before), blanks(after))))
        }
        _ => Err("wrong args for pad: want a string and two numbers".to_owned()),
    }
}

fn truncate(args: &[Value]) -> Result<Value, String> {
    match args {
        [Value::String(text), Value::Number(most)] => {
            let most = most.as_u64().unwrap_or(0);
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            Ok(Value::String(text.chars().take(most).collect()))
        }
        _ => Err("wrong args for truncate: want a string and a number".to_owned()),
    }
}

fn print(name: &str, args: &[Value]) -> String {
    if name == "println" {
        let parts: Vec<String> = args.iter().map(show::inner).collect();
        return parts.join(" ") + "\n";
    }
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        // Go puts a blank between two operands of which neither is a string.
        if at > 0 && !arg.is_string() && !args[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&show::inner(arg));
    }
    out
}

fn compare(name: &str, args: &[Value]) -> Result<bool, String> {
    let (first, others) = match args.split_first() {
        Some((first, others)) if !others.is_empty() => (first, others),
        _ => return Err(format!("error calling {name}: missing argument for comparison")),
    };
    if name == "eq" {
        for other in others {
            if same(name, first, other)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    let [second] = others else {
        return Err(format!("wrong number of args for {name}: want 2 got {}", args.len()));
    };
    if name == "ne" {
        return same(name, first, second).map(|same| !same);
    }
    let order = order(first, second)
        .ok_or_else(|| format!("error calling {name}: incompatible types for comparison"))?;
    Ok(match name {
        "lt" => order == Ordering::Less,
        "le" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })
}

fn same(name: &str, a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => Ok(order(a, b) == Some(Ordering::Equal)),
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (a, b) if std::mem::discriminant(a) == std::mem::discriminant(b) => Ok(a == b),
        _ => Err(format!("error calling {name}: incompatible types for comparison")),
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        _ => None,
    }
}
