//! Three 8-bit channels from whatever a hospital exports.

use image::{DynamicImage, RgbImage};

/// Converts as the reference does: grey is repeated, palettes are looked up (by the decoder), CMYK becomes
/// RGB (by the decoder), and transparency is laid over white.
///
/// 16-bit pictures are scaled to 8 bits. The reference clips them at 255 instead, which turns a 16-bit
/// scan into a white sheet; there we differ on purpose.
pub(crate) fn to_rgb8(image: &DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.to_rgb8();
    }
    let rgba = image.to_rgba8();
    let mut out = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in out.pixels_mut().zip(rgba.pixels()) {
        let [r, g, b, a] = from.0;
        to.0 = [r, g, b].map(|c| over_white(c, a));
    }
    out
}

/// Pillow's `alpha_composite` over an opaque white pixel, in its fixed-point arithmetic.
fn over_white(colour: u8, alpha: u8) -> u8 {
    const BITS: u32 = 7;
    if alpha == 0 {
        return 255;
    }
    let (c, a) = (u32::from(colour), u32::from(alpha));
    let sum = c * (a << BITS) + 255 * ((255 - a) << BITS) + (0x80 << BITS);
    // Division by 255, rounded, without dividing.
    ((((sum >> 8) + sum) >> 8) >> BITS) as u8
}

#[cfg(test)]
mod tests {
    use super::over_white;

    #[test]
    fn alpha_blends_between_white_and_the_colour() {
        for c in 0..=255u8 {
            assert_eq!(over_white(c, 255), c);
            assert_eq!(over_white(c, 0), 255);
            let exact = (f64::from(c) * 128.0 + 255.0 * 127.0) / 255.0;
            assert!((f64::from(over_white(c, 128)) - exact).abs() <= 0.51);
        }
    }
}
