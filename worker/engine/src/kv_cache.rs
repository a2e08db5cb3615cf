//! Keys and values of prompts that were prefilled together, and of the answers drawn for them.
//!
//! There is one copy of a prompt's keys and values for all its answers, and it stays where the prefill put it.
//! An answer's own lie in one row of a buffer that never grows. When answers end or part, only the rows that
//! change their place are copied.

use medevo_model::Attend;
use tch::{Device, Kind, Tensor};

/// The cache of one cohort. A *row* is a partial answer, a *place* a prompt.
#[derive(Debug)]
pub struct KvCache {
    /// By layer: keys and values, each `[places, kv heads, length, head dim]`.
    prefix: Vec<(Tensor, Tensor)>,
    /// `[places, 1, 1, length]` f32: 0 where the prompt has a token, minus infinity on its padding. None where
    /// all prompts are equally long.
    prefix_bias: Option<Tensor>,
    /// By layer: `[capacity, kv heads, longest answer, head dim]`.
    own: Vec<(Tensor, Tensor)>,
    places: i64,
    grid: Grid,
    /// Answer tokens already in the buffers.
    filled: i64,
}

/// Rows laid out by place, `width` slots each, for the product with the prefixes. Unused slots repeat row 0.
#[derive(Debug)]
struct Grid {
    rows: i64,
    width: i64,
    /// Row of each slot, and slot of each row; none where they are the same.
    maps: Option<(Tensor, Tensor)>,
}

impl Grid {
    /// `place_of` names the place of each row.
    fn new(place_of: &[usize], places: i64, device: Device) -> Self {
        let mut used = vec![0i64; usize::try_from(places).unwrap_or(0)];
        for place in place_of {
            used[*place] += 1;
        }
        let width = used.iter().copied().max().unwrap_or(0);
        used.fill(0);
        let mut row_of = vec![0i64; used.len() * width as usize];
        let mut slot_of = Vec::with_capacity(place_of.len());
        for (row, place) in place_of.iter().enumerate() {
            let slot = *place as i64 * width + used[*place];
            used[*place] += 1;
            row_of[slot as usize] = row as i64;
            slot_of.push(slot);
        }
        let same = row_of.len() == slot_of.len()
            && slot_of.iter().enumerate().all(|(row, slot)| row as i64 == *slot);
        let index = |list: &[i64]| Tensor::from_slice(list).to_device(device);
        let maps = (!same).then(|| (index(&row_of), index(&slot_of)));
        Self { rows: place_of.len() as i64, width, maps }
    }
}

impl KvCache {
    /// Takes over what [`crate::attention::Prefill`] kept, with one row a place. `lengths` are the prompts'
    /// true lengths; at most `capacity` rows and `longest` tokens a row will ever be asked for.
    #[must_use]
    pub fn new(
        prefix: Vec<(Tensor, Tensor)>,
        lengths: &[i64],
        capacity: i64,
        longest: i64,
    ) -> Self {
        let places = lengths.len() as i64;
        let (device, padded) =
            prefix.first().map_or((Device::Cpu, 0), |(k, _)| (k.device(), k.size()[2]));
        let prefix_bias = lengths.iter().any(|length| *length < padded).then(|| {
            let token = Tensor::arange(padded, (Kind::Int64, device)).unsqueeze(0);
            let lengths = Tensor::from_slice(lengths).to_device(device).unsqueeze(1);
            Tensor::zeros([places, padded], (Kind::Float, device))
                .masked_fill(&token.ge_tensor(&lengths), f64::NEG_INFINITY)
                .view([places, 1, 1, padded])
        });
        let own = prefix
            .iter()
            .map(|(k, v)| (buffer(k, capacity, longest), buffer(v, capacity, longest)))
            .collect();
        let place_of: Vec<usize> = (0..lengths.len()).collect();
        let grid = Grid::new(&place_of, places, device);
        Self { prefix, prefix_bias, own, places, grid, filled: 0 }
    }

    /// Copies rows within the buffers, `(from, to)`; the places of the rows are then `place_of`.
    pub fn rearrange(&mut self, moves: &[(i64, i64)], place_of: &[usize]) {
        let device = self.device();
        if self.filled > 0 && !moves.is_empty() {
            let from: Vec<i64> = moves.iter().map(|step| step.0).collect();
            let to: Vec<i64> = moves.iter().map(|step| step.1).collect();
            let from = Tensor::from_slice(&from).to_device(device);
            let to = Tensor::from_slice(&to).to_device(device);
            for (k, v) in &self.own {
                for whole in [k, v] {
                    let mut used = whole.narrow(2, 0, self.filled);
                    // All are read before any is overwritten.
                    let _ = used.index_copy_(0, &to, &used.index_select(0, &from));
                }
            }
        }
        self.grid = Grid::new(place_of, self.places, device);
    }

