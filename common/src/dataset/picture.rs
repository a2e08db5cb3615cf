//! Whether an image file can be used: there, of a format that is read, and decodable to its last row.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Cursor,
    path::{Path, PathBuf},
};

use image::{ImageError, ImageFormat, ImageReader};

use super::{DataProblem, jpeg, reader::Rows};

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The file is there and its name is not that of a format which is never read.
    Present,
    /// The file is decoded.
    Decoded,
}

/// Looks at every image that the rows name and `seen` does not hold yet, each file once however many
/// questions share it, and notes a problem at the first line which names it.
pub(super) fn look_at(rows: &mut Rows, look: Look, seen: &mut HashSet<PathBuf>) {
    // What is wrong with a file, where it was first named, and how many questions more name it.
    let mut wrong: Vec<(usize, String, usize)> = Vec::new();
    let mut place: HashMap<PathBuf, usize> = HashMap::new();
    for row in &rows.rows {
        for path in &row.question.images {
            if let Some(&i) = place.get(path) {
                wrong[i].2 += 1;
            } else if seen.insert(path.clone())
                && let Some(what) = fault(path, look)
            {
                place.insert(path.clone(), wrong.len());
                wrong.push((row.line, format!("image {}: {what}", path.display()), 0));
            }
        }
    }
    for (line, what, more) in wrong {
        let what = match more {
            0 => what,
            1 => format!("{what} (1 more question uses it)"),
            _ => format!("{what} ({more} more questions use it)"),
        };
        rows.problems.push(DataProblem { file: rows.file.clone(), line, what });
    }
}

/// What is wrong with an image file; none if nothing is.
fn fault(path: &Path, look: Look) -> Option<String> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some("no such file".into());
        }
        Err(error) => return Some(format!("cannot be read: {error}")),
        Ok(metadata) if !metadata.is_file() => return Some("is not a file".into()),
        Ok(_) => {}
    }
    match extension.as_str() {
        "dcm" | "dicom" => return Some(DICOM.into()),
        "nii" | "gz" | "nrrd" | "mha" => {
            return Some("volumes are not read: convert the slices to PNG".into());
        }
        _ => {}
    }
    if look == Look::Present {
        return None;
    }
    match fs::read(path) {
        Ok(bytes) => decode_fault(&bytes),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

const DICOM: &str = "DICOM is not read yet: convert it to PNG";

/// Decodes an image and says what went wrong.
fn decode_fault(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some("the file is empty".into());
    }
    if bytes.get(128..132) == Some(b"DICM") {
        return Some(DICOM.into());
    }
    let format = match image::guess_format(bytes) {
        Ok(format) => format,
        Err(_) => {
            return Some("is none of the formats that are read (JPEG, PNG, BMP, TIFF)".into());
        }
    };
    if format == ImageFormat::Jpeg && !jpeg::is_whole(bytes) {
        return Some("the JPEG is truncated: copy it again from its source".into());
    }
    match ImageReader::with_format(Cursor::new(bytes), format).decode() {
        Ok(_) => None,
        Err(ImageError::Unsupported(_)) => {
            Some(format!("{format:?} in this variant is not read: convert it to PNG"))
        }
        Err(error) => Some(format!("the {format:?} cannot be decoded: {error}")),
    }
}
