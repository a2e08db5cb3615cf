//! Pictures that hospitals really export: odd formats, and damaged files refused by name.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, RgbImage};
use medevo_model::ImageProcessor;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn processor() -> ImageProcessor {
    ImageProcessor::load(&root().join("ops/demo/tiny-qwen2.5-vl")).unwrap()
}

fn pictures() -> PathBuf {
    root().join("tests/golden/model/images")
}

/// Half a picture would be trained on as if it were whole.
#[test]
fn truncated_and_broken_files_are_refused_with_their_name() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["cmyk.jpg", "colour.jpg", "grey.jpg", "small.png", "palette.png"] {
        let bytes = std::fs::read(pictures().join(name)).unwrap();
        let path = dir.path().join(name);
        for share in [0, 1, 30, 60, 90] {
            std::fs::write(&path, &bytes[..bytes.len() * share / 100]).unwrap();
            let Err(error) = processor().open(&path) else {
                panic!("{share}% of {name} is accepted")
            };
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    let error = processor().open(&dir.path().join("absent.png")).unwrap_err();
    assert!(format!("{error:#}").contains("absent.png"));
    std::fs::write(dir.path().join("text.png"), "no picture").unwrap();
    assert!(processor().open(&dir.path().join("text.png")).is_err());
}

/// The content counts, not the ending of the name.
#[test]
fn a_wrong_ending_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("really-a-png.jpg");
    std::fs::copy(pictures().join("small.png"), &path).unwrap();
    assert_eq!(processor().open(&path).unwrap().grid, [1, 6, 6]);
}

/// The reference clips 16-bit grey to white; a scan must stay a scan.
#[test]
fn sixteen_bit_grey_keeps_its_range() {
    let deep = ImageBuffer::<Luma<u16>, _>::from_fn(84, 84, |x, y| Luma([((x + y) * 390) as u16]));
    let flat = GrayImage::from_fn(84, 84, |x, y| {
        let value = f64::from((x + y) * 390) / 257.0;
        Luma([value.round() as u8])
    });
    let a = processor().process(&DynamicImage::ImageLuma16(deep)).unwrap();
    let b = processor().process(&DynamicImage::ImageLuma8(flat)).unwrap();
    let difference = (&a.patches - &b.patches).abs().max().double_value(&[]);
    assert!(difference < 2.0 / 255.0 / 0.27, "{difference}");
}

#[test]
fn digests_tell_pictures_apart_and_nothing_else() {
    let grey =
        |value| DynamicImage::ImageRgb8(RgbImage::from_pixel(84, 84, image::Rgb([value; 3])));
    let digest = |p: &ImageProcessor, v| p.process(&grey(v)).unwrap().digest;
    let p = processor();
    assert_eq!(digest(&p, 10), digest(&p, 10));
    assert_ne!(digest(&p, 10), digest(&p, 11));
    let clip = ImageProcessor::load(&root().join("tests/golden/model/flat")).unwrap();
    assert_eq!(digest(&p, 10), digest(&clip, 10), "same settings from another directory");
}

/// 200 times as wide as high is the reference's limit, inclusive; the golden script holds it to that.
#[test]
fn needles_are_refused() {
    for (width, height) in [(1, 300), (402, 2), (2, 402)] {
        let needle = DynamicImage::ImageLuma8(GrayImage::new(width, height));
        let message = processor().process(&needle).unwrap_err().to_string();
        assert!(message.contains(&format!("{width} x {height} pixels")), "{message}");
        assert!(message.contains("at most 200"), "{message}");
    }
    let longest = DynamicImage::ImageLuma8(GrayImage::new(400, 2));
    assert_eq!(processor().process(&longest).unwrap().grid, [1, 2, 58]);
}

#[test]
fn settings_that_cannot_be_followed_are_refused_by_file_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let message = format!("{:#}", ImageProcessor::load(dir.path()).unwrap_err());
    assert!(message.contains("preprocessor_config.json"), "{message}");
    for (text, part) in [
        ("{\"resample\": 1}", "resample"),
        ("{\"patch_size\": 0}", "patch_size"),
        ("{\"image_mean\": [0.5]}", "image_mean"),
        ("{\"min_pixels\": 100, \"max_pixels\": 10}", "min_pixels"),
        ("{", "JSON"),
    ] {
        std::fs::write(dir.path().join("preprocessor_config.json"), text).unwrap();
        let message = format!("{:#}", ImageProcessor::load(dir.path()).unwrap_err());
        assert!(
            message.contains("preprocessor_config.json") && message.contains(part),
            "{message}"
        );
    }
}
