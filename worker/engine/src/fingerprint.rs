//! A digest of many numbers that costs little: each number's bits times a key of its position, summed modulo
//! 2^64, in two lanes with different keys.
//!
//! It is exact arithmetic on whole numbers, so it comes out the same on every device and with any number of
//! threads; and it is a sum, so ranks that hold parts of a vector add up to the digest of the whole, however it
//! is cut. A change of one number alone is always seen: the key has 32 bits and is not 0, the difference has at
//! most 32 bits, so their product is not 0 modulo 2^64, and the block's multiplier is odd. Other changes stay
//! unseen with a chance of about 2^-64. It guards against faults, not against forgers.

mod memory;

use std::sync::LazyLock;

use memory::{Bits, weighted_sums};
use tch::{Device, Kind, Tensor};

/// Numbers that share a multiplier; each has its own key.
const BLOCK: usize = 1 << 12;
/// Blocks that a device sums in one operation: 2^23 numbers, 64 MiB as whole numbers.
const ROWS: i64 = 1 << 11;

static KEYS: LazyLock<[Vec<u32>; 2]> = LazyLock::new(|| {
    [0, 1].map(|lane| {
        let key = |place: usize| (mix(KEY_SEED + 2 * place as u64 + lane) >> 32) as u32 | 1;
        (0..BLOCK).map(key).collect()
    })
});

const KEY_SEED: u64 = 0x6d65_6465_766f_0000;
const BLOCK_SEED: u64 = 0x626c_6f63_6b00_0000;

/// The finaliser of SplitMix64 (Steele, Lea & Flood 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn multiplier(block: u64, lane: u64) -> u64 {
    mix(BLOCK_SEED + 2 * block + lane) | 1
}

/// The two sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub [u64; 2]);

impl std::ops::AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.wrapping_add(more);
        }
    }
}

/// Of `tensor`'s numbers in order, the first of which stands at `position` of the whole. Numbers of 2 or 4 bytes.
pub(crate) fn of(tensor: &Tensor, position: i64) -> Fingerprint {
    let _no_grad = tch::no_grad_guard();
    let flat = tensor.detach().contiguous().view([-1]);
    let half = flat.kind().elt_size_in_bytes() == 2;
    let bits = flat.view_dtype(if half { Kind::Int16 } else { Kind::Int });
    if bits.device() == Device::Cpu {
        if half {
            in_memory(memory::numbers::<i16>(&bits), position as u64)
        } else {
            in_memory(memory::numbers::<i32>(&bits), position as u64)
        }
    } else {
        on_device(&bits, position)
    }
}

/// Block by block.
fn in_memory<T: Bits>(bits: &[T], position: u64) -> Fingerprint {
    let mut print = Fingerprint::default();
    let (mut rest, mut at) = (bits, position as usize);
    while !rest.is_empty() {
        let (block, place) = (at / BLOCK, at % BLOCK);
        let (now, later) = rest.split_at(rest.len().min(BLOCK - place));
        let keys = [&KEYS[0][place..][..now.len()], &KEYS[1][place..][..now.len()]];
        let sums = weighted_sums(now, keys);
        let scaled = |lane: usize| sums[lane].wrapping_mul(multiplier(block as u64, lane as u64));
        print += Fingerprint([scaled(0), scaled(1)]);
        at += now.len();
        rest = later;
    }
    print
}

