//! Whether a JPEG file is all there.
//!
//! The decoder fills what is missing with grey and says nothing. Half a scan must not be trained on as if
//! it were whole, so the file's markers are followed to its end first.

/// Marker codes (ITU-T T.81, table B.1).
const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;

/// Whether a JPEG reaches its end-of-image marker. A thumbnail's own marker lies inside a segment and is
/// skipped with it.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Markers may be preceded by any number of fill bytes, and a scan's data by anything else.
        let Some(marker) = next_marker(bytes, &mut at) else { return false };
        match marker {
            END_OF_IMAGE => return true,
            // Markers without a segment: restarts, TEM, a repeated start.
            0xD0..=0xD7 | 0x01 | START_OF_IMAGE => {}
            // A segment; after a scan's header its data follow, in which no marker but restarts can stand.
            _ => {
                let Some(length) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

/// The next marker and, in `at`, the place after it. In a scan's data, `FF 00` is a byte of value 255.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let offset = bytes.get(*at..)?.iter().position(|b| *b == 0xFF)?;
        *at += offset + 1;
        match bytes.get(*at)? {
            0xFF => {}
            0x00 => *at += 1,
            marker => {
                *at += 1;
                return Some(*marker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_complete;
    use proptest::prelude::*;

    /// Start, a segment with an end marker inside it, a scan with stuffed bytes and a restart, the end.
    const WHOLE: [u8; 26] = [
        0xFF, 0xD8, 0xFF, 0xE1, 0x00, 0x06, 0xFF, 0xD9, 1, 2, 0xFF, 0xDA, 0x00, 0x03, 9, 5, 0xFF,
        0x00, 7, 0xFF, 0xD3, 8, 0xFF, 0xFF, 0xFF, 0xD9,
    ];

    const GREY: &[u8] = include_bytes!("../../tests/data/grey.jpg");
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/data/progressive.jpg");
    const CMYK: &[u8] = include_bytes!("../../tests/data/cmyk.jpg");

    #[test]
    fn whole_files_are_complete_and_every_cut_is_seen() {
        for file in [&WHOLE[..], GREY, PROGRESSIVE, CMYK] {
            assert!(is_complete(file));
            for length in 0..file.len() {
                assert!(!is_complete(&file[..length]), "cut at {length}");
            }
        }
    }

    proptest! {
        /// Whatever the bytes, the walk ends and does not panic.
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(prop_oneof![Just(0xFFu8), any::<u8>()], 0..200)) {
            let _ = is_complete(&bytes);
        }
    }
}
