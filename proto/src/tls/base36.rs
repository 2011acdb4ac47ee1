//! Big-endian integers as base-36 text of a fixed length, the way join tokens carry digests and
//! secrets.

/// Digits in the order of their values; only these, so that a token survives any terminal and any
/// chat.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const BASE: u32 = 36;

/// Why a text is not a number of the wanted size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// The byte at this offset is not in `0-9a-z`.
    Alphabet { position: usize },
    /// The value needs more bytes than the field has.
    OutOfRange,
}

/// Writes `number` with exactly `digits` digits, padded with `0` on the left.
///
/// The caller chooses `digits` large enough for every value of that many bytes (50 for 32 bytes, 25
/// for 16).
pub(super) fn encode(number: &[u8], digits: usize) -> String {
    let mut rest = number.to_vec();
    let mut text = vec![ALPHABET[0]; digits];
    for digit in text.iter_mut().rev() {
        *digit = ALPHABET[divide(&mut rest) as usize];
    }
    text.into_iter().map(char::from).collect()
}

/// Divides the big-endian `number` by the base in place and returns the remainder, which is below
/// the base.
fn divide(number: &mut [u8]) -> u32 {
    number.iter_mut().fold(0, |remainder, byte| {
        let value = remainder << 8 | u32::from(*byte);
        // The quotient fits a byte because the remainder carried in is below the base.
        *byte = (value / BASE) as u8;
        value % BASE
    })
}

/// Reads a number of exactly `N` bytes, refusing every value that needs more.
pub(super) fn decode<const N: usize>(text: &str) -> Result<[u8; N], DecodeError> {
    let mut number = [0; N];
    for (position, byte) in text.bytes().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return Err(DecodeError::Alphabet { position }),
        };
        multiply_add(&mut number, digit).ok_or(DecodeError::OutOfRange)?;
    }
    Ok(number)
}

/// `number = number * base + digit`, or nothing if that overflows.
fn multiply_add(number: &mut [u8], digit: u8) -> Option<()> {
    let carry = number.iter_mut().rev().fold(u32::from(digit), |carry, byte| {
        let value = u32::from(*byte) * BASE + carry;
        // The low byte stays, the rest is carried.
        *byte = (value & 0xff) as u8;
        value >> 8
    });
    (carry == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_digest_survives_the_round_trip(number: [u8; 32]) {
            let text = encode(&number, 50);
            prop_assert_eq!(text.len(), 50);
            prop_assert_eq!(decode::<32>(&text), Ok(number));
        }

        #[test]
        fn text_order_is_number_order(a: [u8; 16], b: [u8; 16]) {
            prop_assert_eq!(encode(&a, 25).cmp(&encode(&b, 25)), a.cmp(&b));
        }
    }

    #[test]
    fn one_more_than_the_largest_is_out_of_range() {
        let largest = encode(&[0xff; 16], 25);
        assert_eq!(largest, "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(decode::<16>("f5lxx1zz5pnorynqglhzmsp34"), Err(DecodeError::OutOfRange));
        assert_eq!(decode::<16>(&"z".repeat(25)), Err(DecodeError::OutOfRange));
    }
}
