//! From a picture file to patches, as transformers' `Qwen2VLImageProcessor` (its torchvision backend).

mod processor;
mod rgb;

use tch::Tensor;

pub use medevo_picture::smart_resize;
pub use processor::ImageProcessor;

/// One image, ready for the vision tower.
#[derive(Debug)]
pub struct Pixels {
    /// `[grid_t × grid_h × grid_w, channels × frames × edge²]` f32, merge square by merge square.
    pub patches: Tensor,
    /// Frames, rows and columns of patches.
    pub grid: [i64; 3],
    /// Of the resized picture and the processor's settings: equal digests mean equal patches.
    pub digest: [u8; 32],
}

impl Pixels {
    /// Tokens that the decoder sees, where `merge` × `merge` patches become one.
    #[must_use]
    pub fn merged_tokens(&self, merge: i64) -> i64 {
        self.grid.iter().product::<i64>() / (merge * merge)
    }
}
