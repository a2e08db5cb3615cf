//! A step's work, split over ranks.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Longest-processing-time greedy: the heaviest item goes to the least loaded rank. Returns the item
/// indices of each rank, ascending. Deterministic: ties go to the lower index and the lower rank.
pub(crate) fn by_weight(weights: &[u64], ranks: usize) -> Vec<Vec<usize>> {
    let mut shares = vec![Vec::new(); ranks];
    let mut loads: BinaryHeap<Reverse<(u64, usize)>> =
        (0..ranks).map(|rank| Reverse((0, rank))).collect();
    let mut heaviest: Vec<usize> = (0..weights.len()).collect();
    heaviest.sort_by_key(|&i| (Reverse(weights[i]), i));
    for item in heaviest {
        let Some(Reverse((load, rank))) = loads.pop() else { break };
        loads.push(Reverse((load + weights[item], rank)));
        shares[rank].push(item);
    }
    for share in &mut shares {
        share.sort_unstable();
    }
    shares
}

/// `count` items in order of rank, as evenly as can be; the first ranks take what is over.
pub(crate) fn evenly(count: usize, ranks: usize) -> Vec<std::ops::Range<usize>> {
    let (each, over) = (count / ranks.max(1), count % ranks.max(1));
    let mut start = 0;
    (0..ranks)
        .map(|rank| {
            let end = start + each + usize::from(rank < over);
            let range = start..end;
            start = end;
            range
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // An item lost or doubled here would change the gradient.
        #[test]
        fn every_item_goes_to_exactly_one_rank(
            weights in prop::collection::vec(0_u64..5000, 0..40), ranks in 1_usize..9,
        ) {
            let mut all: Vec<usize> = by_weight(&weights, ranks).concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..weights.len()).collect::<Vec<_>>());
            let even: Vec<usize> = evenly(weights.len(), ranks).into_iter().flatten().collect();
            prop_assert_eq!(even, (0..weights.len()).collect::<Vec<_>>());
        }

        // A lopsided split makes every rank wait for the fullest.
        #[test]
        fn loads_differ_by_at_most_one_item(
            weights in prop::collection::vec(1_u64..5000, 1..40), ranks in 1_usize..9,
        ) {
            let loads: Vec<u64> = by_weight(&weights, ranks)
                .iter().map(|s| s.iter().map(|&i| weights[i]).sum()).collect();
            let heaviest = *weights.iter().max().expect("not empty");
            let (low, high) = (loads.iter().min(), loads.iter().max());
            prop_assert!(high.expect("ranks") - low.expect("ranks") <= heaviest);
        }
    }
}
