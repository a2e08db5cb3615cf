//! Whatever lies in a file, decoding ends in a picture or in a reason.

use medevo_picture::{PictureError, decode};
use proptest::prelude::*;

const JPEG: &[u8] = include_bytes!("../../tests/data/progressive.jpg");
const CMYK: &[u8] = include_bytes!("../../tests/data/cmyk.jpg");
const PNG: &[u8] = include_bytes!("../../tests/data/palette.png");

#[test]
fn a_header_that_promises_too_much_is_refused() {
    // The height and width of a JPEG stand behind its SOF2 marker.
    let mut file = JPEG.to_vec();
    let at = file.windows(2).position(|w| w == [0xFF, 0xC2]).expect("a progressive JPEG");
    file[at + 5..at + 9].fill(0xFF);
    assert!(matches!(decode(&file), Err(PictureError::TooLarge | PictureError::Broken(..))));
}

#[test]
fn each_reason_is_told_apart() {
    assert!(matches!(decode(b""), Err(PictureError::Empty)));
    assert!(matches!(decode(b"no picture"), Err(PictureError::UnknownFormat)));
    assert!(matches!(decode(&JPEG[..JPEG.len() - 9]), Err(PictureError::TruncatedJpeg)));
    assert!(matches!(decode(&PNG[..PNG.len() / 2]), Err(PictureError::Broken(..))));
}

proptest! {
    /// A C decoder's error must come back as one of ours, never end the process.
    #[test]
    fn damaged_files_do_no_harm(which in 0usize..3, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut file = [JPEG, CMYK, PNG][which].to_vec();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = decode(&file);
    }
}
