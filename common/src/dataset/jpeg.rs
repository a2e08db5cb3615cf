//! Whether a JPEG is whole. Decoders fill what is missing with grey and say nothing; a model would then
//! learn from half a picture.

/// Whether the file runs to its end-of-image marker (ITU-T T.81, annex B). Follows the segments, so that the
/// end of an embedded thumbnail is not taken for the end of the picture.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: u8 = 0xd9;
    let mut at = 2;
    let mut in_scan = false;
    loop {
        // To the next marker: 0xff and a byte that is neither stuffing (0), fill (0xff) nor a restart.
        let Some(&[first, marker]) = bytes.get(at..at + 2) else { return false };
        if first != 0xff {
            if !in_scan {
                return false;
            }
            at += 1;
            continue;
        }
        match marker {
            0xff => at += 1,
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            END_OF_IMAGE => return true,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
                in_scan = marker == START_OF_SCAN;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    const GREY: &[u8] = include_bytes!("../../tests/data/grey.jpg");
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/data/progressive.jpg");
    const CMYK: &[u8] = include_bytes!("../../tests/data/cmyk.jpg");

    #[test]
    fn whole_files_are_whole_and_every_cut_is_seen() {
        for file in [GREY, PROGRESSIVE, CMYK] {
            assert!(is_whole(file));
            for length in 0..file.len() {
                assert!(!is_whole(&file[..length]), "cut at {length}");
            }
        }
    }

    #[test]
    fn end_of_a_thumbnail_is_not_the_end() {
        // A thumbnail within an APP1 segment ends with an end-of-image marker of its own.
        let mut file = vec![0xff, 0xd8, 0xff, 0xe1, 0x00, 0x04, 0xff, 0xd9];
        assert!(!is_whole(&file));
        file.extend_from_slice(&GREY[2..]);
        assert!(is_whole(&file));
    }
}
