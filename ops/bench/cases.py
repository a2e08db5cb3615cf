"""What is measured: shapes of model and work. Both sides of a case get the same weights, prompts, images, number
of candidates, tokens an answer, threads and loss."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Case:
    """One configuration of one step."""

    name: str
    says: str  # for the table
    n: int  # candidates a question
    answer_tokens: int  # exactly so many in each answer
    questions: int = 4  # a step
    image_side: int = 336  # pixels; 0: no image
    question_words: int = 12
    repeats: int = 3  # measured steps, after one that warms up
    order: str = "step"  # or "rollout": draw only
    model: str = "bench"  # a key of MODELS
    tokens_per_batch: int = 4096  # medevo's default; one long group a pass, as the peer has it


# One group with its image a pass: what the peer's micro-batch is, too.
IMAGE = Case("image-n8", "336-px image, 12-token answers", n=8, answer_tokens=12, tokens_per_batch=1024)
CASES = [
    IMAGE,
    replace(IMAGE, name="image-n16", n=16),
    Case("long-n8", "text, 256-token answers", n=8, answer_tokens=256, image_side=0, question_words=80, questions=2),
]
ROLLOUTS = [
    replace(IMAGE, name="rollout-image-n16", n=16, order="rollout", tokens_per_batch=4096),
    replace(CASES[2], name="rollout-long-n8", order="rollout"),
]
SMOKE = [
    Case("smoke", "as small as can be", n=2, answer_tokens=3, questions=1, image_side=56, repeats=1, model="tiny"),
    Case(
        "smoke-rollout",
        "as small as can be",
        n=2,
        answer_tokens=3,
        questions=1,
        image_side=56,
        repeats=1,
        model="tiny",
        order="rollout",
    ),
]

# What differs from ops/demo/tiny-qwen2.5-vl; "tiny" is that model itself. The tokenizer knows 465 of the
# 8192 tokens: random weights draw all, and the others have no text.
MODELS = {
    "tiny": {},
    "bench": {
        "text_config": {
            "vocab_size": 8192,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "initializer_range": 0.02,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
        },
        "vision_config": {
            "depth": 6,
            "hidden_size": 320,
            "intermediate_size": 1280,
            "num_heads": 5,
            "window_size": 112,
            "out_hidden_size": 512,
            "fullatt_block_indexes": [2, 5],
            "initializer_range": 0.02,
        },
    },
}
