//! Tables as Docker prints them: no borders, left-aligned columns, at least three blanks between
//! two columns, so that `grep` and `awk` work on them.

/// Blanks between the widest cell of a column and the next column.
const PADDING: usize = 3;
/// A column is never narrower than this, blanks included (as Docker's writer is set up).
const MIN_WIDTH: usize = 10;

/// Lays out rows whose cells are separated by tabs. The last cell of a row is not padded.
/// A column's width is that of its widest cell in all rows; every row ends with a newline.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|column| width(rows, column)).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                let blanks = widths[column].saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', blanks));
            }
        }
        out.push('\n');
    }
    out
}

fn width(rows: &[Vec<String>], column: usize) -> usize {
    let widest =
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    (widest.unwrap_or(0) + PADDING).max(MIN_WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_and_the_last_is_not() {
        let rows = [vec!["NETWORK ID", "NAME", "DRIVER"], vec!["0123456789ab", "blue", "overlay"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect();
        assert_eq!(
            align(&rows),
            "NETWORK ID     NAME      DRIVER\n0123456789ab   blue      overlay\n"
        );
    }

    #[test]
    fn no_rows_are_no_text() {
        assert_eq!(align(&[]), "");
    }
}
