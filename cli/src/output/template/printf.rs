//! `printf` with the verbs that people use: `%s %q %v %d %t %x %X %o %b %c %f %e %g %%`, flags
//! `- + 0` and a width and precision.

use serde_json::Value;

use super::show;

/// Widest field and longest precision; more would let a template ask for gigabytes.
const MAX_FIELD: usize = 1_000;

#[derive(Debug, Default, Clone, Copy)]
struct Spec {
    minus: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// Formats as Go does; a wrong verb becomes Go's `%!d(string=x)`, never an error.
pub(super) fn printf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let spec = spec(&mut chars);
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match args.next() {
                Some(arg) => out.push_str(&pad(spec, verb, &one(spec, verb, arg))),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    let extra: Vec<String> =
        args.map(|arg| format!("{}={}", show::kind(arg), show::inner(arg))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn spec(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Spec {
    let mut spec = Spec::default();
    while let Some(&c) = chars.peek() {
        match c {
            '-' => spec.minus = true,
            '0' => spec.zero = true,
            '+' => spec.plus = true,
            ' ' | '#' => {}
            _ => break,
        }
        chars.next();
    }
    spec.width = digits(chars);
    if chars.peek() == Some(&'.') {
        chars.next();
        spec.precision = Some(digits(chars));
    }
    spec
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut number = 0usize;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        number = (number * 10 + digit as usize).min(MAX_FIELD);
        chars.next();
    }
    number
}

fn one(spec: Spec, verb: char, arg: &Value) -> String {
    let formatted = match (verb, arg) {
        ('v', arg) => Some(show::inner(arg)),
        ('s', Value::String(text)) => Some(cut(text, spec.precision)),
        ('s', Value::Array(_) | Value::Object(_)) => Some(show::inner(arg)),
        ('q', Value::String(text)) => Some(format!("{text:?}")),
        ('t', Value::Bool(b)) => Some(b.to_string()),
        ('x', Value::String(text)) => Some(text.bytes().map(|b| format!("{b:02x}")).collect()),
        ('d' | 'x' | 'X' | 'o' | 'b' | 'c', Value::Number(n)) => {
            n.as_i64().and_then(|n| int(verb, n))
        }
        ('f' | 'F' | 'e' | 'g', Value::Number(n)) => n.as_f64().map(|n| real(spec, verb, n)),
        _ => None,
    };
    match formatted {
        Some(text) if spec.plus && arg.is_number() && !text.starts_with('-') => format!("+{text}"),
        Some(text) => text,
        None => format!("%!{verb}({}={})", show::kind(arg), show::inner(arg)),
    }
}

fn int(verb: char, n: i64) -> Option<String> {
    let sign = if n < 0 { "-" } else { "" };
    let n = n.unsigned_abs();
    Some(match verb {
        'd' => format!("{sign}{n}"),
        'x' => format!("{sign}{n:x}"),
        'X' => format!("{sign}{n:X}"),
        'o' => format!("{sign}{n:o}"),
        'b' => format!("{sign}{n:b}"),
        _ => char::from_u32(u32::try_from(n).ok()?)?.to_string(),
    })
}

fn real(spec: Spec, verb: char, n: f64) -> String {
    match verb {
        'e' => format!("{n:.*e}", spec.precision.unwrap_or(6)),
        'g' => n.to_string(),
        _ => format!("{n:.*}", spec.precision.unwrap_or(6)),
    }
}

fn cut(text: &str, precision: Option<usize>) -> String {
    match precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    }
}

fn pad(spec: Spec, verb: char, text: &str) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    if missing == 0 {
        return text.to_owned();
    }
    if spec.minus {
        return format!("{text}{}", " ".repeat(missing));
    }
    if spec.zero && !"svqtc".contains(verb) {
        let (sign, digits) = match text.strip_prefix(['-', '+']) {
            Some(digits) => text.split_at(text.len() - digits.len()),
            None => ("", text),
        };
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    format!("{}{text}", " ".repeat(missing))
}
