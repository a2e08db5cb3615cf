//! JPEG pixels, decoded by libjpeg-turbo's code.
//!
//! Decoders may differ by a grey level, and in how they enlarge the colour planes; a log-probability then moves
//! in its third digit. The reference stack reads JPEGs with libjpeg-turbo, so its arithmetic is used here too,
//! and its CMYK conversion is Pillow's.

use std::{io, panic::catch_unwind};

use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress};

/// Decodes a JPEG to grey or RGB, as it lies.
///
/// # Errors
/// What the decoder says of a broken file.
pub(crate) fn pixels(bytes: &[u8]) -> Result<DynamicImage, String> {
    // The library reports errors by unwinding out of C code, without calling the panic hook: caught at once,
    // they are errors like any other. Nothing outlives the closure that could be left half-changed.
    match catch_unwind(|| read(bytes)) {
        Ok(Ok(Some(image))) => Ok(image),
        Ok(Ok(None)) => Err("the decoder gave too few rows".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(payload) => Err(payload
            .downcast_ref::<String>()
            .map_or_else(|| "the decoder gave up".to_owned(), Clone::clone)),
    }
}

fn read(bytes: &[u8]) -> io::Result<Option<DynamicImage>> {
    let jpeg = Decompress::new_mem(bytes)?;
    let stored = jpeg.color_space();
    let mut started = match stored {
        ColorSpace::JCS_GRAYSCALE => jpeg.grayscale()?,
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => jpeg.to_colorspace(ColorSpace::JCS_CMYK)?,
        _ => jpeg.rgb()?,
    };
    let side = |n: usize| u32::try_from(n).unwrap_or(0);
    let (width, height) = (side(started.width()), side(started.height()));
    let rows: Vec<u8> = started.read_scanlines()?;
    Ok(match stored {
        ColorSpace::JCS_GRAYSCALE => {
            GrayImage::from_raw(width, height, rows).map(DynamicImage::from)
        }
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
            let rgb = rows.chunks_exact(4).flat_map(rgb_of_stored_cmyk).collect();
            RgbImage::from_raw(width, height, rgb).map(DynamicImage::from)
        }
        _ => RgbImage::from_raw(width, height, rows).map(DynamicImage::from),
    })
}

/// A JPEG holds CMYK inverted, as Adobe's programs write it; the arithmetic is Pillow's.
fn rgb_of_stored_cmyk(stored: &[u8]) -> [u8; 3] {
    let light = u32::from(stored[3]);
    [stored[0], stored[1], stored[2]].map(|colour| {
        let product = (255 - u32::from(colour)) * light + 128;
        // Division by 255, rounded; never more than `light`.
        (light - ((product + (product >> 8)) >> 8)) as u8
    })
}
