//! Sizes as Docker words those of traffic: three digits, in powers of 1000.

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A number of bytes, such as `656B`, `1.21MB` or `12kB`.
pub fn human(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = 0;
    // What three digits would round to 1000 is one of the next unit.
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let decimals = if size < 9.995 {
        2
    } else if size < 99.95 {
        1
    } else {
        0
    };
    let text = format!("{size:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_shown() {
        let table = [
            (0, "0B"),
            (656, "656B"),
            (999, "999B"),
            (1000, "1kB"),
            (1210, "1.21kB"),
            (12_000, "12kB"),
            (12_340, "12.3kB"),
            (999_499, "999kB"),
            (999_500, "1MB"),
            (1_214_567, "1.21MB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, words) in table {
            assert_eq!(human(bytes), words, "{bytes}");
        }
    }
}
