//! Readers of spans, sizes and CPUs.

use std::time::Duration;

use crate::output::escape::shown;

/// Longest span: beyond it is a typing mistake.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A span in Go's notation: `10s`, `1h30m`, `1.5s`, `250ms`; `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a span such as 10s, 1m30s or 24h";
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.starts_with('-') {
        return Err("a span cannot be negative".into());
    }
    if digits == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = digits;
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(|| format!("missing unit (ns, us, ms, s, m, h) behind {}", shown(rest)))?;
        let number: f64 = rest[..end].parse().map_err(|_| EXPECTED.to_owned())?;
        let tail = &rest[end..];
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        seconds += number * unit(&tail[..unit_end])?;
        rest = &tail[unit_end..];
    }
    if digits.is_empty() {
        return Err(EXPECTED.into());
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if span <= MAX_DURATION => Ok(span),
        _ => Err("longer than 100 years".into()),
    }
}

fn unit(text: &str) -> Result<f64, String> {
    Ok(match text {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("unknown unit {:?}: use ns, us, ms, s, m or h", shown(other))),
    })
}

/// A size in bytes: `512m`, `1.5g`, `64k`, `100b`, `1GiB`; units are powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a size such as 512m or 2g";
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
    let number: f64 = lower[..end].parse().map_err(|_| EXPECTED.to_owned())?;
    let power = match lower[end..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        other => return Err(format!("unknown unit {:?}: use b, k, m, g or t", shown(other))),
    };
    let size = number * 1024f64.powi(power);
    // Above 2^63 a size is a mistake whatever the machine.
    if size >= 9.2e18 { Err("too large".into()) } else { Ok(size as u64) }
}

/// CPUs as a decimal number, in billionths.
pub fn nano_cpus(text: &str) -> Result<u64, String> {
    const MOST_CPUS: f64 = 1e6;
    let cpus: f64 = text.parse().map_err(|_| "expected a number such as 0.5".to_owned())?;
    if !(0.0..=MOST_CPUS).contains(&cpus) {
        return Err("expected a number from 0 to 1000000".into());
    }
    let nano = (cpus * 1e9).round();
    if cpus > 0.0 && nano < 1.0 { Err("less than a billionth".into()) } else { Ok(nano as u64) }
}
