//! Why a task was ended that its health check found unhealthy.

use crate::health::Probe;

/// Characters of what the last check said that are told: the rest is in `weft inspect` while it runs.
const SAID_MAX: usize = 160;

/// `task: unhealthy container (exit code 1): wget: connection refused`
pub(super) fn reason(last: Option<&Probe>) -> String {
    let Some(probe) = last else { return "task: unhealthy container".to_owned() };
    let said = probe.output.lines().map(str::trim).rfind(|line| !line.is_empty());
    let said = said.map(|line| line.chars().take(SAID_MAX).collect::<String>());
    let said = said.map_or_else(String::new, |line| format!(": {line}"));
    format!("task: unhealthy container (exit code {}){said}", probe.exit_code)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_last_line_of_the_last_check_is_told() {
        let probe = |output: &str| Probe {
            started: SystemTime::UNIX_EPOCH,
            finished: SystemTime::UNIX_EPOCH,
            exit_code: 1,
            output: output.to_owned(),
        };
        let cases = [
            ("", "task: unhealthy container (exit code 1)"),
            ("one\ntwo \n\n", "task: unhealthy container (exit code 1): two"),
        ];
        for (output, reason) in cases {
            assert_eq!(super::reason(Some(&probe(output))), reason);
        }
        let long = super::reason(Some(&probe(&"x".repeat(9999))));
        assert!(long.len() < 2 * SAID_MAX, "{}", long.len());
        assert_eq!(super::reason(None), "task: unhealthy container");
    }
}
