//! Names and labels: which are allowed, and how a bad one is shown without harm.

use std::collections::BTreeMap;

use super::Invalid;

/// Most characters of a name: a DNS label (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 63;
/// Most characters of a device's name (`IFNAMSIZ` of Linux, less the NUL).
const DEVICE_MAX: usize = 15;
/// Most labels on one object.
const LABELS_MAX: usize = 1_000;
/// Most bytes of a label's key and value together.
const LABEL_BYTES_MAX: usize = 64 * 1024;

/// Checks the name of an object.
///
/// # Errors
/// An [`Invalid`] that says what a name looks like.
pub fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && name.len() <= NAME_MAX {
        Ok(())
    } else {
        Err(Invalid::new(field, name, "must match [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}"))
    }
}

/// Checks the name of a network device (`dev_valid_name` of Linux).
///
/// # Errors
/// An [`Invalid`] that says what such a name looks like.
pub fn check_device(field: &str, name: &str) -> Result<(), Invalid> {
    let clean = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if (1..=DEVICE_MAX).contains(&name.len()) && clean && name != "." && name != ".." {
        return Ok(());
    }
    let reason =
        format!("must be the name of a device: 1 to {DEVICE_MAX} characters, no / : space");
    Err(Invalid::new(field, name, reason))
}

/// Checks the number and size of labels.
///
/// # Errors
/// An [`Invalid`] that names the limit.
pub fn check_label_count(labels: &BTreeMap<String, String>) -> Result<(), Invalid> {
    if labels.len() > LABELS_MAX {
        let reason = format!("at most {LABELS_MAX} labels are allowed");
        return Err(Invalid::new("labels", labels.len(), reason));
    }
    for (key, value) in labels {
        if key.is_empty() {
            return Err(Invalid::new("label", format!("={value}"), "the key is empty"));
        }
        if key.len() + value.len() > LABEL_BYTES_MAX {
            let reason = format!("key and value may have {LABEL_BYTES_MAX} bytes together");
            return Err(Invalid::new("label", key, reason));
        }
    }
    Ok(())
}

/// The text in quotes, with everything but printable ASCII escaped, cut to `most` characters.
pub fn escape(text: &str, most: usize) -> String {
    let escaped: String = text.escape_default().take(most + 1).collect();
    if escaped.chars().count() > most {
        let cut: String = escaped.chars().take(most).collect();
        format!("\"{cut}...\"")
    } else {
        format!("\"{escaped}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "web", "Web-1.x_y", &"a".repeat(63)] {
            assert_eq!(check_name("name", good), Ok(()), "{good}");
        }
        for bad in ["", "-a", ".", "../x", "a/b", "a b", "a\n", "ü", "a\0", "a ", &"a".repeat(64)]
        {
            assert!(check_name("name", bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            check_name("network name", "x\"; flush\u{1b}").unwrap_err().to_string(),
            "invalid network name \"x\\\"; flush\\u{1b}\": must match [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}"
        );
    }
}
