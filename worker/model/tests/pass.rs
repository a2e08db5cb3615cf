//! A training pass against one graph of the whole model.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::path::{Path, PathBuf};

use medevo_model::{Causal, ModelConfig, Pixels, Qwen25Vl};
use tch::{Device, Kind, Tensor};

const ROWS: i64 = 2;
const LENGTH: i64 = 24;

/// The demo's shape with random weights, in files.
fn directory(under: &Path, tied: bool) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops/demo/tiny-qwen2.5-vl");
    let shape = under.join("shape");
    std::fs::create_dir(&shape).unwrap();
    for file in std::fs::read_dir(source).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), shape.join(file.file_name())).unwrap();
    }
    let path = shape.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["tie_word_embeddings"] = tied.into();
    config["text_config"]["tie_word_embeddings"] = tied.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let model = under.join("model");
    std::fs::create_dir(&model).unwrap();
    Qwen25Vl::random(ModelConfig::load(&shape).unwrap(), 5, Device::Cpu).save(&model).unwrap();
    model
}

/// Two rows of text, the second around an image of 6 × 4 patches, which are 6 tokens.
struct Input {
    image: Pixels,
    ids: Tensor,
    positions: Tensor,
    /// The loss is the logits' product with this.
    weights: Tensor,
}

impl Input {
    fn new(config: &ModelConfig) -> Self {
        tch::manual_seed(7);
        let patches = Tensor::randn([24, config.vision.patch_dim()], (Kind::Float, Device::Cpu));
        let ids = Tensor::randint_low(10, 400, [ROWS, LENGTH], (Kind::Int64, Device::Cpu));
        let _ = ids.get(1).narrow(0, 3, 6).fill_(config.image_token_id);
        let positions = Tensor::arange(LENGTH, (Kind::Int64, Device::Cpu)).view([1, 1, LENGTH]);
        let shape = [ROWS, LENGTH, config.text.vocab_size];
        Self {
            image: Pixels { patches, grid: [1, 6, 4], digest: [0; 32] },
            ids,
            positions: positions.expand([3, ROWS, LENGTH], false).contiguous(),
            weights: Tensor::randn(shape, (Kind::Float, Device::Cpu)),
        }
    }

    fn loss(&self, model: &Qwen25Vl, hidden: &Tensor) -> Tensor {
        (model.logits(hidden).to_kind(Kind::Float) * &self.weights).sum(Kind::Float)
    }

    fn in_one_graph(&self, model: &Qwen25Vl) {
        let features = model.vision(&[&self.image]);
        let embeds = model.place_images(&model.embed(&self.ids), &self.ids, &features).unwrap();
        self.loss(model, &model.text(&embeds, &self.positions, &mut Causal)).backward();
    }

    fn in_passes(&self, model: &Qwen25Vl, recompute: bool) {
        let tower = model.vision_pass(&[&self.image], recompute);
        let features = [tower.output().shallow_clone()];
        let embeds = model.place_images(&model.embed(&self.ids), &self.ids, &features).unwrap();
        let mut attend = Causal;
        let text = model.text_pass(&embeds, &self.positions, &mut attend, recompute);
        self.loss(model, text.output()).backward();
        text.backward();
        tower.backward();
    }
}

/// Broken, recomputing layers would train another model than keeping them does.
#[test]
fn passes_give_the_gradient_of_one_graph_to_the_bit() {
    tch::set_num_threads(1);
    for (tied, kind) in [(true, Kind::Float), (false, Kind::Float), (true, Kind::BFloat16)] {
        let temporary = tempfile::tempdir().unwrap();
        let dir = directory(temporary.path(), tied);
        for train_vision in [true, false] {
            let load = || {
                let model = Qwen25Vl::load(&dir, kind, Device::Cpu).unwrap();
                model.set_requires_grad(train_vision, true);
                model
            };
            let whole = load();
            let input = Input::new(&whole.config);
            input.in_one_graph(&whole);
            for recompute in [false, true] {
                let model = load();
                input.in_passes(&model, recompute);
                for ((name, ours), (_, theirs)) in model.parameters().iter().zip(whole.parameters())
                {
                    let (ours, theirs) = (ours.grad(), theirs.grad());
                    assert_eq!(ours.defined(), theirs.defined(), "{name}");
                    assert_eq!(ours.defined(), train_vision || !Qwen25Vl::is_vision(name));
                    let same = !ours.defined() || ours.equal(&theirs);
                    assert!(same, "{name} ({kind:?}, recompute {recompute}, tied {tied})");
                }
            }
        }
    }
}
