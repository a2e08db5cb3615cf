//! The published 3B and 7B models, against numbers worked out by hand.
#![allow(clippy::unwrap_used)]

use medevo_memory::{Estimate, Job, Place, Row, Shape, advice};
use medevo_types::settings::{Dtype, LoraSettings, Shard, TrainSettings};
use serde_json::json;

const GIB: f64 = (1u64 << 30) as f64;

/// As `config.json` of Qwen2.5-VL-3B-Instruct and of the 7B has it.
fn shape(large: bool) -> Shape {
    let (hidden, inner, layers, heads, kv, vocabulary) = match large {
        false => (2048, 11008, 36, 16, 2, 151_936),
        true => (3584, 18944, 28, 28, 4, 152_064),
    };
    let config = json!({
        "model_type": "qwen2_5_vl", "vocab_size": vocabulary, "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv, "tie_word_embeddings": !large,
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "in_chans": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "out_hidden_size": hidden,
        },
    });
    Shape::from_json(&config).unwrap()
}

/// A 336-pixel image: 24 × 24 patches, 144 tokens; 56 more for the words; 16 answers of 12 tokens: 392 tokens.
const ROW: Row = Row { prompt: 200, patches: 576, answers: 16, answer: 12 };

fn job() -> Job {
    Job {
        place: Place::Gpu,
        dtype: Dtype::Bf16,
        freeze_vision: false,
        train: TrainSettings::default(),
        lora: None,
        workers: 1,
        tokens_per_batch: 16 * 392,
        reference: true,
        update: Some((ROW, 32)),
        rollout: Some((ROW, 4)),
        image_tokens: 1000 * 144,
    }
}

fn of(estimate: &Estimate, name: &str) -> f64 {
    let phases = estimate.phases.iter().flat_map(|phase| &phase.needs);
    let mut needs = estimate.held.iter().chain(phases).filter(|need| need.name == name);
    needs.next().map_or(0.0, |need| need.bytes as f64 / GIB)
}

fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 0.06, "{value} GiB for {expected}");
}

/// The totals that the model hub shows for the two.
#[test]
fn parameters_are_those_published() {
    assert_eq!(shape(false).parameters(), 3_754_622_976);
    assert_eq!(shape(true).parameters(), 8_292_166_656);
    // The tower of both, its last layer apart: 668,684,288 = 3B's; the 7B's reaches 3584 wide instead of 2048.
    assert_eq!(shape(false).vision_parameters(), 668_684_288);
    assert_eq!(
        shape(true).vision_parameters() - shape(false).vision_parameters(),
        (4 * 1280 + 1) * (3584 - 2048)
    );
}

/// 3.7546e9 numbers: bf16 7.0 GiB (and as much for gradients and for the reference), f32 masters 14.0, two
/// moments 28.0, the f32 sum of gradients 14.0. Keys and values of a token: 2 · 36 layers · 256 · 2 bytes = 36 KiB;
/// 4 prompts of 200 tokens 28 MiB; 64 answers of 12 tokens 27 MiB.
#[test]
fn the_3b_model_by_hand() {
    let estimate = Estimate::new(&shape(false), &job());
    for (name, expected) in [
        ("weights", 6.99),
        ("gradients on the weights", 6.99),
        ("reference weights", 6.99),
        ("f32 masters", 13.99),
        ("moments", 27.97),
        ("sum of gradients", 13.99),
        ("keys and values of prompts", 800.0 * 36.0 / 1024.0 / 1024.0),
        ("keys and values of answers", 768.0 * 36.0 / 1024.0 / 1024.0),
        ("vision features", 0.5),
    ] {
        near(of(&estimate, name), expected);
    }
    // A token in a decoder layer, bf16: 2 · (6 · 2048 + 5 · 2048 + 4 · 256 + 4 · 11008) + 8 · 2048 = 151,552 bytes; in
    // 36 layers 5.20 MiB. A patch in a block of the tower, bf16: 2 · (11 · 1280 + 4 · 3420) + 28 · 1280 = 91,360 bytes;
    // in 32 blocks 2.79 MiB. 576 patches count as 217 tokens, so 6272 / (392 + 217) = 10 rows go together: 3920 tokens
    // and 5760 patches, 19.92 + 15.68 GiB.
    let activations = |estimate: &Estimate| {
        let update = estimate.phases.iter().find(|phase| phase.name == "update").unwrap();
        let need = update.needs.iter().find(|need| need.name == "activations").unwrap();
        need.bytes as f64 / GIB
    };
    near(activations(&estimate), 19.92 + 15.68);
    // Recomputed: 3920 · 36 · 2048 · 2 bytes and 5760 · 32 · 1280 · 2 bytes of inputs, and one layer: 0.54 + 0.44 + 0.55.
    let mut frugal = job();
    frugal.train.recompute = true;
    near(activations(&Estimate::new(&shape(false), &frugal)), 1.53);
}

