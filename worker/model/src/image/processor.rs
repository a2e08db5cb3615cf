//! The image processor's settings and its steps.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::DynamicImage;
use medevo_picture::smart_resize;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::Pixels;
use super::rgb::to_rgb8;
use crate::json_file;

/// Mean of CLIP's training images, red, green, blue.
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's training images.
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// Resizes, normalises and cuts pictures into patches.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessor {
    min_pixels: i64,
    max_pixels: i64,
    patch: i64,
    merge: i64,
    frames: i64,
    resample: i64,
    do_resize: bool,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    mean: [f64; 3],
    std: [f64; 3],
}

impl ImageProcessor {
    /// Reads the settings of a model directory: `image_processor` in `processor_config.json` where there
    /// is one, else `preprocessor_config.json`. Settings that are absent have the reference's defaults.
    ///
    /// # Errors
    /// If there is no such file or a setting cannot be followed; the message names both.
    pub fn load(dir: &Path) -> Result<Self> {
        let read = |name: &str| json_file::read(&dir.join(name));
        let nested = read("processor_config.json")?.and_then(|mut v| {
            v.get_mut("image_processor").map(Value::take).filter(Value::is_object)
        });
        let (name, settings) = match nested {
            Some(v) => ("processor_config.json", v),
            None => (
                "preprocessor_config.json",
                read("preprocessor_config.json")?.with_context(|| {
                    format!(
                        "{} holds no image processor settings: neither preprocessor_config.json nor \
                         image_processor in processor_config.json",
                        dir.display()
                    )
                })?,
            ),
        };
        Self::from_json(&settings).with_context(|| format!("{}", dir.join(name).display()))
    }

    /// Reads the parsed settings.
    fn from_json(v: &Value) -> Result<Self> {
        let given = |key: &str| v.get(key).filter(|x| !x.is_null());
        let size = |key: &str| given("size").and_then(|s| s.get(key)).filter(|x| !x.is_null());
        let int = |found: Option<&Value>, key: &str, default: i64| match found {
            None => Ok(default),
            Some(x) => {
                x.as_i64().filter(|n| *n > 0).with_context(|| format!("{key} is {x}, not a size"))
            }
        };
        let flag = |key: &str| {
            given(key).map_or(Ok(true), |x| x.as_bool().with_context(|| format!("{key} is {x}")))
        };
        let three = |key: &str, default: [f64; 3]| match given(key) {
            None => Ok(default),
            Some(x) => serde_json::from_value(x.clone()).with_context(|| format!("{key} is {x}")),
        };
        let processor = Self {
            min_pixels: int(given("min_pixels").or(size("shortest_edge")), "min_pixels", 56 * 56)?,
            max_pixels: int(
                given("max_pixels").or(size("longest_edge")),
                "max_pixels",
                28 * 28 * 1280,
            )?,
            patch: int(given("patch_size"), "patch_size", 14)?,
            merge: int(given("merge_size"), "merge_size", 2)?,
            frames: int(given("temporal_patch_size"), "temporal_patch_size", 2)?,
            resample: int(given("resample"), "resample", 3)?,
            do_resize: flag("do_resize")?,
            do_rescale: flag("do_rescale")?,
            rescale_factor: given("rescale_factor").and_then(Value::as_f64).unwrap_or(1.0 / 255.0),
            do_normalize: flag("do_normalize")?,
            mean: three("image_mean", CLIP_MEAN)?,
            std: three("image_std", CLIP_STD)?,
        };
        ensure!(
            processor.min_pixels <= processor.max_pixels,
            "min_pixels is {}, above max_pixels, {}",
            processor.min_pixels,
            processor.max_pixels
        );
        if ![2, 3].contains(&processor.resample) {
            bail!(
                "resample is {}; only 3 (bicubic) and 2 (bilinear) can be followed",
                processor.resample
            );
        }
        Ok(processor)
    }

