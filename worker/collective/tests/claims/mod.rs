//! What every backend promises; engine and agent rely on exactly this. Each claim is asked of a communicator's
//! ranks with tensors on the device that the backend exchanges.
#![allow(clippy::unwrap_used)]

use std::thread;

use medevo_collective::Collective;
use tch::{Device, Kind, Tensor};

/// All ranks of a communicator, each with the device of its tensors.
pub type Ranks = Vec<(Box<dyn Collective>, Device)>;

/// Runs `body` on every rank at once and returns what each made of it, by rank.
pub fn on_each<T: Send + 'static>(
    ranks: Ranks,
    body: fn(&mut dyn Collective, Device) -> T,
) -> Vec<T> {
    let threads: Vec<_> =
        ranks.into_iter().map(|(mut c, on)| thread::spawn(move || body(c.as_mut(), on))).collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.to_kind(Kind::Double).reshape([-1])).unwrap()
}

pub fn sums_are_right_and_bit_equal(ranks: Ranks) {
    let world = ranks.len();
    let sums = on_each(ranks, |c, on| {
        let mut t =
            Tensor::linspace(0.0, 1.0, 1001, (Kind::Float, on)).sin() * (1.0 + c.rank() as f64);
        c.all_reduce_sum(&mut t).unwrap();
        Vec::<f32>::try_from(t).unwrap()
    });
    let weight: usize = (1..=world).sum();
    for (i, sum) in sums[0].iter().enumerate() {
        let expected = (i as f64 / 1000.0).sin() * weight as f64;
        assert!((f64::from(*sum) - expected).abs() < 1e-5, "element {i}: {sum} for {expected}");
    }
    for other in &sums[1..] {
        assert!(sums[0].iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

pub fn kinds_views_and_odd_shapes_are_summed(ranks: Ranks) {
    let world = ranks.len() as f64;
    for (int, double, bf16, view, scalar, empty) in on_each(ranks, |c, on| {
        let mut int = Tensor::from_slice(&[1i64, 1 << 40]).to_device(on);
        let mut double = Tensor::from_slice(&[0.1f64]).to_device(on);
        let mut bf16 = Tensor::ones([3], (Kind::BFloat16, on));
        let grid = Tensor::ones([4, 4], (Kind::Float, on));
        let mut view = grid.transpose(0, 1).narrow(0, 1, 2);
        let mut scalar = Tensor::from(2.0f32).to_device(on);
        let mut empty = Tensor::zeros([0], (Kind::Float, on));
        for t in [&mut int, &mut double, &mut bf16, &mut view, &mut scalar, &mut empty] {
            c.all_reduce_sum(t).unwrap();
        }
        (
            numbers(&int),
            numbers(&double),
            numbers(&bf16),
            numbers(&grid),
            numbers(&scalar),
            numbers(&empty),
        )
    }) {
        assert_eq!(int, [world, world * (1u64 << 40) as f64]);
        assert!((double[0] - 0.1 * world).abs() < 1e-12);
        assert_eq!(bf16, [world; 3]);
        // The view is columns 1 and 2 of the grid: the rest of its storage stays as it was.
        let row = [1.0, world, world, 1.0];
        assert_eq!(view, [row, row, row, row].concat());
        assert_eq!(scalar, [2.0 * world]);
        assert!(empty.is_empty());
    }
}

pub fn weights_that_train_can_be_exchanged(ranks: Ranks) {
    for value in on_each(ranks, |c, on| {
        let mut weight =
            Tensor::from_slice(&[c.rank() as f32 + 5.0]).to_device(on).set_requires_grad(true);
        c.broadcast(&mut weight, 0).unwrap();
        assert!(weight.requires_grad() && weight.is_leaf());
        numbers(&weight)
    }) {
        assert_eq!(value, [5.0]);
    }
}

pub fn every_root_can_broadcast(ranks: Ranks) {
    let world = ranks.len();
    for values in on_each(ranks, |c, on| {
        let mut seen = Vec::new();
        for root in 0..c.world() {
            let mut t = Tensor::full([2, 2], c.rank() as i64, (Kind::Float, on));
            c.broadcast(&mut t, root).unwrap();
            seen.extend(numbers(&t));
        }
        assert!(c.broadcast(&mut Tensor::from(0.0f32), c.world()).is_err());
        seen
    }) {
        let expected: Vec<f64> = (0..world).flat_map(|root| [root as f64; 4]).collect();
        assert_eq!(values, expected);
    }
}

pub fn gathering_keeps_order_and_shape(ranks: Ranks) {
    let world = ranks.len();
    for gathered in on_each(ranks, |c, on| {
        let mine = Tensor::full([2, 3], 10 + c.rank() as i64, (Kind::Int64, on));
        let scalar = c.all_gather(&Tensor::from(c.rank() as f32).to_device(on)).unwrap();
        assert!(scalar.iter().all(|t| t.dim() == 0));
        c.all_gather(&mine).unwrap().iter().map(|t| (t.size(), numbers(t))).collect::<Vec<_>>()
    }) {
        assert_eq!(gathered.len(), world);
        for (rank, (size, values)) in gathered.iter().enumerate() {
            assert_eq!(size, &[2, 3]);
            assert_eq!(values, &[10.0 + rank as f64; 6]);
        }
    }
}

/// The sharded optimizer steps each part with what this leaves in it: another rank's part, or another sum than
/// the whole reduction's, would be another run.
pub fn parts_of_the_sum_are_those_of_the_whole_sum(ranks: Ranks) {
    let world = ranks.len() as i64;
    let parts = on_each(ranks, |c, on| {
        let (rank, world) = (c.rank() as i64, c.world() as i64);
        let own =
            Tensor::linspace(0.0, 1.0, 41 * world, (Kind::Float, on)).sin() * (1.0 + rank as f64);
        let mut whole = own.copy();
        c.all_reduce_sum(&mut whole).unwrap();
        let mut part = Tensor::zeros([41], (Kind::Float, on));
        c.reduce_scatter_sum(&mut part, &own).unwrap();
        let error = (&part - whole.narrow(0, 41 * rank, 41)).abs().max().double_value(&[]);
        assert!(error < 1e-6, "part {rank} is off by {error}");
        // Nothing to scatter is no mistake.
        let nothing = || Tensor::zeros([0], (Kind::Float, on));
        c.reduce_scatter_sum(&mut nothing(), &nothing()).unwrap();
        numbers(&part)
    });
    assert_eq!(parts.len() as i64, world);
    let first = &parts[0];
    assert!(parts[1..].iter().all(|part| part != first), "each rank has its own part");
}

pub fn parts_are_laid_end_to_end(ranks: Ranks) {
    let world = ranks.len();
    for (whole, half) in on_each(ranks, |c, on| {
        let world = c.world() as i64;
        let part = Tensor::from_slice(&[c.rank() as f32, 10.0 + c.rank() as f32]).to_device(on);
        let mut whole = Tensor::zeros([2 * world], (Kind::Float, on));
        c.all_gather_into(&mut whole, &part).unwrap();
        let mut half = Tensor::zeros([2 * world], (Kind::BFloat16, on));
        c.all_gather_into(&mut half, &part.to_kind(Kind::BFloat16)).unwrap();
        (numbers(&whole), numbers(&half))
    }) {
        let expected: Vec<f64> = (0..world).flat_map(|r| [r as f64, 10.0 + r as f64]).collect();
        assert_eq!(whole, expected);
        assert_eq!(half, expected);
    }
}

/// Refused on every rank before anything is sent, so nobody is left waiting.
pub fn parts_that_do_not_fit_are_refused(ranks: Ranks) {
    for errors in on_each(ranks, |c, on| {
        let mut part = Tensor::zeros([2], (Kind::Float, on));
        let mut odd = Tensor::zeros([2 * c.world() as i64 + 1], (Kind::Float, on));
        let scatter = c.reduce_scatter_sum(&mut part, &odd).unwrap_err().to_string();
        let gather = c.all_gather_into(&mut odd, &part).unwrap_err().to_string();
        c.barrier().unwrap();
        [scatter, gather]
    }) {
        assert!(errors.iter().all(|error| error.contains("is not")), "{errors:?}");
    }
}

pub fn ranks_and_barriers(ranks: Ranks) {
    let world = ranks.len();
    let seen = on_each(ranks, |c, _| {
        for _ in 0..5 {
            c.barrier().unwrap();
        }
        (c.rank(), c.world())
    });
    assert_eq!(seen, (0..world).map(|rank| (rank, world)).collect::<Vec<_>>());
}

/// Makes a test of each claim in a module of its own: `conformance!(on_gloo: gloo(3), on_solo: solo())`. Ranks may be
/// None, where they cannot be had.
#[macro_export]
macro_rules! conformance {
    ($($backend:ident: $ranks:expr),+ $(,)?) => {
        $(mod $backend {
            use super::*;
            $crate::conformance!(@claims $ranks;
                sums_are_right_and_bit_equal,
                kinds_views_and_odd_shapes_are_summed,
                weights_that_train_can_be_exchanged,
                every_root_can_broadcast,
                gathering_keeps_order_and_shape,
                parts_of_the_sum_are_those_of_the_whole_sum,
                parts_are_laid_end_to_end,
                parts_that_do_not_fit_are_refused,
                ranks_and_barriers,
            );
        })+
    };
    (@claims $ranks:expr; $($claim:ident),+ $(,)?) => {
        $(#[test] fn $claim() {
            if let Some(ranks) = Option::<Ranks>::from($ranks) {
                claims::$claim(ranks);
            }
        })+
    };
}