/// The same by tensor operations, so that nothing but the two sums leaves the device.
fn on_device(bits: &Tensor, position: i64) -> Fingerprint {
    let device = bits.device();
    let keys = [0, 1].map(|lane: usize| {
        let keys: Vec<i64> = KEYS[lane].iter().map(|key| i64::from(*key)).collect();
        Tensor::from_slice(&keys).to_device(device)
    });
    let mask = if bits.kind() == Kind::Int16 { 0xffff } else { 0xffff_ffff_i64 };
    let block = BLOCK as i64;
    let mut sums = [0, 1].map(|_| Tensor::zeros([1], (Kind::Int64, device)));
    let mut add = |from: i64, rows: i64, width: i64| {
        let at = position + from;
        let numbers = bits.narrow(0, from, rows * width).to_kind(Kind::Int64).bitwise_and(mask);
        let numbers = numbers.view([rows, width]);
        for (lane, sum) in sums.iter_mut().enumerate() {
            let scale = |row: i64| multiplier((at / block + row) as u64, lane as u64) as i64;
            let scales: Vec<i64> = (0..rows).map(scale).collect();
            let by_row = (&numbers * keys[lane].narrow(0, at % block, width)).sum_dim_intlist(
                [1i64].as_slice(),
                false,
                Kind::Int64,
            );
            let _ = sum
                .g_add_(&(by_row * Tensor::from_slice(&scales).to_device(device)).sum(Kind::Int64));
        }
    };
    let length = bits.size()[0];
    let mut from = 0;
    while from < length {
        let (left, place) = (length - from, (position + from) % block);
        let (rows, width) = if place == 0 && left >= block {
            ((left / block).min(ROWS), block)
        } else {
            (1, left.min(block - place))
        };
        add(from, rows, width);
        from += rows * width;
    }
    let [a, b] = sums;
    Fingerprint([a, b].map(|sum| sum.int64_value(&[0]) as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::{Kind, Tensor};

    use super::{BLOCK, Fingerprint, of, on_device};

    fn numbers(length: i64) -> Tensor {
        Tensor::arange(length, tch::kind::FLOAT_CPU).sin() - 0.3
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Ranks that cut the same numbers differently must come to the same digest.
        #[test]
        fn parts_add_up_to_the_whole(length in 1i64..20_000, cuts in prop::collection::vec(0.0f64..1.0, 0..4)) {
            let whole = numbers(length);
            let mut cuts: Vec<i64> = cuts.into_iter().map(|cut| (cut * length as f64) as i64).collect();
            cuts.extend([0, length]);
            cuts.sort_unstable();
            let mut sum = Fingerprint::default();
            for pair in cuts.windows(2) {
                sum += of(&whole.narrow(0, pair[0], pair[1] - pair[0]), pair[0]);
            }
            prop_assert_eq!(sum, of(&whole, 0));
        }

        /// One flipped bit, anywhere, is another digest, in each lane.
        #[test]
        fn one_bit_is_seen(length in 1i64..10_000, place in 0.0f64..1.0, bit in 0u32..32) {
            let whole = numbers(length);
            let place = (place * length as f64) as i64;
            let flipped = whole.copy();
            let bits = flipped.view_dtype(Kind::Int).narrow(0, place, 1);
            let flip = Tensor::from(1i32 << bit);
            bits.shallow_clone().copy_(&bits.bitwise_xor_tensor(&flip));
            let (before, after) = (of(&whole, 0), of(&flipped, 0));
            prop_assert!(before.0[0] != after.0[0] && before.0[1] != after.0[1]);
        }
    }

    /// A device that sums otherwise than the CPU would never agree with a checkpoint written elsewhere.
    #[test]
    fn tensor_operations_give_the_same_sums() {
        for (length, position) in [(1, 0), (4096, 0), (4095, 7), (30_000, 5000), (9000, 4095)] {
            let whole = numbers(length);
            let bits = whole.view_dtype(Kind::Int);
            assert_eq!(of(&whole, position), on_device(&bits, position), "{length} at {position}");
            let half = whole.to_kind(Kind::BFloat16);
            let bits = half.view_dtype(Kind::Int16);
            assert_eq!(of(&half, position), on_device(&bits, position), "half {length}");
        }
    }

    /// Weights that change places are other weights: in one block, in two, and on block borders.
    #[test]
    fn order_counts() {
        let length = 3 * BLOCK as i64;
        let whole = numbers(length);
        for (a, b) in [(0, 1), (5, BLOCK as i64 + 5), (BLOCK as i64 - 1, BLOCK as i64)] {
            let swapped = whole.copy();
            swapped.narrow(0, a, 1).copy_(&whole.narrow(0, b, 1));
            swapped.narrow(0, b, 1).copy_(&whole.narrow(0, a, 1));
            assert_ne!(of(&swapped, 0), of(&whole, 0));
        }
    }
}
