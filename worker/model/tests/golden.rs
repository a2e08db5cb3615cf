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

#[derive(Deserialize)]
struct Case {
    name: String,
    images: Vec<String>,
    question: String,
    answer: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/model")
}

fn cases() -> Vec<Case> {
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

/// Every n-th row, as the script keeps them.
fn rows(x: &Tensor) -> Tensor {
    let n = x.size()[0];
    x.slice(0, 0, n, (n / ROWS).max(1))
}

fn open_images(processor: &ImageProcessor, case: &Case) -> Vec<Pixels> {
    case.images.iter().map(|f| processor.open(&folder().join("images").join(f)).unwrap()).collect()
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
    assert!(seen >= 16, "only {seen} images");
}

#[test]
fn nested_and_flat_settings_of_the_processor_agree() {
    let load = |dir: &str| ImageProcessor::load(&folder().join(dir)).unwrap();
    assert_eq!(load("nested"), load("flat"));
}

fn prompts_match(variant: &str) {
    let dir = folder().join(variant);
    let (encoder, processor) = (Encoder::load(&dir).unwrap(), ImageProcessor::load(&dir).unwrap());
    let goldens = Goldens::open(&format!("{variant}.safetensors"));
    for case in cases() {
        let name = &case.name;
        let grids: Vec<_> = open_images(&processor, &case).iter().map(|p| p.grid).collect();
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

/// Embeddings and positions of prompt and answer.
fn inputs(
    model: &Qwen25Vl,
    encoder: &Encoder,
    case: &Case,
    images: &[Pixels],
    answer: &[i64],
) -> (Tensor, Tensor) {
    let grids: Vec<_> = images.iter().map(|p| p.grid).collect();
    let prompt = encoder.prompt(&case.question, &grids).unwrap();
    let mut ids: Vec<i64> = prompt.ids.iter().map(|id| i64::from(*id)).collect();
    ids.extend(answer);
    let mut positions = Vec::new();
    for axis in &prompt.positions {
        positions.extend(axis);
        positions.extend((0..answer.len() as i64).map(|i| prompt.next_position + i));
    }
    let ids = Tensor::from_slice(&ids).unsqueeze(0);
    let positions = Tensor::from_slice(&positions).view([3, 1, -1]);
    let features = model.vision(&images.iter().collect::<Vec<_>>());
    let embeds = model.place_images(&model.embed(&ids), &ids, &features).unwrap();
    (embeds, positions)
}

fn numbers_match(variant: &str) {
    let dir = folder().join(variant);
    let model = Qwen25Vl::load(&dir, Kind::Float, Device::Cpu).unwrap();
    let (encoder, processor) = (Encoder::load(&dir).unwrap(), ImageProcessor::load(&dir).unwrap());
    let goldens = Goldens::open(&format!("{variant}.safetensors"));
    let _no_grad = tch::no_grad_guard();
    for case in cases() {
        let name = &case.name;
        let golden = |key: &str| goldens.get(&format!("{name}/{key}"));
        let images = open_images(&processor, &case);
        let views: Vec<&Pixels> = images.iter().collect();

        let (features, vision_states) = model.vision_states(&views);
        if !features.is_empty() {
            let kept: Vec<Tensor> = features.iter().map(rows).collect();
            close(&format!("{name}: image features"), &Tensor::cat(&kept, 0), golden("features"));
        }
        let answer = goldens.ids(&format!("{name}/answer"));
        let (embeds, positions) = inputs(&model, &encoder, &case, &images, &answer);
        let (last, text_states) = model.text_states(&embeds, &positions, &mut Causal);
        if name == "odd" || name == "two" {
            for (layer, state) in vision_states.iter().enumerate() {
                let key = format!("vision/{layer}");
                close(&format!("{name}: {key}"), state, golden(&key));
            }
            for (layer, state) in text_states.iter().enumerate().skip(1) {
                let key = format!("text/{layer}");
                close(&format!("{name}: {key}"), &state.squeeze_dim(0), golden(&key));
            }
            close(&format!("{name}: final norm"), &last.squeeze_dim(0), golden("text/last"));
        }
        let count = answer.len() as i64;
        let start = last.size()[1] - count - 1;
        let logits = model.logits(&last.squeeze_dim(0).narrow(0, start, count));
        close(&format!("{name}: logits"), &logits, golden("logits"));
        let index = Tensor::from_slice(&answer).unsqueeze(1);
        let logprobs = logits.log_softmax(-1, Kind::Float).gather(-1, &index, false).squeeze_dim(1);
        close(&format!("{name}: log-probabilities"), &logprobs, golden("logprobs"));

        let wanted = goldens.ids(&format!("{name}/greedy"));
        let mut greedy: Vec<i64> = Vec::new();
        while greedy.len() < wanted.len() {
            let (embeds, positions) = inputs(&model, &encoder, &case, &images, &greedy);
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
