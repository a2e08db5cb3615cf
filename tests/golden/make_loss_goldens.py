"""Writes worker/engine/tests/golden/{loss,adamw}.json.

The loss and its gradient are TRL's own: `GRPOTrainer._compute_loss` of the installed TRL is called
unbound, on a stand-in that carries only the settings that the method reads. Its one model call,
`_get_per_token_logps_and_entropies`, is answered with a leaf tensor of log-probabilities, so that
`loss.backward()` yields d loss / d log-probability. The optimizer numbers are torch.optim.AdamW's.

Run: python tests/golden/make_loss_goldens.py   (needs trl 1.16 and torch 2.11)
"""

import collections
import json
import pathlib
import types

import torch
import trl
from trl.trainer.grpo_trainer import GRPOTrainer

OUT = pathlib.Path(__file__).resolve().parents[2] / "worker/engine/tests/golden"
MAX_NEW_TOKENS = 7


def stand_in(loss_type, beta, low, high, logps):
    """An object with what `_compute_loss` reads of a trainer: one process, one accumulation step."""
    accelerator = types.SimpleNamespace(
        num_processes=1, gather=lambda t: t, reduce=lambda t, reduction: t, sync_gradients=True
    )
    return types.SimpleNamespace(
        loss_type=loss_type,
        beta=beta,
        epsilon_low=low,
        epsilon_high=high,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        max_completion_length=MAX_NEW_TOKENS,
        current_gradient_accumulation_steps=1,
        accelerator=accelerator,
        model=types.SimpleNamespace(training=True),
        args=types.SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        _metrics={"train": collections.defaultdict(list), "eval": collections.defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *a, **k: (logps, torch.zeros_like(logps), None),
    )


def loss_case(name, loss_type, beta, low, high, fresh, seed):
    g = torch.Generator().manual_seed(seed)
    lengths = [3, 1, 5, 2, 5, 3]
    longest = max(lengths)
    mask = torch.tensor([[1.0] * n + [0.0] * (longest - n) for n in lengths])
    logps = (-torch.rand(len(lengths), longest, generator=g) * 3).requires_grad_()
    drift = torch.randn(len(lengths), longest, generator=g) * 0.3
    old = None if fresh else logps.detach() + drift
    ref = logps.detach() + torch.randn(len(lengths), longest, generator=g) * 0.4
    advantages = torch.tensor([1.3, -0.7, 0.4, -1.1, 0.0, 0.9])
    trainer = stand_in(loss_type, beta, low, high, logps)
    inputs = {
        "prompt_ids": torch.zeros(len(lengths), 2, dtype=torch.long),
        "prompt_mask": torch.ones(len(lengths), 2),
        "completion_ids": torch.zeros(len(lengths), longest, dtype=torch.long),
        "completion_mask": mask,
        "advantages": advantages,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    if old is not None:
        inputs["old_per_token_logps"] = old
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    metrics = trainer._metrics["train"]
    rows = lambda t: [r[:n] for r, n in zip(t.tolist(), lengths)]
    return {
        "name": name,
        "loss_type": loss_type,
        "beta": beta,
        "clip_low": low,
        "clip_high": high,
        "max_new_tokens": MAX_NEW_TOKENS,
        "advantages": advantages.tolist(),
        "logps": rows(logps.detach()),
        "old": None if old is None else rows(old),
        "reference": rows(ref),
        "loss": loss.item(),
        "gradient": rows(logps.grad),
        "kl": metrics["kl"][0] if beta else 0.0,
        "clip_fraction": metrics["clip_ratio/region_mean"][0],
    }


def adamw_case():
    g = torch.Generator().manual_seed(5)
    shapes = [[3, 4], [5]]
    start = [torch.randn(s, generator=g) for s in shapes]
    parameters = [torch.nn.Parameter(t.clone()) for t in start]
    settings = {"beta1": 0.9, "beta2": 0.98, "eps": 1e-8, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(
        parameters, lr=1.0, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1, foreach=False
    )
    steps = []
    for step in range(6):
        lr = 1e-2 / (step + 1)
        gradients = [torch.randn(s, generator=g) * (10.0 ** (step - 3)) for s in shapes]
        for p, d in zip(parameters, gradients):
            p.grad = d.clone()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        steps.append({
            "lr": lr,
            "gradients": [d.flatten().tolist() for d in gradients],
            "parameters": [p.detach().flatten().tolist() for p in parameters],
        })
    start = [t.flatten().tolist() for t in start]
    return {"shapes": shapes, "settings": settings, "start": start, "steps": steps}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    cases = []
    for loss_type in ("grpo", "dapo", "dr_grpo"):
        for beta in (0.0, 0.5):
            for fresh in (True, False):
                age = "fresh" if fresh else "stale"
                name = f"{loss_type}, beta {beta}, {age} old log-probabilities"
                cases.append(loss_case(name, loss_type, beta, 0.2, 0.28, fresh, 11 + len(cases)))
    loss = {"trl": trl.__version__, "torch": torch.__version__, "cases": cases}
    (OUT / "loss.json").write_text(json.dumps(loss, indent=1) + "\n")
    (OUT / "adamw.json").write_text(json.dumps({"torch": torch.__version__, **adamw_case()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
