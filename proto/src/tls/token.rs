//! Join tokens: `WFTKN-1-<50 digits: sha256 of the root>-<25 digits: secret>`, both parts in base
//! 36.
//!
//! The first part lets the joining node know the right server before it has any certificate, the
//! second lets the server know the joining node. Parsing is strict and each way to be wrong has its
//! own message; none repeats any part of the token, as half of it is secret.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::base36::{self, DecodeError};
use super::pem;

/// The first part of every join token.
const PREFIX: &str = "WFTKN";
/// The only token version so far.
const VERSION: &str = "1";
/// Prefix, version, digest, secret.
const PARTS: usize = 4;
/// Digits that any 32 bytes fit into: 36^50 > 2^256.
const DIGEST_DIGITS: usize = 50;
/// Digits that any 16 bytes fit into: 36^25 > 2^128.
const SECRET_DIGITS: usize = 25;

/// What a node needs to join: which cluster to trust, and the proof that it may come in.
///
/// There is no `==` on purpose: secrets are compared in constant time by the manager that checks
/// them.
#[derive(Clone)]
pub struct JoinToken {
    /// SHA-256 of the root certificate's canonical PEM, see [`ca_digest`].
    pub ca_digest: [u8; 32],
    /// Decides the role; known to the managers and to whoever the operator gave the token.
    pub secret: [u8; 16],
}

impl JoinToken {
    /// True if one of the certificates in `roots_pem` is the root that this token was made for.
    pub fn pins(&self, roots_pem: &str) -> bool {
        pem::certificates(roots_pem)
            .is_ok_and(|roots| roots.iter().any(|root| ca_digest_of_der(root) == self.ca_digest))
    }
}

/// SHA-256 over the PEM bytes of a root certificate as they are stored.
pub fn ca_digest(root_pem: &str) -> [u8; 32] {
    Sha256::digest(root_pem.as_bytes()).into()
}

/// The same digest for a certificate that came over the wire, through its canonical PEM.
pub fn ca_digest_of_der(der: &[u8]) -> [u8; 32] {
    ca_digest(&pem::certificate_pem(der))
}

/// The part of a token that a format error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPart {
    /// The third part, the digest of the root certificate.
    Digest,
    /// The fourth part, the secret.
    Secret,
}

impl fmt::Display for TokenPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digest => "digest (third part)",
            Self::Secret => "secret (fourth part)",
        })
    }
}

/// Why a text is not a join token at all. Says nothing about whether the secret is a good one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenFormatError {
    /// The text does not begin as every token does.
    #[error("not a join token: it must begin with `{PREFIX}-`")]
    Prefix,
    /// The token is of a version that this program does not know.
    #[error("join token of an unknown version: this program knows version {VERSION}")]
    Version,
    /// Something was cut off or appended.
    #[error("join token has {found} parts between dashes, not {PARTS}")]
    Parts {
        /// How many there are.
        found: usize,
    },
    /// A part is too short or too long.
    #[error("the {part} of the join token has {found} characters, not {expected}")]
    Length {
        /// Which part.
        part: TokenPart,
        /// How long it must be.
        expected: usize,
        /// How long it is, in bytes.
        found: usize,
    },
    /// A part has a character that tokens never have.
    #[error(
        "the {part} of the join token has a character other than 0-9 and a-z at offset {position}"
    )]
    Alphabet {
        /// Which part.
        part: TokenPart,
        /// Offset within the part, in bytes.
        position: usize,
    },
    /// A part is a number larger than what it stands for can be.
    #[error("the {part} of the join token is a number out of range")]
    OutOfRange {
        /// Which part.
        part: TokenPart,
    },
}

impl FromStr for JoinToken {
    type Err = TokenFormatError;

    fn from_str(text: &str) -> Result<Self, TokenFormatError> {
        let parts: Vec<&str> = text.split('-').take(PARTS + 1).collect();
        if parts[0] != PREFIX {
            return Err(TokenFormatError::Prefix);
        }
        if parts.get(1).is_some_and(|version| *version != VERSION) {
            return Err(TokenFormatError::Version);
        }
        let [_, _, digest, secret] = parts[..] else {
            return Err(TokenFormatError::Parts { found: text.split('-').count() });
        };
        Ok(Self {
            ca_digest: part(TokenPart::Digest, digest, DIGEST_DIGITS)?,
            secret: part(TokenPart::Secret, secret, SECRET_DIGITS)?,
        })
    }
}

fn part<const N: usize>(
    part: TokenPart,
    text: &str,
    expected: usize,
) -> Result<[u8; N], TokenFormatError> {
    if text.len() != expected {
        return Err(TokenFormatError::Length { part, expected, found: text.len() });
    }
    base36::decode(text).map_err(|error| match error {
        DecodeError::Alphabet { position } => TokenFormatError::Alphabet { part, position },
        DecodeError::OutOfRange => TokenFormatError::OutOfRange { part },
    })
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base36::encode(&self.ca_digest, DIGEST_DIGITS);
        let secret = base36::encode(&self.secret, SECRET_DIGITS);
        write!(f, "{PREFIX}-{VERSION}-{digest}-{secret}")
    }
}

