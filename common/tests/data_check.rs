//! `data check`: finds out what lies at a path, decodes every image, and says all that is wrong.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{fs, path::Path};

use medevo_common::{
    dataset::check,
    mini_slake::{MiniSlake, generate},
};

const GREY: &[u8] = include_bytes!("data/grey.jpg");

/// A JSONL file with a question on each of these images.
fn jsonl(folder: &Path, images: &[(&str, &[u8])]) -> std::path::PathBuf {
    let mut lines = String::new();
    for (i, (name, bytes)) in images.iter().enumerate() {
        fs::write(folder.join(name), bytes).unwrap();
        lines += &format!("{{\"id\": {i}, \"image\": \"{name}\", \"question\": \"x\"}}\n");
    }
    let file = folder.join("data.jsonl");
    fs::write(&file, lines).unwrap();
    file
}

fn options() -> MiniSlake {
    MiniSlake { source_images: 3, target_images: 4, heldout_images: 1, ..MiniSlake::default() }
}

#[test]
fn what_hospitals_export_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = jsonl(
        folder.path(),
        &[
            ("grey.jpg", GREY),
            ("cmyk.jpg", include_bytes!("data/cmyk.jpg")),
            ("progressive.jpg", include_bytes!("data/progressive.jpg")),
            ("grey16.png", include_bytes!("data/grey16.png")),
            ("grey16.tif", include_bytes!("data/grey16.tif")),
            ("palette.png", include_bytes!("data/palette.png")),
            ("misnamed.png", GREY),
        ],
    );
    let report = check(&file);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.format, report.images), ("JSONL", 7));
}

#[test]
fn images_that_cannot_be_used_say_why() {
    let png = include_bytes!("data/palette.png");
    let mut dicom = vec![0; 128];
    dicom.extend_from_slice(b"DICM\x02\x00");
    let folder = tempfile::tempdir().unwrap();
    let file = jsonl(
        folder.path(),
        &[
            ("cut.jpg", &GREY[..GREY.len() - 40]),
            ("cut.png", &png[..png.len() / 2]),
            ("scan.dcm", &dicom),
            ("hidden", &dicom),
            ("notes.jpg", b"not an image at all"),
            ("empty.jpg", b""),
            ("web.webp", b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"),
        ],
    );
    let report = check(&file);
    let found: Vec<_> =
        report.problems.problems.iter().map(|p| (p.line, p.what.as_str())).collect();
    let expected = [
        "the JPEG is truncated",
        "the Png cannot be decoded",
        "DICOM is not read yet: convert it to PNG",
        "DICOM is not read yet: convert it to PNG",
        "none of the formats that are read",
        "the file is empty",
        "WebP in this variant is not read",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (i, ((line, what), expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(*line, i + 1, "{what}");
        assert!(what.contains(expected), "{what} / {expected}");
    }
}

#[test]
fn slake_folder_is_recognised_and_each_split_counted() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mini");
    generate(&out, &options()).unwrap();
    let report = check(&out.join("target"));
    assert!(report.is_clean(), "{report}");
    let [test] = report.sets.as_slice() else { panic!("{report}") };
    assert_eq!((report.format, test.name.as_str(), report.questions()), ("SLAKE", "test", 16));
    assert_eq!((test.images, report.images, test.answered), (4, 4, 16));
    assert_eq!(test.open + test.closed, 16);
    assert_eq!(test.languages.get("en"), Some(&16));
    let shown = report.to_string();
    assert!(shown.contains("test: 16 questions"), "{shown}");
    assert!(shown.contains("No problems"), "{shown}");

    let one = check(&out.join("target/test.json"));
    assert_eq!((one.format, one.questions(), one.is_clean()), ("SLAKE", 16, true));
    let styled = check(&out.join("source-styled"));
    assert!(styled.is_clean(), "the linked images are found: {styled}");
}

#[test]
fn shared_broken_image_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mini");
    generate(&out, &options()).unwrap();
    let image = out.join("target/imgs/xmlab2/source.jpg");
    let bytes = fs::read(&image).unwrap();
    fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let report = check(&out.join("target"));
    let [problem] = report.problems.problems.as_slice() else { panic!("{report}") };
    assert!(problem.file.ends_with("test.json") && problem.line > 1, "{problem}");
    assert!(
        problem.what.contains("truncated") && problem.what.contains("3 more questions"),
        "{problem}"
    );
}

#[test]
fn wrong_folder_gets_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mini");
    generate(&out, &options()).unwrap();
    let shown = check(&out).to_string();
    assert!(shown.contains("is this a SLAKE folder?"), "{shown}");
    assert!(shown.contains("mini/heldout") && shown.contains("mini/target"), "{shown}");
    let shown = check(&folder.path().join("nothing")).to_string();
    assert!(shown.contains("cannot be read"), "{shown}");
}
