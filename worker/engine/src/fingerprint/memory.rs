//! Sums over numbers in memory, as fast as the processor adds: every step waits for them.
// A tensor's numbers where they lie, and the processor's wider additions.
#![allow(unsafe_code)]

use tch::{Device, Tensor, kind::Element};

/// The bits of a number, read as a whole number.
pub(super) trait Bits: Element + Copy {
    fn whole(self) -> u32;
}

impl Bits for i16 {
    fn whole(self) -> u32 {
        u32::from(self as u16)
    }
}

impl Bits for i32 {
    fn whole(self) -> u32 {
        self as u32
    }
}

/// A tensor's numbers, in order, where they lie.
///
/// # Panics
/// When they are not in memory one after the other, or of another kind.
pub(super) fn numbers<T: Bits>(tensor: &Tensor) -> &[T] {
    assert!(
        tensor.device() == Device::Cpu && tensor.is_contiguous() && tensor.kind() == T::KIND,
        "numbers of kind {:?} that lie in memory in order",
        T::KIND
    );
    match tensor.numel() {
        0 => &[],
        // SAFETY: checked above; the tensor keeps the memory for as long as it is borrowed, and nothing but the thread
        // that is here writes to weights, gradients and moments.
        count => unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), count) },
    }
}

/// The sums, modulo 2^64, of the numbers times each of two keys.
pub(super) fn weighted_sums<T: Bits>(numbers: &[T], keys: [&[u32]; 2]) -> [u64; 2] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has them.
        return unsafe { wide(numbers, keys) };
    }
    plain(numbers, keys)
}

/// The same, compiled for registers of four sums instead of two: four times as fast.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn wide<T: Bits>(numbers: &[T], keys: [&[u32]; 2]) -> [u64; 2] {
    plain(numbers, keys)
}

#[inline(always)]
fn plain<T: Bits>(numbers: &[T], keys: [&[u32]; 2]) -> [u64; 2] {
    let mut sums = [0u64; 2];
    for ((number, a), b) in numbers.iter().zip(keys[0]).zip(keys[1]) {
        let bits = u64::from(number.whole());
        sums[0] = sums[0].wrapping_add(bits.wrapping_mul(u64::from(*a)));
        sums[1] = sums[1].wrapping_add(bits.wrapping_mul(u64::from(*b)));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::{plain, weighted_sums};

    /// Workers on two kinds of processors would never agree.
    #[test]
    fn every_processor_comes_to_the_same_sums() {
        let numbers: Vec<i32> = (0..4096).map(|i: i32| i.wrapping_mul(-1_640_531_527)).collect();
        let halves: Vec<i16> = numbers.iter().map(|number| *number as i16).collect();
        let keys = [2_654_435_761u32, 40_503]
            .map(|key| (0..4096u32).map(|i| i.wrapping_mul(key) | 1).collect::<Vec<_>>());
        for count in [0, 1, 7, 64, 4095, 4096] {
            let keys = [&keys[0][..count], &keys[1][..count]];
            assert_eq!(weighted_sums(&numbers[..count], keys), plain(&numbers[..count], keys));
            assert_eq!(weighted_sums(&halves[..count], keys), plain(&halves[..count], keys));
        }
    }
}
