//! Lists: one set of rows, printed as a table, as IDs, as JSON lines or through a template.

use std::{collections::BTreeMap, io::Write};

use serde_json::{Map, Value};

use crate::{
    error::CliError,
    output::{escape::one_line, table, template::Template},
};

/// What a list has to show: the key of each field in `--format`, and its heading.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// Shown in the default table, in this order.
    pub shown: &'static [(&'static str, &'static str)],
    /// Only in `--format`.
    pub more: &'static [(&'static str, &'static str)],
    /// What `-q` prints.
    pub id: &'static str,
}

/// One object of a list.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Docker's keys, in the order of Docker's JSON.
    pub fields: Map<String, Value>,
    /// Cells that only the default table has.
    pub table: BTreeMap<String, String>,
    /// For `{{.Label "key"}}`.
    pub labels: BTreeMap<String, String>,
}

impl Row {
    /// A row of text fields.
    pub fn new<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let fields =
            fields.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text))).collect();
        Self { fields, ..Self::default() }
    }

    fn cell(&self, key: &str) -> String {
        if let Some(text) = self.table.get(key) {
            return one_line(text);
        }
        match self.fields.get(key) {
            Some(Value::String(text)) => one_line(text),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    /// What a template sees: text made harmless for the terminal, and the labels if it asks for
    /// single ones (`{{json .}}` must not show them twice).
    fn data(&self, format: &str) -> Value {
        let mut map: Map<String, Value> = self
            .fields
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => (key.clone(), Value::String(one_line(text))),
                other => (key.clone(), other.clone()),
            })
            .collect();
        if format.contains(".Label ") {
            let labels = self.labels.iter().map(|(k, v)| (k.clone(), Value::String(one_line(v))));
            map.insert("Label".into(), Value::Object(labels.collect()));
        }
        Value::Object(map)
    }
}

/// How the user wants a list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style<'a> {
    pub format: Option<&'a str>,
    pub quiet: bool,
}

/// Prints the rows. A template that cannot be applied fails before anything is printed.
pub fn print(
    columns: Columns,
    rows: &[Row],
    style: Style<'_>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let text = render(columns, rows, style)?;
    out.write_all(text.as_bytes())?;
    Ok(())
}

fn render(columns: Columns, rows: &[Row], style: Style<'_>) -> Result<String, CliError> {
    let format = style.format.map(str::trim).filter(|format| !format.is_empty());
    match format {
        None | Some("table") if style.quiet => {
            Ok(lines(rows.iter().map(|row| row.cell(columns.id))))
        }
        None | Some("table") => Ok(default_table(columns, rows)),
        Some("json") => {
            Ok(lines(rows.iter().map(|row| Value::Object(row.fields.clone()).to_string())))
        }
        Some(format) => match format.strip_prefix("table") {
            Some(rest) if rest.starts_with([' ', '\t', '{']) || rest.starts_with("\\t") => {
                template_table(columns, rows, rest.trim())
            }
            _ => {
                let template = compile(format)?;
                let rendered: Result<Vec<String>, CliError> =
                    rows.iter().map(|row| apply(&template, &row.data(format))).collect();
                Ok(lines(rendered?))
            }
        },
    }
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

fn default_table(columns: Columns, rows: &[Row]) -> String {
    let head = columns.shown.iter().map(|&(_, heading)| heading.to_owned()).collect();
    let body = rows.iter().map(|row| columns.shown.iter().map(|&(key, _)| row.cell(key)).collect());
    table::align(&std::iter::once(head).chain(body).collect::<Vec<_>>())
}

fn template_table(columns: Columns, rows: &[Row], text: &str) -> Result<String, CliError> {
    let template = compile(text)?;
    let headings = columns.shown.iter().chain(columns.more);
    let mut head: Map<String, Value> =
        headings.map(|&(key, heading)| (key.to_owned(), heading.into())).collect();
    head.insert("Label".into(), Value::Object(Map::new()));
    // A heading is text whatever the field is; a template that computes with the field has none.
    let head = template.render(&Value::Object(head)).unwrap_or_default();
    let mut all = vec![cells(&head)];
    for row in rows {
        all.push(cells(&apply(&template, &row.data(text))?));
    }
    Ok(table::align(&all))
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// Reads a template of the user's.
pub fn compile(text: &str) -> Result<Template, CliError> {
    Template::parse(text).map_err(|error| CliError::usage("--format", error))
}

/// Applies a template of the user's.
pub fn apply(template: &Template, data: &Value) -> Result<String, CliError> {
    template.render(data).map_err(|error| CliError::refused("--format", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns = Columns {
        shown: &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER")],
        more: &[("Labels", "LABELS")],
        id: "ID",
    };

    fn rows() -> Vec<Row> {
        let mut row = Row::new([
            ("ID", "0123456789ab".to_owned()),
            ("Name", "blue".to_owned()),
            ("Driver", "overlay".to_owned()),
            ("Labels", "a=b".to_owned()),
        ]);
        row.labels.insert("a".into(), "b".into());
        let other = Row::new([
            ("ID", "ba9876543210".to_owned()),
            ("Name", "x\u{1b}[31m".to_owned()),
            ("Driver", "overlay".to_owned()),
            ("Labels", String::new()),
        ]);
        vec![row, other]
    }

    fn shown(format: Option<&str>, quiet: bool) -> String {
        render(COLUMNS, &rows(), Style { format, quiet }).unwrap()
    }

    #[test]
    fn every_style() {
        insta::assert_snapshot!(shown(None, false), @r"
        NETWORK ID     NAME          DRIVER
        0123456789ab   blue          overlay
        ba9876543210   x\u{1b}[31m   overlay
        ");
        assert_eq!(shown(None, true), "0123456789ab\nba9876543210\n");
        assert_eq!(
            shown(Some("json"), false).lines().next().unwrap(),
            r#"{"ID":"0123456789ab","Name":"blue","Driver":"overlay","Labels":"a=b"}"#
        );
        assert_eq!(shown(Some("{{.Name}}:{{.Label \"a\"}}"), false), "blue:b\nx\\u{1b}[31m:\n");
        assert!(!shown(Some("{{json .}}"), false).contains("\"Label\""));
        insta::assert_snapshot!(shown(Some("table {{.ID}}\\t{{.Labels}}"), false), @r"
        NETWORK ID     LABELS
        0123456789ab   a=b
        ba9876543210   
        ");
    }

    #[test]
    fn a_bad_template_is_wrong_usage_and_a_missing_field_a_failure() {
        let style = |format| Style { format: Some(format), quiet: false };
        assert_eq!(render(COLUMNS, &rows(), style("{{.Name")).unwrap_err().exit_code(), 2);
        assert_eq!(render(COLUMNS, &rows(), style("{{.Nope}}")).unwrap_err().exit_code(), 1);
    }
}
