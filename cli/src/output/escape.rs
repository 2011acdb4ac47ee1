//! Text that came from outside is escaped before it is printed: a name, a label or an error must
//! not be able to move the cursor, change colours, or forge a second line of output.

/// Most characters of a value that an error message repeats.
pub const SHOWN_CHARS: usize = 64;

/// The text with control characters and characters that reorder or hide text written as escapes.
/// Text without any is returned as it is.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if hidden(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// A value for an error message: escaped, and cut to [`SHOWN_CHARS`].
pub fn shown(value: &str) -> String {
    if value.chars().count() <= SHOWN_CHARS {
        return one_line(value);
    }
    let head: String = value.chars().take(SHOWN_CHARS - 3).collect();
    one_line(&head) + "..."
}

/// Controls, and the format characters that change the direction of text or take no width.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn foreign_bytes_cannot_move_the_cursor() {
        assert_eq!(one_line("plain übung 日本"), "plain übung 日本");
        assert_eq!(one_line("a\u{1b}[2Jb\nc\u{202e}d"), "a\\u{1b}[2Jb\\nc\\u{202e}d");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), SHOWN_CHARS);
    }

    proptest! {
        #[test]
        fn nothing_hidden_survives(text in any::<String>()) {
            prop_assert!(!one_line(&text).chars().any(hidden));
        }
    }
}
