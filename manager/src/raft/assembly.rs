//! Puts the pieces of an arriving snapshot together: the pure part of receiving one.

use bytes::{Bytes, BytesMut};

use super::fence::Refusal;
use super::wire::{MAX_SNAPSHOT_BYTES, SnapshotPiece};

/// At most one unfinished snapshot: one leader sends one, and a new transfer voids the old one.
#[derive(Debug, Default)]
pub(crate) struct Assembly(Option<Arriving>);

#[derive(Debug)]
struct Arriving {
    from: u64,
    transfer: u64,
    bytes: BytesMut,
}

impl Assembly {
    /// Adds a piece from manager `from`; gives the whole when it was the last one.
    ///
    /// # Errors
    /// [`Refusal::OutOfOrder`] when the piece does not follow what is there, which is dropped
    /// then, and the sender begins again; [`Refusal::SnapshotTooBig`].
    pub(crate) fn add(
        &mut self,
        from: u64,
        piece: &SnapshotPiece,
    ) -> Result<Option<Bytes>, Refusal> {
        let (size, limit) = (piece.total, MAX_SNAPSHOT_BYTES);
        if size > limit {
            return Err(Refusal::SnapshotTooBig { size, limit });
        }
        if piece.offset == 0 {
            let transfer = piece.transfer;
            self.0 = Some(Arriving { from, transfer, bytes: BytesMut::new() });
        }
        let this = |one: &&mut Arriving| one.from == from && one.transfer == piece.transfer;
        let Some(arriving) = self.0.as_mut().filter(this) else {
            return Err(Refusal::OutOfOrder { have: 0, got: piece.offset });
        };
        let have = arriving.bytes.len() as u64;
        let after = have + piece.bytes.0.len() as u64;
        if have != piece.offset || after > size {
            self.0 = None;
            return Err(Refusal::OutOfOrder { have, got: piece.offset });
        }
        arriving.bytes.extend_from_slice(&piece.bytes.0);
        if after < size {
            return Ok(None);
        }
        Ok(self.0.take().map(|whole| whole.bytes.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::raft::types::{Blob, Vote};

    fn piece(transfer: u64, offset: u64, total: u64, bytes: &[u8]) -> SnapshotPiece {
        let bytes = Blob(Bytes::copy_from_slice(bytes));
        SnapshotPiece { vote: Vote::new_committed(1, 1), transfer, offset, total, bytes }
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole(whole in prop::collection::vec(any::<u8>(), 1..200), cut in 1_usize..50) {
            let mut assembly = Assembly::default();
            let mut got = None;
            for (n, part) in whole.chunks(cut).enumerate() {
                prop_assert!(got.is_none(), "whole before the last piece");
                got = assembly.add(1, &piece(7, (n * cut) as u64, whole.len() as u64, part)).expect("fits");
            }
            prop_assert_eq!(got, Some(Bytes::from(whole)));
        }

        // Whatever arrives in whatever order, only the true whole of one transfer comes out.
        #[test]
        fn disorder_never_makes_a_wrong_whole(
            order in prop::collection::vec((1_u64..3, 0_usize..4), 1..30),
        ) {
            let wholes = [[0; 16], *b"AAAABBBBCCCCDDDD", *b"aaaabbbbccccdddd"];
            let mut assembly = Assembly::default();
            for (transfer, n) in order {
                let whole = wholes[transfer as usize];
                let part = &whole[n * 4..n * 4 + 4];
                if let Ok(Some(got)) = assembly.add(1, &piece(transfer, n as u64 * 4, 16, part)) {
                    prop_assert_eq!(&got[..], &whole[..]);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut assembly = Assembly::default();
        let late = assembly.add(1, &piece(7, 4, 8, b"late"));
        assert_eq!(late, Err(Refusal::OutOfOrder { have: 0, got: 4 }));
        assert_eq!(assembly.add(1, &piece(7, 0, 8, b"earl")), Ok(None));
        let other = assembly.add(2, &piece(7, 4, 8, b"else"));
        assert_eq!(other, Err(Refusal::OutOfOrder { have: 0, got: 4 }), "another sender");
        let long = assembly.add(1, &piece(7, 4, 8, b"too long"));
        assert_eq!(long, Err(Refusal::OutOfOrder { have: 4, got: 4 }));
        let size = MAX_SNAPSHOT_BYTES + 1;
        let big = assembly.add(1, &piece(8, 0, size, b"x"));
        assert_eq!(big, Err(Refusal::SnapshotTooBig { size, limit: MAX_SNAPSHOT_BYTES }));
    }
}