/// 8.29e9 numbers at 2 + 2 + 4 + 8 + 4 bytes are 154 GiB before any activation: no 80 GiB device trains it alone.
#[test]
fn the_7b_model_needs_several_devices_or_adapters() {
    let (shape, mut job) = (shape(true), job());
    job.reference = false;
    let alone = Estimate::new(&shape, &job).peak();
    assert!(alone as f64 / GIB > 154.0);
    // Eight ranks: weights 15.4, gradients 15.4, masters and moments 92.7 / 8 = 11.6, the sum 30.9 and its part 3.9.
    job.train = TrainSettings { recompute: true, shard: Shard::Optimizer };
    job.workers = 8;
    let sharded = Estimate::new(&shape, &job);
    near(of(&sharded, "moments") + of(&sharded, "f32 masters"), 11.58);
    assert!(
        (77.0..90.0).contains(&(sharded.peak() as f64 / GIB)),
        "{}",
        sharded.peak() as f64 / GIB
    );
    // Adapters of rank 16 on all linear layers of the decoder: 28 · 16 · (2·7168 + 2·4096 + 3·22528) = 40.4 million,
    // and 32 · 16 · 3 · 4700 = 7.2 million in the tower.
    job.lora = Some(LoraSettings::default());
    assert_eq!(
        shape.adapter_parameters(16, &LoraSettings::default().targets, false),
        28 * 16 * (2 * 7168 + 2 * 4096 + 3 * 22_528) + 32 * 16 * 3 * 4700
    );
    assert!((Estimate::new(&shape, &job).peak() as f64 / GIB) < 24.0);
}

/// A proposal whose effect is not what is said would send the user round in circles.
#[test]
fn each_change_saves_what_is_said_and_enough_is_enough() {
    let (shape, job) = (shape(true), job());
    for memory in [24u64, 40, 80, 140] {
        let memory = memory << 30;
        let peak = Estimate::new(&shape, &job).peak();
        let (all, together) = advice(&shape, &job, memory);
        assert!(all.iter().any(|one| one.change == "train.recompute = true"));
        assert!(all.iter().any(|one| one.change.starts_with("train.shard = \"optimizer\" with 8")));
        for one in &all {
            assert!(one.saves > 0 && one.enough == (peak - one.saves <= memory), "{one:?}");
        }
        let together = together.unwrap();
        assert!(!together.is_empty(), "{memory}");
        // Adapters make it fit almost alone: what they make needless is not asked for.
        let adapters = together.iter().any(|change| change == "[lora]");
        assert!(
            !adapters || !together.iter().any(|change| change.contains("shard")),
            "{together:?}"
        );
    }
    // Nothing helps on a device that cannot hold the weights.
    assert_eq!(advice(&shape, &job, 8 << 30).1, None);
}

/// More of anything must never look cheaper.
#[test]
fn more_work_takes_more_memory() {
    let shape = shape(false);
    let peak = |change: &dyn Fn(&mut Job)| {
        let mut job = job();
        change(&mut job);
        Estimate::new(&shape, &job).peak()
    };
    let usual = peak(&|_| ());
    assert!(peak(&|job| job.tokens_per_batch *= 2) > usual);
    assert!(peak(&|job| job.dtype = Dtype::F32) > usual);
    assert!(peak(&|job| job.reference = false) < usual);
    assert!(peak(&|job| job.freeze_vision = true) < usual);
    assert!(peak(&|job| job.update = None) < usual);
}