    /// Gives back the room of all places but `keep`. The places of the rows are then `place_of`, counted
    /// among those kept.
    pub fn keep_places(&mut self, keep: &[i64], place_of: &[usize]) {
        let device = self.device();
        self.places = keep.len() as i64;
        let keep = Tensor::from_slice(keep).to_device(device);
        self.prefix_bias = self.prefix_bias.as_ref().map(|bias| bias.index_select(0, &keep));
        for (k, v) in &mut self.prefix {
            *k = k.index_select(0, &keep);
            *v = v.index_select(0, &keep);
        }
        self.grid = Grid::new(place_of, self.places, device);
    }

    /// Gives back the room of all rows but the first `capacity`, which are enough from now on.
    pub fn keep_rows(&mut self, capacity: i64) {
        let rows = self.grid.rows.min(capacity);
        let used = |whole: &Tensor| whole.narrow(0, 0, rows).narrow(2, 0, self.filled);
        for (k, v) in &mut self.own {
            for whole in [k, v] {
                let smaller = buffer(whole, capacity, whole.size()[2]);
                used(&smaller).copy_(&used(whole));
                *whole = smaller;
            }
        }
    }

    /// Tokens that there is room for, in prompts and rows together.
    #[must_use]
    pub fn tokens(&self) -> usize {
        let room = |(k, _): &(Tensor, Tensor)| k.size()[0] * k.size()[2];
        let all = self.prefix.first().map_or(0, room) + self.own.first().map_or(0, room);
        usize::try_from(all).unwrap_or(0)
    }

    fn device(&self) -> Device {
        self.prefix.first().map_or(Device::Cpu, |(k, _)| k.device())
    }

    /// One more token is in the buffers of every layer.
    pub fn advance(&mut self) {
        self.filled += 1;
    }

    /// Rows of the last arrangement.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.grid.rows
    }
}

/// `[rows, kv heads, length, head dim]` of `like`'s kind. Nothing is read that was not written before.
fn buffer(like: &Tensor, rows: i64, length: i64) -> Tensor {
    let size = like.size();
    Tensor::empty([rows, size[1], length, size[3]], (like.kind(), like.device()))
}

impl Attend for KvCache {
    /// q `[rows, heads, 1, head dim]`, k and v `[rows, kv heads, 1, head dim]`.
    /// One softmax over the scores against the prompt's keys and the answer's own: exact.
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let size = q.size();
        let (rows, heads, dim) = (size[0], size[1], size[3]);
        let kv_heads = k.size()[1];
        let shared = heads / kv_heads;
        let (places, width, seen) = (self.places, self.grid.width, self.filled + 1);
        let of_rows = |whole: &Tensor| whole.narrow(0, 0, rows);
        let (own_k, own_v) = &self.own[layer];
        let (own_k, own_v) = (of_rows(own_k), of_rows(own_v));
        own_k.narrow(2, self.filled, 1).copy_(k);
        own_v.narrow(2, self.filled, 1).copy_(v);
        let own_k = own_k.narrow(2, 0, seen); // [rows, kv, seen, d]
        let own_v = own_v.narrow(2, 0, seen);
        let (prefix_k, prefix_v) = &self.prefix[layer]; // [places, kv, length, d]
        let length = prefix_k.size()[2];

        // [rows, kv, shared, x] -> [places, kv, width · shared, x], and back.
        let to_places = |t: &Tensor, last: i64| {
            let slots = match &self.grid.maps {
                Some((row_of, _)) => t.index_select(0, row_of),
                None => t.shallow_clone(),
            };
            slots.view([places, width, kv_heads, shared, last]).transpose(1, 2).reshape([
                places,
                kv_heads,
                width * shared,
                last,
            ])
        };
        let to_rows =
            |t: &Tensor, last: i64| {
                let slots = t
                    .view([places, kv_heads, width, shared, last])
                    .transpose(1, 2)
                    .reshape([places * width, kv_heads, shared, last]);
                match &self.grid.maps {
                    Some((_, slot_of)) => slots.index_select(0, slot_of),
                    None => slots,
                }
            };
        let q = q.reshape([rows, kv_heads, shared, dim]) * (dim as f64).powf(-0.5);
        let own_scores = q.matmul(&own_k.transpose(2, 3)); // [rows, kv, shared, seen]
        let mut prefix_scores =
            to_places(&q, dim).matmul(&prefix_k.transpose(2, 3)).to_kind(Kind::Float);
        if let Some(bias) = &self.prefix_bias {
            prefix_scores += bias;
        }
        let scores = [to_rows(&prefix_scores, length), own_scores.to_kind(Kind::Float)];
        let weights = Tensor::cat(&scores, -1).softmax(-1, Kind::Float).to_kind(v.kind());
        let prefix_weights = to_places(&weights.narrow(-1, 0, length), length);
        let from_prefix = to_rows(&prefix_weights.matmul(prefix_v), dim);
        let from_own = weights.narrow(-1, length, seen).matmul(&own_v);
        (from_prefix + from_own).reshape([rows, heads, 1, dim])
    }
}
