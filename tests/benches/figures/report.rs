//! The tables of `docs/benchmarks.md`. Each lies between two marks, so that the words around it,
//! which a person writes, stay when a figure is measured again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::stats::Sample;

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Told for its own sake.
    None,
}

impl Goal {
    pub fn show(self, value: f64) -> String {
        let (words, met) = match self {
            Self::AtLeast(bound) => (format!("at least {bound}"), value >= bound),
            Self::AtMost(bound) => (format!("at most {bound}"), value <= bound),
            Self::None => return String::new(),
        };
        // Without a peer there is no ratio to judge.
        let judged = if value.is_nan() {
            ""
        } else if met {
            ": met"
        } else {
            ": **short**"
        };
        format!("{words}{judged}")
    }
}

/// One line of a table: a quantity of ours, and of what it is compared with.
pub struct Row {
    cells: [String; 5],
}

impl Row {
    /// Ours beside a peer's, run by run; the goal is about the median of the ratios.
    pub fn ratio(what: &str, unit: &str, ours: &Sample, peer: &Sample, goal: Goal) -> Self {
        let ratio = ours.over(peer);
        Self {
            cells: [
                what.to_owned(),
                ours.show(unit),
                peer.show(unit),
                ratio.show(""),
                goal.show(ratio.median()),
            ],
        }
    }

    /// Ours against a bound in the same unit; the peer's is told if it is known.
    pub fn bound(what: &str, unit: &str, ours: &Sample, peer: &Sample, goal: Goal) -> Self {
        let ratio = ours.over(peer).show("");
        let goal = goal.show(ours.median());
        Self { cells: [what.to_owned(), ours.show(unit), peer.show(unit), ratio, goal] }
    }
}

/// The page, as it is on the disk.
pub struct Page {
    path: PathBuf,
    kept: Kept,
}

/// Whether the page is changed: a run without the peer must not take its numbers away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Written,
    OnlyShown,
}

impl Page {
    pub fn new(kept: Kept) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        Self { path, kept }
    }

    /// Puts a table of ours beside a peer where its marks are, or at the end, and shows it.
    pub fn put(&self, name: &str, rows: &[Row], notes: &[String]) {
        let rows: Vec<&[String]> = rows.iter().map(|row| &row.cells[..]).collect();
        self.put_table(name, &["", "ours", "peer", "ratio", "goal"], &rows, notes);
    }

    /// The same with other columns.
    pub fn put_table(
        &self,
        name: &str,
        head: &[&str],
        rows: &[impl AsRef<[String]>],
        notes: &[String],
    ) {
        let rule = "---|".repeat(head.len());
        let mut text = format!("| {} |\n|{rule}\n", head.join(" | ")).replace("|  |", "| |");
        for row in rows {
            text += &format!("| {} |\n", row.as_ref().join(" | "));
        }
        for note in notes {
            text += &format!("\n{note}\n");
        }
        println!("\n{name}\n{text}");
        if self.kept == Kept::OnlyShown {
            return;
        }
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let page = fs::read_to_string(&self.path).unwrap_or_default();
        let parts = page.split_once(&begin).and_then(|(before, rest)| {
            rest.split_once(&end).map(|(_, after)| (before.to_owned(), after.to_owned()))
        });
        let (before, after) = parts.unwrap_or_else(|| (format!("{page}\n"), "\n".to_owned()));
        fs::write(&self.path, format!("{before}{begin}{text}{end}{after}"))
            .expect("docs/benchmarks.md can be written");
    }
}
