"""TRL's side: one GRPOTrainer that takes its steps when told to. `trl_side.py SPEC.json`, then lines
`step K` on standard input, K counting up from 0 without a gap."""

import json
import logging
import random
import sys

import torch
from datasets import Dataset, Image, disable_progress_bars
from transformers import AutoProcessor, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig, GRPOTrainer

from meter import clock, memory, say


class OnOrder(TrainerCallback):
    """Waits for an order before each step and answers it afterwards."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            say(memory())
        line = sys.stdin.readline()
        if not line:
            control.should_training_stop = True
            sys.exit(0)
        if line.split() != ["step", str(state.global_step)]:
            raise SystemExit(f"expected the order `step {state.global_step}`, got {line!r}")
        self.trainer.drawing = (0.0, 0.0)
        self.start = clock()

    def on_step_end(self, args, state, control, **kwargs):
        wall, cpu = (now - then for now, then in zip(clock(), self.start))
        drawing, drawing_cpu = self.trainer.drawing
        say(
            {
                "rollout_s": drawing,
                "update_s": wall - drawing,
                "rollout_cpu_s": drawing_cpu,
                "update_cpu_s": cpu - drawing_cpu,
                "prompt_tokens": self.trainer.drawn[0],
                "answer_tokens": self.trainer.drawn[1],
                **memory(),
            }
        )


class Timed(GRPOTrainer):
    """Times `_generate`: tokens, pixels and transformers' generate. All else of a step counts as update."""

    def _generate(self, prompts):
        start = clock()
        out = super()._generate(prompts)
        self.drawing = tuple(sum + now - then for sum, now, then in zip(self.drawing, clock(), start))
        self.drawn = (sum(map(len, out[0])), sum(map(len, out[1])))
        return out


def reward(completions, **kwargs):
    """Anything that differs within a group: advantages must not vanish."""
    return [random.random() for _ in completions]


def main() -> None:
    spec = json.load(open(sys.argv[1]))
    torch.set_num_threads(spec["threads"])
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    disable_progress_bars()
    rows = [question for step in spec["steps"] for question in step]
    columns = {"prompt": [[{"role": "user", "content": row["question"]}] for row in rows]}
    if rows[0]["images"]:
        columns["image"] = [row["images"][0] for row in rows]
    dataset = Dataset.from_dict(columns)
    if rows[0]["images"]:
        dataset = dataset.cast_column("image", Image())
    n, tokens = spec["n"], spec["answer_tokens"]
    config = GRPOConfig(
        output_dir=spec["work"],
        max_steps=len(spec["steps"]),
        # One generation for the whole step; one group a forward and backward pass.
        per_device_train_batch_size=n,
        gradient_accumulation_steps=len(spec["steps"][0]),
        num_generations=n,
        max_completion_length=tokens,
        generation_kwargs={"min_new_tokens": tokens},
        temperature=1.0,
        beta=0.0,
        loss_type="dapo",
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        # TRL's defaults for these two save memory and cost time.
        gradient_checkpointing=False,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        shuffle_dataset=False,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    on_order = OnOrder()
    trainer = Timed(
        model=spec["model"],
        processing_class=AutoProcessor.from_pretrained(spec["model"]),
        reward_funcs=reward,
        args=config,
        train_dataset=dataset,
        callbacks=[on_order],
    )
    on_order.trainer = trainer
    # What the trainer prints is not for whoever reads the timings.
    sys.stdout = sys.stderr
    trainer.train()


if __name__ == "__main__":
    main()
