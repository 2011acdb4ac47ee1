//! How progress is printed: bars that are drawn over on a terminal, elsewhere one line for each
//! change.

use std::{collections::BTreeMap, io::Write};

use super::track::{Line, View};
use crate::{error::CliError, output::escape::one_line};

/// Above so many tasks only the sum is drawn, as in Docker.
const MAX_BARS: usize = 20;
/// Characters of a reason that a line of progress shows; `service ps` has all of it.
const MAX_REASON: usize = 120;
/// Characters of a bar.
const BAR: usize = 42;

/// Prints views as they change.
#[derive(Debug)]
pub struct Printer {
    terminal: bool,
    quiet: bool,
    last: Option<(usize, usize, Vec<Line>)>,
    printed: BTreeMap<String, String>,
    overall: String,
    /// Lines on the terminal that are drawn over next time.
    drawn: usize,
}

impl Printer {
    pub fn new(terminal: bool, quiet: bool) -> Self {
        Self {
            terminal,
            quiet,
            last: None,
            printed: BTreeMap::new(),
            overall: String::new(),
            drawn: 0,
        }
    }

    /// Prints what changed; true if anything did.
    pub fn update(&mut self, view: &View, err: &mut dyn Write) -> Result<bool, CliError> {
        let now = (view.running, view.wanted, view.lines.clone());
        if self.last.as_ref() == Some(&now) {
            return Ok(false);
        }
        self.last = Some(now);
        match (self.quiet, self.terminal) {
            (true, _) => {}
            (false, true) => self.draw(view, err)?,
            (false, false) => self.print(view, err)?,
        }
        Ok(true)
    }

    /// The last word.
    pub fn done(&mut self, err: &mut dyn Write) -> Result<(), CliError> {
        if !self.quiet {
            writeln!(err, "verify: Service converged")?;
            err.flush()?;
        }
        Ok(())
    }

    fn print(&mut self, view: &View, err: &mut dyn Write) -> Result<(), CliError> {
        let overall = overall(view);
        if overall != self.overall {
            writeln!(err, "{overall}")?;
            self.overall = overall;
        }
        if view.lines.len() <= MAX_BARS {
            for line in &view.lines {
                let text = words(line);
                if self.printed.get(&line.name) != Some(&text) {
                    writeln!(err, "{}: {text}", one_line(&line.name))?;
                    self.printed.insert(line.name.clone(), text);
                }
            }
        }
        err.flush()?;
        Ok(())
    }

    fn draw(&mut self, view: &View, err: &mut dyn Write) -> Result<(), CliError> {
        let mut text = String::new();
        if self.drawn > 0 {
            // Up to the first line of the last drawing.
            text.push_str(&format!("\u{1b}[{}A", self.drawn));
        }
        let mut lines = vec![overall(view)];
        if view.lines.len() <= MAX_BARS {
            let width = view.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
            lines.extend(view.lines.iter().map(|line| bar(line, width)));
        }
        for line in &lines {
            // Clears what the line held before.
            text.push_str(&format!("\r\u{1b}[2K{line}\n"));
        }
        // Clears lines of tasks that are gone.
        text.push_str("\u{1b}[J");
        self.drawn = lines.len();
        err.write_all(text.as_bytes())?;
        err.flush()?;
        Ok(())
    }
}

fn overall(view: &View) -> String {
    format!("overall progress: {} out of {} tasks", view.running, view.wanted)
}

fn words(line: &Line) -> String {
    if line.reason.is_empty() {
        line.state.to_owned()
    } else {
        let reason = one_line(&line.reason);
        let cut: String = reason.chars().take(MAX_REASON).collect();
        let more = if cut.len() < reason.len() { "..." } else { "" };
        format!("{} ({cut}{more})", line.state)
    }
}

fn bar(line: &Line, width: usize) -> String {
    let name = one_line(&line.name);
    if !line.reason.is_empty() {
        return format!("{name:<width$}: {}", words(line));
    }
    let full = BAR * line.step / Line::STEPS;
    let head = if full < BAR { ">" } else { "" };
    let bar = format!("{}{head}", "=".repeat(full.saturating_sub(head.len())));
    format!("{name:<width$}: {:<9} [{bar:<BAR$}]", line.state)
}

#[cfg(test)]
mod tests {
    use super::super::track::Verdict;
    use super::*;

    fn view(running: usize, states: &[(&'static str, usize, &str)]) -> View {
        let lines: Vec<Line> = states
            .iter()
            .enumerate()
            .map(|(at, &(state, step, reason))| Line {
                name: format!("web.{}", at + 1),
                state,
                step,
                reason: reason.to_owned(),
            })
            .collect();
        View { running, wanted: lines.len(), lines, verdict: Verdict::Waiting }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_terminal_is_drawn_over_and_foreign_bytes_are_escaped() {
        let mut printer = Printer::new(true, false);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let before = view(0, &[("preparing", 5, ""), ("pending", 2, "no node\u{1b}[2J")]);
        assert!(printer.update(&before, &mut first).unwrap());
        assert_eq!(
            text(first),
            "\r\u{1b}[2Koverall progress: 0 out of 2 tasks\n\
             \r\u{1b}[2Kweb.1: preparing [=============================>            ]\n\
             \r\u{1b}[2Kweb.2: pending (no node\\u{1b}[2J)\n\u{1b}[J"
        );
        let after = view(1, &[("running", 7, "")]);
        assert!(printer.update(&after, &mut second).unwrap());
        let second = text(second);
        assert!(second.starts_with("\u{1b}[3A\r\u{1b}[2Koverall progress: 1 out of 1 tasks\n"));
        assert!(second.contains(&format!("web.1: running   [{}]\n", "=".repeat(BAR))), "{second}");
    }

    #[test]
    fn nothing_new_prints_nothing_and_quiet_prints_nothing_at_all() {
        let same = view(0, &[("pending", 2, "")]);
        for (terminal, quiet) in [(true, false), (false, false), (false, true)] {
            let mut printer = Printer::new(terminal, quiet);
            let (mut first, mut second) = (Vec::new(), Vec::new());
            assert!(printer.update(&same, &mut first).unwrap());
            assert_eq!(first.is_empty(), quiet);
            assert!(!printer.update(&same, &mut second).unwrap());
            assert!(second.is_empty());
        }
    }

    #[test]
    fn of_many_tasks_only_the_sum_is_shown() {
        let many = view(3, &[("pending", 2, ""); MAX_BARS + 1]);
        let mut out = Vec::new();
        Printer::new(false, false).update(&many, &mut out).unwrap();
        assert_eq!(text(out), "overall progress: 3 out of 21 tasks\n");
    }
}
