//! The fast sum is the plain sum, for every length and every split.

use proptest::prelude::*;
use weft_wire::packet::checksum::Sum;

use crate::model::{bytes, cases, plain_sum};

/// Zero and its complement are one number in ones' complement.
fn same(sum: [u8; 2], plain: u16) -> bool {
    u16::from_be_bytes(sum) % 0xffff == plain % 0xffff
}

#[test]
fn all_short_lengths() {
    for length in 0..300 {
        for fill in [None, Some(0), Some(0xff)] {
            let bytes = fill.map_or_else(|| bytes(length, 7), |fill| vec![fill; length]);
            let plain = plain_sum(&[&bytes]);
            assert!(same(Sum::default().bytes(&bytes).partial(), plain), "{length} of {fill:?}");
            let mut copy = vec![0; length];
            assert!(same(Sum::default().copied(&bytes, &mut copy).partial(), plain), "{length}");
            assert_eq!(copy, bytes);
        }
    }
}

#[test]
fn nothing_overflows() {
    let ones = vec![0xff; 65_535];
    let mut sum = Sum::default();
    for _ in 0..1_000 {
        sum = sum.bytes(&ones).word(u16::MAX);
    }
    // The last byte of each round is 0xff00: a thousand times.
    let plain = (0..1_000).fold(0u32, |sum, _| (sum + 0xff00) % 0xffff) as u16;
    assert!(same(sum.partial(), plain));
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn parts_and_words(length in 0usize..70_000, half in 0usize..35_000, seed: u64, word: u16) {
        let bytes = bytes(length, seed);
        let (left, right) = bytes.split_at((2 * half).min(length / 2 * 2));
        let sum = Sum::default().bytes(left).word(word).bytes(right);
        prop_assert!(same(sum.partial(), plain_sum(&[&word.to_be_bytes(), &bytes])));
        prop_assert!(same(sum.less(word).partial(), plain_sum(&[&bytes])));
        prop_assert!(same(sum.finish(), !plain_sum(&[&word.to_be_bytes(), &bytes])));
        prop_assert_ne!(sum.finish_not_zero(), [0, 0]);
    }
}
