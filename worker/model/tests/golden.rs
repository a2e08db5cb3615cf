//! Holds the model against transformers' numbers (tests/golden/make_model_goldens.py): a difference here
//! means that another model than the reference is being trained.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::path::{Path, PathBuf};

use medevo_model::{Causal, Encoder, ImageProcessor, Pixels, Qwen25Vl};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// Largest difference allowed, relative to the largest magnitude of the golden.
const TOLERANCE: f64 = 1e-4;
/// Every n-th column of the patches is in the goldens.
const COLUMNS: i64 = 7;
/// Rows kept of a long tensor.
const ROWS: i64 = 40;

/// Our bf16 may be as far from the f32 golden as the reference's bf16 is, and a fifth more: both
/// round at the same places, but in another order of summation.
const BF16_MARGIN: f64 = 1.2;

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
    /// The cases that are also run as rows of one batch.
    batch: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    images: Vec<String>,
    question: String,
    answer: String,
    /// Folder of the image processor's settings, where they are not the model's.
    settings: Option<String>,
    /// How many rows of each layer's state are in the goldens; none are if absent.
    rows: Option<i64>,
}

impl Case {
    fn pixels(&self, variant: &str) -> Vec<Pixels> {
        let dir = folder().join(self.settings.as_deref().unwrap_or(variant));
        let processor = ImageProcessor::load(&dir).unwrap();
        let open = |f: &String| processor.open(&folder().join("images").join(f)).unwrap();
        self.images.iter().map(open).collect()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/model")
}

fn cases() -> Cases {
    let text = std::fs::read_to_string(folder().join("cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The tensors of one golden file.
struct Goldens(std::collections::HashMap<String, Tensor>);

impl Goldens {
    fn open(name: &str) -> Self {
        Self(Tensor::read_safetensors(folder().join(name)).unwrap().into_iter().collect())
    }

    fn get(&self, key: &str) -> &Tensor {
        self.0.get(key).unwrap_or_else(|| panic!("no golden {key}"))
    }

    fn ids(&self, key: &str) -> Vec<i64> {
        self.get(key).flatten(0, -1).try_into().unwrap()
    }
}

fn relative(got: &Tensor, golden: &Tensor) -> f64 {
    assert_eq!(got.size(), golden.size());
    let (got, golden) = (got.to_kind(Kind::Double), golden.to_kind(Kind::Double));
    let difference = (&got - &golden).abs().max().double_value(&[]);
    difference / golden.abs().max().double_value(&[]).max(1e-12)
}

fn close(what: &str, got: &Tensor, golden: &Tensor) {
    let error = relative(got, golden);
    assert!(error <= TOLERANCE, "{what}: relative error {error:e}");
}

/// Every n-th row, so that about `count` are left, as the script keeps them.
fn thin_out(x: &Tensor, count: i64) -> Tensor {
    let n = x.size()[0];
    x.slice(0, 0, n, (n / count).max(1))
}

fn rows(x: &Tensor) -> Tensor {
    thin_out(x, ROWS)
}

#[test]
fn the_image_processor_sees_what_the_reference_sees() {
    let processor = ImageProcessor::load(&folder().join("flat")).unwrap();
    let goldens = Goldens::open("images.safetensors");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder().join("images")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let pixels = processor.open(&path).unwrap();
        assert_eq!(pixels.grid.to_vec(), goldens.ids(&format!("{name}/grid")), "{name}");
        let patches = rows(&pixels.patches).slice(1, 0, i64::MAX, COLUMNS);
        let golden = goldens.get(&format!("{name}/patches"));
        let sums = pixels.patches.to_kind(Kind::Double).sum_dim_intlist(1i64, false, None);
        let golden_sums = goldens.get(&format!("{name}/sums"));
        close(&name, &patches, golden);
        close(&name, &sums, golden_sums);
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} images");
}

#[test]
fn nested_and_flat_settings_of_the_processor_agree() {
    let load = |dir: &str| ImageProcessor::load(&folder().join(dir)).unwrap();
    assert_eq!(load("nested"), load("flat"));
}

fn prompts_match(variant: &str) {
    let encoder = Encoder::load(&folder().join(variant)).unwrap();
    let goldens = Goldens::open(&format!("{variant}.safetensors"));
    for case in cases().cases {
        let name = &case.name;
        let grids: Vec<_> = case.pixels(variant).iter().map(|p| p.grid).collect();
        let prompt = encoder.prompt(&case.question, &grids).unwrap();
        let ids: Vec<i64> = prompt.ids.iter().map(|id| i64::from(*id)).collect();
        assert_eq!(ids, goldens.ids(&format!("{name}/ids")), "{name}");
        assert_eq!(prompt.positions.concat(), goldens.ids(&format!("{name}/positions")), "{name}");
        assert_eq!(vec![prompt.next_position], goldens.ids(&format!("{name}/next")), "{name}");
        let answer: Vec<i64> =
            encoder.answer(&case.answer).unwrap().into_iter().map(i64::from).collect();
        assert_eq!(answer, goldens.ids(&format!("{name}/answer")), "{name}");
    }
}

#[test]
fn prompts_and_positions_nested() {
    prompts_match("nested");
}

#[test]
fn prompts_and_positions_flat() {
    prompts_match("flat");
}

#[test]
fn prompts_and_positions_of_qwen2_vl() {
    prompts_match("qwen2_vl");
}

/// A prompt and an answer: `[L]` ids and `[3, L]` positions.
fn tokens(encoder: &Encoder, case: &Case, images: &[Pixels], answer: &[i64]) -> (Tensor, Tensor) {
    let grids: Vec<_> = images.iter().map(|p| p.grid).collect();
    let prompt = encoder.prompt(&case.question, &grids).unwrap();
    let mut ids: Vec<i64> = prompt.ids.iter().map(|id| i64::from(*id)).collect();
    ids.extend(answer);
    let mut positions = Vec::new();
    for axis in &prompt.positions {
        positions.extend(axis);
        positions.extend((0..answer.len() as i64).map(|i| prompt.next_position + i));
    }
    (Tensor::from_slice(&ids), Tensor::from_slice(&positions).view([3, -1]))
}

/// Embeddings `[1, L, H]` and positions `[3, 1, L]` of prompt and answer.
fn inputs(
    model: &Qwen25Vl,
    encoder: &Encoder,
    case: &Case,
    images: &[Pixels],
    features: &[Tensor],
    answer: &[i64],
) -> (Tensor, Tensor) {
    let (ids, positions) = tokens(encoder, case, images, answer);
    let ids = ids.unsqueeze(0);
    let embeds = model.place_images(&model.embed(&ids), &ids, features).unwrap();
    (embeds, positions.unsqueeze(1))
}

/// The scores `[tokens, vocabulary]` of the answer's tokens; `last` is `[L, H]`.
fn answer_logits(model: &Qwen25Vl, last: &Tensor, length: i64, answer: i64) -> Tensor {
    model.logits(&last.narrow(0, length - answer - 1, answer))
}

fn numbers_match(variant: &str) {
    let dir = folder().join(variant);
    let model = Qwen25Vl::load(&dir, Kind::Float, Device::Cpu).unwrap();
    let encoder = Encoder::load(&dir).unwrap();
    let goldens = Goldens::open(&format!("{variant}.safetensors"));
    let _no_grad = tch::no_grad_guard();
    for case in cases().cases {
        let name = &case.name;
        let golden = |key: &str| goldens.get(&format!("{name}/{key}"));
        let images = case.pixels(variant);
        let views: Vec<&Pixels> = images.iter().collect();

        let (features, vision_states) = model.vision_states(&views);
        if !features.is_empty() {
            let kept: Vec<Tensor> = features.iter().map(rows).collect();
            close(&format!("{name}: image features"), &Tensor::cat(&kept, 0), golden("features"));
        }
        let answer = goldens.ids(&format!("{name}/answer"));
        let (embeds, positions) = inputs(&model, &encoder, &case, &images, &features, &answer);
        let (last, text_states) = model.text_states(&embeds, &positions, &mut Causal);
        let last = last.squeeze_dim(0);
        if let Some(count) = case.rows {
            for (layer, state) in vision_states.iter().enumerate() {
                let key = format!("vision/{layer}");
                close(&format!("{name}: {key}"), &thin_out(state, count), golden(&key));
            }
            for (layer, state) in text_states.iter().enumerate().skip(1) {
                let key = format!("text/{layer}");
                let state = thin_out(&state.squeeze_dim(0), count);
                close(&format!("{name}: {key}"), &state, golden(&key));
            }
            close(&format!("{name}: final norm"), &thin_out(&last, count), golden("text/last"));
        }
        let logits = answer_logits(&model, &last, last.size()[0], answer.len() as i64);
        close(&format!("{name}: logits"), &logits, golden("logits"));
        let index = Tensor::from_slice(&answer).unsqueeze(1);
        let logprobs = logits.log_softmax(-1, Kind::Float).gather(-1, &index, false).squeeze_dim(1);
        close(&format!("{name}: log-probabilities"), &logprobs, golden("logprobs"));

        let wanted = goldens.ids(&format!("{name}/greedy"));
        let mut greedy: Vec<i64> = Vec::new();
        while greedy.len() < wanted.len() {
            let (embeds, positions) = inputs(&model, &encoder, &case, &images, &features, &greedy);
            let last = model.text(&embeds, &positions, &mut Causal);
            let hidden = last.select(1, last.size()[1] - 1);
            greedy.push(model.logits(&hidden).argmax(-1, false).int64_value(&[0]));
        }
        assert_eq!(greedy, wanted, "{name}: greedy tokens");
    }
}

#[test]
fn every_layer_and_logit_nested_tied_and_sharded() {
    numbers_match("nested");
}

#[test]
fn every_layer_and_logit_flat_and_untied() {
    numbers_match("flat");
}

#[test]
fn every_layer_and_logit_of_qwen2_vl() {
    numbers_match("qwen2_vl");
}

/// Rows with three, no and two images, padded on the right: the images must reach their own rows.
#[test]
fn rows_with_different_numbers_of_images_run_as_one_batch() {
    for variant in ["nested", "flat", "qwen2_vl"] {
        let dir = folder().join(variant);
        let model = Qwen25Vl::load(&dir, Kind::Float, Device::Cpu).unwrap();
        let encoder = Encoder::load(&dir).unwrap();
        let goldens = Goldens::open(&format!("{variant}.safetensors"));
        let _no_grad = tch::no_grad_guard();
        let Cases { cases, batch } = cases();
        let (mut images, mut rows) = (Vec::new(), Vec::new());
        for name in &batch {
            let case = cases.iter().find(|c| c.name == *name).unwrap();
            let pixels = case.pixels(variant);
            let answer = goldens.ids(&format!("{name}/answer"));
            let (ids, positions) = tokens(&encoder, case, &pixels, &answer);
            rows.push((ids, positions, answer.len() as i64));
            images.extend(pixels);
        }
        let longest = rows.iter().map(|(ids, ..)| ids.size()[0]).max().unwrap();
        let pad = |t: &Tensor| t.constant_pad_nd([0, longest - t.size()[t.dim() - 1]]);
        let ids = Tensor::stack(&rows.iter().map(|(ids, ..)| pad(ids)).collect::<Vec<_>>(), 0);
        let positions =
            Tensor::stack(&rows.iter().map(|(_, at, _)| pad(at)).collect::<Vec<_>>(), 1);
        let features = model.vision(&images.iter().collect::<Vec<_>>());
        let embeds = model.place_images(&model.embed(&ids), &ids, &features).unwrap();
        let last = model.text(&embeds, &positions, &mut Causal);
        let logits: Vec<Tensor> = rows
            .iter()
            .enumerate()
            .map(|(row, (ids, _, answer))| {
                answer_logits(&model, &last.get(row as i64), ids.size()[0], *answer)
            })
            .collect();
        close(variant, &Tensor::cat(&logits, 0), goldens.get("batch/logits"));
    }
}

/// Sum of squared differences.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).square().sum(Kind::Double).double_value(&[])
}

/// A cast too few or too many would show as a larger error than the reference's own.
#[test]
fn bf16_is_as_near_to_f32_as_the_references_bf16() {
    for variant in ["nested", "flat", "qwen2_vl"] {
        let dir = folder().join(variant);
        let model = Qwen25Vl::load(&dir, Kind::BFloat16, Device::Cpu).unwrap();
        let encoder = Encoder::load(&dir).unwrap();
        let goldens = Goldens::open(&format!("{variant}.safetensors"));
        let _no_grad = tch::no_grad_guard();
        // Ours and theirs, over all cases: of the image features and of the logits.
        let (mut of_features, mut of_logits) = ([0.0; 2], [0.0; 2]);
        for case in cases().cases.iter().filter(|case| case.settings.is_none()) {
            let golden = |key: &str| goldens.get(&format!("{}/{key}", case.name));
            let images = case.pixels(variant);
            let features = model.vision(&images.iter().collect::<Vec<_>>());
            if !features.is_empty() {
                let kept = Tensor::cat(&features.iter().map(rows).collect::<Vec<_>>(), 0);
                of_features[0] += distance(&kept, golden("features"));
                of_features[1] += distance(golden("features_bf16"), golden("features"));
            }
            let answer = goldens.ids(&format!("{}/answer", case.name));
            let (embeds, positions) = inputs(&model, &encoder, case, &images, &features, &answer);
            let last = model.text(&embeds, &positions, &mut Causal).squeeze_dim(0);
            let logits = answer_logits(&model, &last, last.size()[0], answer.len() as i64);
            assert_eq!(logits.kind(), Kind::BFloat16);
            of_logits[0] += distance(&logits, golden("logits"));
            of_logits[1] += distance(golden("logits_bf16"), golden("logits"));
        }
        for (what, [ours, theirs]) in [("features", of_features), ("logits", of_logits)] {
            let ratio = (ours / theirs).sqrt();
            println!("{variant}: bf16 error of the {what}, ours over theirs: {ratio:.3}");
            assert!(ratio <= BF16_MARGIN, "{variant}: error of the {what} {ratio} times theirs");
        }
    }
}
