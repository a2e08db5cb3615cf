//! Qwen2.5-VL and Qwen2-VL in tch: image processor, vision tower, text model, weights, tokenizer and chat template.
//!
//! The references are transformers' `Qwen2_5_VLForConditionalGeneration` and
//! `Qwen2VLForConditionalGeneration` (version 5.23). Goldens made with them (`tests/golden`) are the judge
//! of every number here.
//!
//! From a question to logits: [`ImageProcessor`] makes [`Pixels`], [`Encoder`] makes [`PromptTokens`],
//! [`Qwen25Vl::vision`] and [`Qwen25Vl::embed`] make embeddings, [`Qwen25Vl::place_images`] joins them,
//! [`Qwen25Vl::text`] runs the decoder with an [`Attend`] of the caller's choice, and
//! [`Qwen25Vl::logits`] reads the result. Training runs the towers as a [`Pass`] each.

pub mod attend;
pub mod config;
pub mod error;
pub mod image;
mod json_file;
mod layer;
pub mod lora;
pub mod model;
pub mod pass;
mod product;
pub mod prompt;
mod rotary;
mod template;
mod text;
mod vision;
mod weights;

pub use attend::{Attend, Causal, repeat_kv, scaled_dot};
pub use config::{Family, ModelConfig, TextConfig, VisionConfig};
pub use error::LoadError;
pub use image::{ImageProcessor, Pixels};
pub use lora::{Adapter, base_directory};
pub use model::Qwen25Vl;
pub use pass::Pass;
pub use prompt::{Encoder, PromptTokens};
