//! Whether an image file can be used: there, of a format that is read, and decodable to its last row.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use medevo_picture::PictureError;

use super::{DataProblem, reader::Rows};

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
        "dcm" | "dicom" => return Some(PictureError::Dicom.to_string()),
        "nii" | "gz" | "nrrd" | "mha" => {
            return Some("volumes are not read: convert the slices to PNG".into());
        }
        _ => {}
    }
    if look == Look::Present {
        return None;
    }
    medevo_picture::open(path).err().map(|error| error.to_string())
}
