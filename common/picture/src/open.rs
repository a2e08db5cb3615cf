//! From a file to upright pixels, or the reason why not.

use std::{io::Cursor, path::Path};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, metadata::Orientation,
};

use crate::{complete::is_complete, jpeg};

/// Longest edge that a decoder may be asked for, pixels: a broken header must not take all memory.
const MAX_EDGE: u32 = 1 << 15;

/// Why a picture cannot be used. Each says what to do about it; the caller names the file.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file cannot be read at all.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// A DICOM file, whatever its name.
    #[error("DICOM is not read yet: convert it to PNG")]
    Dicom,
    /// No format that is known.
    #[error("is none of the formats that are read (JPEG, PNG, BMP, TIFF)")]
    UnknownFormat,
    /// A JPEG that ends before its end.
    #[error("the JPEG is truncated: copy it again from its source")]
    TruncatedJpeg,
    /// A rare kind of a known format.
    #[error("{0:?} in this variant is not read: convert it to PNG")]
    Variant(ImageFormat),
    /// Larger than a decoder may be asked for.
    #[error("is larger than {MAX_EDGE} pixels on a side or 512 MiB: make it smaller")]
    TooLarge,
    /// The decoder's own words.
    #[error("the {0:?} cannot be decoded: {1}")]
    Broken(ImageFormat, String),
}

/// Reads, decodes and turns upright (EXIF) a picture file. Its content decides the format, not its name.
///
/// # Errors
/// See [`PictureError`].
pub fn open(path: &Path) -> Result<DynamicImage, PictureError> {
    decode(&std::fs::read(path)?)
}

/// As [`open`], for the bytes of a file.
///
/// # Errors
/// See [`PictureError`].
pub fn decode(bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::Empty);
    }
    if bytes.get(128..132) == Some(b"DICM") {
        return Err(PictureError::Dicom);
    }
    let format = image::guess_format(bytes).map_err(|_| PictureError::UnknownFormat)?;
    if format == ImageFormat::Jpeg && !is_complete(bytes) {
        return Err(PictureError::TruncatedJpeg);
    }
    let refusal = |error: ImageError| match error {
        ImageError::Unsupported(_) => PictureError::Variant(format),
        ImageError::Limits(_) => PictureError::TooLarge,
        other => PictureError::Broken(format, other.to_string()),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_EDGE);
    limits.max_image_height = Some(MAX_EDGE);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refusal)?;
    // A picture with unreadable EXIF data is taken as it lies.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = if format == ImageFormat::Jpeg {
        jpeg::pixels(bytes).map_err(|why| PictureError::Broken(format, why))?
    } else {
        DynamicImage::from_decoder(decoder).map_err(refusal)?
    };
    image.apply_orientation(orientation);
    Ok(image)
}

/// Width and height of a picture file in pixels, before it is turned upright; only its header is read.
///
/// # Errors
/// See [`PictureError`].
pub fn size(path: &Path) -> Result<(u32, u32), PictureError> {
    let reader = ImageReader::open(path)?.with_guessed_format()?;
    let format = reader.format().ok_or(PictureError::UnknownFormat)?;
    let broken = |error: ImageError| PictureError::Broken(format, error.to_string());
    reader.into_dimensions().map_err(broken)
}
