//! The keys that leave a container's terminal and let its command go on. A value.

/// Docker's keys: Ctrl-P, Ctrl-Q.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// A sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl Default for Keys {
    fn default() -> Self {
        Self(DEFAULT.to_vec())
    }
}

/// Most keys of a sequence.
const KEYS_MAX: usize = 16;

impl std::str::FromStr for Keys {
    type Err = String;

    /// Keys with commas between: a letter or sign, or `ctrl-` and one of `a` to `z`, `@`, `[`, `\`, `]`,
    /// `^` and `_`, as in Docker. An empty text means the usual keys.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) if keys.len() <= KEYS_MAX => Ok(Self(keys)),
            Some(_) => Err(format!("at most {KEYS_MAX} keys")),
            None => Err("expected keys such as ctrl-p,ctrl-q or a".to_owned()),
        }
    }
}

/// A key as the terminal sends it: with Ctrl its code without the upper three bits (ECMA-48).
fn key(text: &str) -> Option<u8> {
    match (text.as_bytes(), text.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([one], _) if one.is_ascii_graphic() || *one == b' ' => Some(*one),
        (_, Some([letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => {
            Some(letter & 0x1f)
        }
        _ => None,
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub struct Escape {
    keys: Keys,
    /// The beginning of the keys, which were typed and not passed on yet.
    held: Vec<u8>,
}

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// To be passed on.
    Bytes(Vec<u8>),
    /// The keys, and what is to be passed on before.
    Left(Vec<u8>),
}

impl Escape {
    pub fn new(keys: Keys) -> Self {
        Self { keys, held: Vec::new() }
    }

    /// Takes what was typed. What may be the beginning of the keys is held back until more comes.
    pub fn take(&mut self, typed: &[u8]) -> Typed {
        let mut out = Vec::new();
        for byte in typed {
            self.held.push(*byte);
            while !self.keys.0.starts_with(&self.held) {
                out.push(self.held.remove(0));
            }
            if self.held == self.keys.0 {
                self.held.clear();
                return Typed::Left(out);
            }
        }
        Typed::Bytes(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        let bytes = |text: &str| text.parse::<Keys>().map(|keys| keys.0);
        for (text, keys) in [
            ("", vec![0x10, 0x11]),
            ("ctrl-p,ctrl-q", vec![0x10, 0x11]),
            ("a,ctrl-@", vec![b'a', 0]),
            ("ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,~", vec![27, 28, 29, 30, 31, b'~']),
        ] {
            assert_eq!(bytes(text).unwrap(), keys, "{text}");
        }
        let long = ["a"; 17].join(",");
        for bad in ["ctrl-", "ctrl-P", "ctrl-1", "ab", ",", "a,", "é", "ctrl-ab", "\u{1}", &long] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_keys_are_found_wherever_they_are_cut() {
        let mut escape = Escape::new("a,a,b".parse().unwrap());
        assert_eq!(escape.take(b"xa"), Typed::Bytes(b"x".to_vec()));
        assert_eq!(escape.take(b"c"), Typed::Bytes(b"ac".to_vec()));
        assert_eq!(escape.take(b"aa"), Typed::Bytes(vec![]));
        assert_eq!(escape.take(b"a"), Typed::Bytes(b"a".to_vec()));
        assert_eq!(escape.take(b"brest"), Typed::Left(vec![]));
        assert_eq!(escape.take(b"yaab"), Typed::Left(b"y".to_vec()));
    }
}
