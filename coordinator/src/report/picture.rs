//! Pictures inside the page: small, as data: URIs.

use std::{io::Cursor, path::Path};

use image::{ImageFormat, ImageReader, imageops::FilterType};

/// Longest side of a picture in the page, pixels: twice what is shown, for sharp screens.
const LONGEST: u32 = 224;

/// The picture as a `data:` URI; none if it cannot be read (the page then says so instead).
pub(super) fn data_uri(path: &Path) -> Option<String> {
    let picture = ImageReader::open(path).ok()?.with_guessed_format().ok()?.decode().ok()?;
    let small = if picture.width().max(picture.height()) > LONGEST {
        picture.resize(LONGEST, LONGEST, FilterType::Triangle)
    } else {
        picture
    };
    let mut bytes = Cursor::new(Vec::new());
    small.to_rgb8().write_to(&mut bytes, ImageFormat::Jpeg).ok()?;
    Some(format!("data:image/jpeg;base64,{}", base64(bytes.get_ref())))
}

/// Base64 (RFC 4648, section 4) with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_as_the_rfc_says() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn what_is_no_picture_is_none() {
        assert_eq!(data_uri(Path::new("/nowhere.jpg")), None);
        assert_eq!(data_uri(Path::new(file!())), None);
    }
}