    /// Reads, turns upright (EXIF) and processes a picture.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(&self, path: &Path) -> Result<Pixels> {
        let image = medevo_picture::open(path)
            .with_context(|| format!("cannot read the picture {}", path.display()))?;
        self.process(&image).with_context(|| format!("cannot use the picture {}", path.display()))
    }

    /// Processes a picture in memory.
    ///
    /// # Errors
    /// If it is empty, more than 200 times as long as wide, or (where resizing is off) of a size that the
    /// patches do not divide.
    pub fn process(&self, image: &DynamicImage) -> Result<Pixels> {
        let rgb = to_rgb8(image);
        let (width, height) = (i64::from(rgb.width()), i64::from(rgb.height()));
        let factor = self.patch * self.merge;
        let (new_height, new_width) = if self.do_resize {
            smart_resize(height, width, factor, self.min_pixels, self.max_pixels)
                .map_err(|e| anyhow!(e))?
        } else {
            ensure!(
                height > 0 && width > 0 && height % factor == 0 && width % factor == 0,
                "it is {width} x {height} pixels, not multiples of {factor}, and do_resize is off"
            );
            (height, width)
        };
        // [H, W, 3] -> [1, 3, H, W]
        let bytes = Tensor::f_from_data_size(rgb.as_raw(), &[height, width, 3], Kind::Uint8)?;
        let mut planes = bytes.permute([2, 0, 1]).unsqueeze(0).contiguous();
        if (new_height, new_width) != (height, width) {
            planes = self.resize(&planes, [new_height, new_width])?;
        }
        let digest = self.digest(&planes)?;
        let (rows, columns) = (new_height / self.patch, new_width / self.patch);
        let patches = self.cut(&self.normalise(&planes), rows, columns);
        Ok(Pixels { patches, grid: [1, rows, columns], digest })
    }

    /// Antialiased, on bytes: libtorch's kernel is the one that the reference calls.
    fn resize(&self, planes: &Tensor, size: [i64; 2]) -> Result<Tensor> {
        if self.resample == 3 {
            return Ok(planes.f_internal_upsample_bicubic2d_aa(size, false, None, None)?);
        }
        Ok(planes.f_internal_upsample_bilinear2d_aa(size, false, None, None)?)
    }

    /// Bytes to f32. Rescaling is folded into mean and deviation, in the reference's order of operations.
    fn normalise(&self, planes: &Tensor) -> Tensor {
        let x = planes.to_kind(Kind::Float);
        let scale = if self.do_rescale { (1.0 / self.rescale_factor) as f32 } else { 1.0 };
        if !self.do_normalize {
            return if self.do_rescale { x * self.rescale_factor } else { x };
        }
        let channels =
            |v: [f64; 3]| Tensor::from_slice(&v.map(|n| n as f32 * scale)).view([1, 3, 1, 1]);
        (x - channels(self.mean)) / channels(self.std)
    }

    /// `[1, 3, H, W]` to `[rows × columns, 3 × frames × patch²]`; the still image fills every frame.
    fn cut(&self, planes: &Tensor, rows: i64, columns: i64) -> Tensor {
        let (p, m, f) = (self.patch, self.merge, self.frames);
        planes
            .view(&[3, rows / m, m, p, columns / m, m, p][..])
            // -> [rows / m, columns / m, m, m, 3, p, p]
            .permute([1, 4, 2, 5, 0, 3, 6])
            .unsqueeze(5)
            .expand([rows / m, columns / m, m, m, 3, f, p, p], false)
            .reshape([rows * columns, 3 * f * p * p])
            .to_device(Device::Cpu)
    }

    fn digest(&self, planes: &Tensor) -> Result<[u8; 32]> {
        let mut bytes = vec![0u8; planes.numel()];
        planes.f_copy_data_u8(&mut bytes, planes.numel())?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{self:?} {:?}\n", planes.size()).as_bytes());
        hasher.update(&bytes);
        Ok(*hasher.finalize().as_bytes())
    }
}
