//! Which of the trained numbers a rank keeps moments and masters for, when `train.shard = "optimizer"`.
//!
//! The trained numbers lie end to end in one vector. It is cut into as many equal parts as there are ranks; the
//! last ones may be shorter, or empty where there are fewer numbers than ranks.

use std::ops::Range;

use crate::state::Slot;

/// One part of the trained numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Which part, below `count`.
    pub index: usize,
    /// Parts in all, at least 1.
    pub count: usize,
    /// Trained numbers in all parts together.
    pub total: i64,
}

impl Shard {
    /// All of `total` numbers.
    pub fn whole(total: i64) -> Self {
        Self { index: 0, count: 1, total }
    }

    pub fn is_whole(&self) -> bool {
        self.count == 1
    }

    /// Numbers that each rank brings to an exchange: the last parts are filled up with zeros.
    pub fn padded(&self) -> i64 {
        let count = self.count as i64;
        (self.total + count - 1) / count
    }

    /// The part's place in the vector.
    pub fn range(&self) -> Range<i64> {
        let from = (self.index as i64 * self.padded()).min(self.total);
        from..(from + self.padded()).min(self.total)
    }

    /// Numbers in it.
    pub fn length(&self) -> i64 {
        let range = self.range();
        range.end - range.start
    }
}

/// What a range of the vector and one parameter have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    /// Where it begins in the range.
    pub in_range: i64,
    /// Where it begins in the parameter.
    pub in_slot: i64,
    /// Its length; at least 1.
    pub length: i64,
}

/// The overlap of `range` and `slot`, where there is one.
pub(crate) fn overlap(range: &Range<i64>, slot: &Slot) -> Option<Overlap> {
    let from = range.start.max(slot.offset);
    let to = range.end.min(slot.offset + slot.length);
    (from < to).then(|| Overlap {
        in_range: from - range.start,
        in_slot: from - slot.offset,
        length: to - from,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Shard, overlap};
    use crate::state::Slot;

    proptest! {
        /// A number in no part would never be trained, one in two parts twice.
        #[test]
        fn every_number_lies_in_one_part_and_one_overlap(
            lengths in prop::collection::vec(1i64..50, 0..8),
            count in 1usize..9,
        ) {
            let mut slots = Vec::new();
            let mut total = 0;
            for (index, length) in lengths.into_iter().enumerate() {
                slots.push(Slot { index, offset: total, length });
                total += length;
            }
            let mut seen = vec![0; total as usize];
            for index in 0..count {
                let shard = Shard { index, count, total };
                prop_assert!(shard.length() <= shard.padded());
                let range = shard.range();
                for slot in &slots {
                    let Some(common) = overlap(&range, slot) else { continue };
                    for i in 0..common.length {
                        prop_assert_eq!(range.start + common.in_range, slot.offset + common.in_slot);
                        seen[(range.start + common.in_range + i) as usize] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|times| *times == 1));
        }
    }
}
