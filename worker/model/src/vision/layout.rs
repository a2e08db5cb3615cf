//! Which patch attends to which: windows, whole images, and the order that batches them.

/// Where every patch of a batch of images lies. Patches come image by image, merge square by merge
/// square, as the image processor leaves them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Row and column of each patch in its image.
    pub(crate) places: Vec<[i64; 2]>,
    /// Patches of each window, as indices into the batch.
    pub(crate) windows: Vec<Vec<i64>>,
    /// Patches of each frame of each image.
    pub(crate) frames: Vec<Vec<i64>>,
}

impl Layout {
    /// Lays out images of `grids` (frames, rows and columns of patches), `merge` patches to a token edge
    /// and `window` tokens to a window edge. Windows at the right and lower edge may be smaller.
    pub(crate) fn new(grids: &[[i64; 3]], merge: i64, window: i64) -> Self {
        let unit = merge * merge;
        let mut layout = Self { places: Vec::new(), windows: Vec::new(), frames: Vec::new() };
        for &[frames, height, width] in grids {
            let (rows, columns) = (height / merge, width / merge);
            for _ in 0..frames {
                let start = layout.places.len() as i64;
                for token in 0..rows * columns {
                    let (row, column) = (token / columns * merge, token % columns * merge);
                    layout.places.extend((0..unit).map(|i| [row + i / merge, column + i % merge]));
                }
                layout.frames.push((start..layout.places.len() as i64).collect());
                for top in (0..rows).step_by(window as usize) {
                    for left in (0..columns).step_by(window as usize) {
                        let mut patches = Vec::new();
                        for row in top..(top + window).min(rows) {
                            for column in left..(left + window).min(columns) {
                                let first = start + (row * columns + column) * unit;
                                patches.extend(first..first + unit);
                            }
                        }
                        layout.windows.push(patches);
                    }
                }
            }
        }
        layout
    }
}

/// Segments of equal length side by side, so that each length is one batched attention.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batches {
    /// The patches in the order of the batches.
    pub(crate) order: Vec<i64>,
    /// Where each patch went: the inverse of `order`.
    pub(crate) back: Vec<i64>,
    /// Segments and patches in each of them, batch by batch.
    pub(crate) sizes: Vec<[i64; 2]>,
}

impl Batches {
    pub(crate) fn new(segments: &[Vec<i64>]) -> Self {
        let mut by_length: std::collections::BTreeMap<usize, Vec<&Vec<i64>>> = Default::default();
        for segment in segments {
            by_length.entry(segment.len()).or_default().push(segment);
        }
        let sizes = by_length.iter().map(|(n, s)| [s.len() as i64, *n as i64]).collect();
        let order: Vec<i64> = by_length.into_values().flatten().flatten().copied().collect();
        let mut back = vec![0; order.len()];
        for (to, from) in order.iter().enumerate() {
            back[*from as usize] = to as i64;
        }
        Self { order, back, sizes }
    }

    /// Whether the patches already lie in this order.
    pub(crate) fn is_identity(&self) -> bool {
        self.order.iter().enumerate().all(|(to, from)| to as i64 == *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A patch in no window, or in two, would be lost or counted twice.
        #[test]
        fn every_patch_lies_in_one_window_and_one_frame(
            grids in prop::collection::vec((1i64..3, 1i64..9, 1i64..9), 1..5),
            merge in 1i64..4,
            window in 1i64..5,
        ) {
            let grids: Vec<_> = grids.into_iter().map(|(t, h, w)| [t, h * merge, w * merge]).collect();
            let layout = Layout::new(&grids, merge, window);
            let patches: i64 = grids.iter().map(|[t, h, w]| t * h * w).sum();
            prop_assert_eq!(layout.places.len() as i64, patches);
            for segments in [&layout.windows, &layout.frames] {
                let mut all: Vec<i64> = segments.iter().flatten().copied().collect();
                all.sort_unstable();
                prop_assert_eq!(all, (0..patches).collect::<Vec<_>>());
                let batches = Batches::new(segments);
                for (to, from) in batches.order.iter().enumerate() {
                    prop_assert_eq!(batches.back[*from as usize], to as i64);
                }
                prop_assert_eq!(batches.sizes.iter().map(|[s, n]| s * n).sum::<i64>(), patches);
            }
            for window_patches in &layout.windows {
                prop_assert!(window_patches.len() as i64 <= (window * merge).pow(2));
            }
        }
    }

    /// Equal images attend side by side without moving a patch.
    #[test]
    fn frames_of_equal_images_are_already_in_order() {
        let layout = Layout::new(&[[1, 6, 6]; 3], 2, 2);
        let batches = Batches::new(&layout.frames);
        assert!(batches.is_identity());
        assert_eq!(batches.sizes, vec![[3, 36]]);
        assert_eq!(layout.windows.iter().map(Vec::len).collect::<Vec<_>>()[..4], [16, 8, 8, 4]);
    }
}