/// Keeps the secret out of logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base36::encode(&self.ca_digest, DIGEST_DIGITS);
        write!(f, "JoinToken({PREFIX}-{VERSION}-{digest}-…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Digest and secret as SwarmKit's token format encodes them, computed independently of this
    /// code.
    const DIGEST: &str = "34dvi31v87knx25nsoowcwtzo4vz28gpus46rhly3d5ayvalnx";
    const SECRET: &str = "000avh9he7dy896m08s18udxr";

    #[test]
    fn known_vector_both_ways() {
        let pem = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        let secret = std::array::from_fn(|i| i as u8);
        let token = JoinToken { ca_digest: ca_digest(pem), secret };
        let text = format!("WFTKN-1-{DIGEST}-{SECRET}");
        assert_eq!(token.to_string(), text);
        let parsed: JoinToken = text.parse().unwrap();
        assert_eq!((parsed.ca_digest, parsed.secret), (token.ca_digest, token.secret));
        assert_eq!(ca_digest_of_der(&[0x30]), token.ca_digest);
    }

    #[test]
    fn largest_values() {
        let text =
            "WFTKN-1-6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof-f5lxx1zz5pnorynqglhzmsp33";
        let token: JoinToken = text.parse().unwrap();
        assert_eq!((token.ca_digest, token.secret), ([0xff; 32], [0xff; 16]));
        assert_eq!(token.to_string(), text);
    }

    #[test]
    fn each_format_error_has_its_own_message() {
        use TokenFormatError as E;
        use TokenPart::{Digest, Secret};
        let length = |part, expected, found| E::Length { part, expected, found };
        let cases = [
            (String::new(), E::Prefix),
            (format!("SWMTKN-1-{DIGEST}-{SECRET}"), E::Prefix),
            (format!("wftkn-1-{DIGEST}-{SECRET}"), E::Prefix),
            (format!(" WFTKN-1-{DIGEST}-{SECRET}"), E::Prefix),
            (format!("WFTKN-2-{DIGEST}-{SECRET}"), E::Version),
            (format!("WFTKN-01-{DIGEST}-{SECRET}"), E::Version),
            ("WFTKN".to_owned(), E::Parts { found: 1 }),
            (format!("WFTKN-1-{DIGEST}"), E::Parts { found: 3 }),
            (format!("WFTKN-1-{DIGEST}-{SECRET}-0"), E::Parts { found: 5 }),
            (format!("WFTKN-1{}", "-".repeat(1 << 20)), E::Parts { found: (1 << 20) + 2 }),
            (format!("WFTKN-1-{}-{SECRET}", &DIGEST[1..]), length(Digest, 50, 49)),
            (format!("WFTKN-1-0{DIGEST}-{SECRET}"), length(Digest, 50, 51)),
            (format!("WFTKN-1-{DIGEST}-{}", &SECRET[..24]), length(Secret, 25, 24)),
            (format!("WFTKN-1-{DIGEST}-{SECRET}\n"), length(Secret, 25, 26)),
            (
                format!("WFTKN-1-{}-{SECRET}", DIGEST.to_uppercase()),
                E::Alphabet { part: Digest, position: 2 },
            ),
            (
                // A Cyrillic letter that looks like `a` takes two bytes.
                format!("WFTKN-1-{DIGEST}-00\u{430}{}", &SECRET[4..]),
                E::Alphabet { part: Secret, position: 2 },
            ),
            (format!("WFTKN-1-{}-{SECRET}", "z".repeat(50)), E::OutOfRange { part: Digest }),
            (format!("WFTKN-1-{DIGEST}-{}", "z".repeat(25)), E::OutOfRange { part: Secret }),
        ];
        for (text, expected) in cases {
            let shown: String = text.chars().take(100).collect();
            let error = text.parse::<JoinToken>().expect_err(&shown);
            assert_eq!(error, expected, "{shown}");
            assert!(!error.to_string().contains(&SECRET[4..]), "{error} tells the secret");
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let token: JoinToken = format!("WFTKN-1-{DIGEST}-{SECRET}").parse().unwrap();
        assert!(!format!("{token:?}").contains(SECRET));
    }

    proptest! {
        #[test]
        fn every_token_survives_the_round_trip(ca_digest: [u8; 32], secret: [u8; 16]) {
            let parsed: JoinToken = JoinToken { ca_digest, secret }.to_string().parse().unwrap();
            prop_assert_eq!((parsed.ca_digest, parsed.secret), (ca_digest, secret));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "(WFTKN-1-)?[0-9a-zA-Z\\PC-]{0,90}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
