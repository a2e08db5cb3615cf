"""Writes worker/engine/tests/golden/{loss,adamw}.json.

The loss and its gradient are TRL's own: `GRPOTrainer._compute_loss` of the installed TRL is called
unbound, on a stand-in that carries only the settings that the method reads. Its one model call,
`_get_per_token_logps_and_entropies`, is answered with a leaf tensor of log-probabilities, so that
`loss.backward()` yields d loss / d log-probability; entropies are a second leaf. The KL estimators k1 and k2,
which TRL lacks, come from `plain_loss`, which is held against TRL where TRL has the numbers. The optimizer
numbers are torch.optim.AdamW's.

"Stale" cases are those of a rollout's second and later updates (num_iterations): old log-probabilities that
differ from the policy's.

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


def stand_in(case, logps, entropies):
    """An object with what `_compute_loss` reads of a trainer: one process, one accumulation step."""
    accelerator = types.SimpleNamespace(
        num_processes=1, gather=lambda t: t, reduce=lambda t, reduction: t, sync_gradients=True
    )
    # TRL writes gspo as two settings.
    gspo = case["loss_type"] == "gspo"
    level = "sequence" if gspo else case.get("importance_sampling_level", "token")
    entropy_coef = case.get("entropy_weight", 0.0)
    return types.SimpleNamespace(
        loss_type="grpo" if gspo else case["loss_type"],
        beta=case["beta"],
        epsilon_low=case["clip_low"],
        epsilon_high=case["clip_high"],
        importance_sampling_level=level,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=case.get("importance_cap", 0.0) > 0,
        vllm_importance_sampling_correction=True,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=entropy_coef != 0.0,
        use_adaptive_entropy=False,
        entropy_coef=entropy_coef,
        max_completion_length=MAX_NEW_TOKENS,
        current_gradient_accumulation_steps=1,
        accelerator=accelerator,
        model=types.SimpleNamespace(training=True),
        args=types.SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        _metrics={"train": collections.defaultdict(list), "eval": collections.defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *a, **k: (logps, entropies, None),
    )


def plain_loss(case, logps, old, ref, advantages, mask):
    """The loss without bonus and correction, with any KL estimator; and that KL's mean over tokens."""
    loss_type = case["loss_type"]
    lengths = mask.sum(1, keepdim=True)
    log_ratio = logps - (logps.detach() if old is None else old)
    if loss_type == "gspo" or case.get("importance_sampling_level") == "sequence":
        log_ratio = (log_ratio * mask).sum(1, keepdim=True) / lengths
    ratio, advantages = torch.exp(log_ratio), advantages[:, None]
    if loss_type == "cispo":
        gain = ratio.detach().clamp(max=case["clip_high"]) * advantages * logps
    else:
        bounded = ratio.clamp(1 - case["clip_low"], 1 + case["clip_high"])
        gain = torch.min(ratio * advantages, bounded * advantages)
    d = logps - ref
    kl = {"k1": d, "k2": d.square() / 2, "k3": torch.exp(-d) + d - 1}[case.get("kl_estimator", "k3")]
    loss = (case["beta"] * kl - gain) * mask
    by = {"grpo": lengths * len(mask), "gspo": lengths * len(mask), "dr_grpo": len(mask) * MAX_NEW_TOKENS}
    return (loss / by.get(loss_type, mask.sum())).sum(), ((kl * mask).sum() / mask.sum()).item()


def loss_case(name, loss_type, beta, low, high, fresh, seed, **more):
    """`more` holds the settings that differ from the run file's defaults, by their names there."""
    g = torch.Generator().manual_seed(seed)
    lengths = [3, 1, 5, 2, 5, 3]
    longest = max(lengths)
    mask = torch.tensor([[1.0] * n + [0.0] * (longest - n) for n in lengths])
    logps = (-torch.rand(len(lengths), longest, generator=g) * 3).requires_grad_()
    drift = torch.randn(len(lengths), longest, generator=g) * 0.3
    old = None if fresh else logps.detach() + drift
    ref = logps.detach() + torch.randn(len(lengths), longest, generator=g) * 0.4
    # Drawn last, so that the numbers above do not depend on whether these are used.
    rollout = logps.detach() + torch.randn(len(lengths), longest, generator=g) * 0.5
    entropies = (torch.rand(len(lengths), longest, generator=g) * 2).requires_grad_()
    advantages = torch.tensor([1.3, -0.7, 0.4, -1.1, 0.0, 0.9])
    case = {
        "name": name,
        "loss_type": loss_type,
        "beta": beta,
        "clip_low": low,
        "clip_high": high,
        "max_new_tokens": MAX_NEW_TOKENS,
        **more,
    }
    trainer = stand_in(case, logps, entropies)
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
    if "importance_cap" in more:
        # What TRL's mode "token_truncate" makes, with vllm_importance_sampling_clip_max as the cap.
        training = logps.detach() if old is None else old
        inputs["importance_sampling_ratio"] = ((training - rollout) * mask).exp().clamp(max=more["importance_cap"])
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    metrics = trainer._metrics["train"]
    kl = metrics["kl"][0] if beta else 0.0
    plain, plain_kl = plain_loss(case, logps, old, ref, advantages, mask)
    if "kl_estimator" in more:
        loss, kl = plain, plain_kl
    elif not more.keys() & {"entropy_weight", "importance_cap"}:
        # What stands in for TRL elsewhere must be TRL's where both have a number.
        ours, theirs = (torch.autograd.grad(l, logps, retain_graph=True)[0] for l in (plain, loss))
        assert torch.allclose(plain, loss, atol=1e-6) and torch.allclose(ours, theirs, atol=1e-6), name
        assert not beta or abs(plain_kl - kl) < 1e-5, name
    loss.backward()
    rows = lambda t: [r[:n] for r, n in zip(t.tolist(), lengths)]
    shares = {"either": "region_mean", "low": "low_mean", "high": "high_mean"}
    if loss_type == "cispo":
        bound = metrics["cispo_clip_ratio"][0]
        clipped = {"either": bound, "low": 0.0, "high": bound}
    else:
        clipped = {side: metrics[f"clip_ratio/{share}"][0] for side, share in shares.items()}
    case |= {
        "advantages": advantages.tolist(),
        "logps": rows(logps.detach()),
        "old": None if old is None else rows(old),
        "reference": rows(ref),
        "loss": loss.item(),
        "gradient": rows(logps.grad),
        "kl": kl,
        "clipped": clipped,
    }
    if "importance_cap" in more:
        case["rollout"] = rows(rollout)
    if "entropy_weight" in more:
        case["entropies"] = rows(entropies.detach())
        case["entropy_gradient"] = rows(entropies.grad)
    return case


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
    sequence = {"importance_sampling_level": "sequence"}
    # loss type, clip_low, clip_high, other settings. The clips are narrow enough to bite.
    for loss_type, low, high, more in (
        ("bnpo", 0.2, 0.28, {}),
        ("cispo", 0.2, 5.0, {}),
        ("cispo", 0.2, 1.1, {}),
        ("cispo", 0.2, 1.02, sequence),
        ("gspo", 0.1, 0.05, {}),
        ("dapo", 0.1, 0.05, sequence),
        ("dr_grpo", 0.1, 0.05, sequence),
        ("dapo", 0.2, 0.28, {"kl_estimator": "k1"}),
        ("dapo", 0.2, 0.28, {"kl_estimator": "k2"}),
        *((t, 0.2, 5.0 if t == "cispo" else 0.28, {"entropy_weight": 0.3})
          for t in ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "gspo")),
        ("dapo", 0.2, 0.28, {"importance_cap": 1.2}),
        ("grpo", 0.2, 0.28, {"importance_cap": 1.2}),
        ("cispo", 0.2, 1.1, {"importance_cap": 1.2}),
        ("cispo", 0.2, 1.1, {"importance_cap": 1.2, **sequence}),
        ("gspo", 0.1, 0.05, {"importance_cap": 1.2}),
        ("dr_grpo", 0.1, 0.05, {"importance_cap": 1.2, "entropy_weight": 0.1, **sequence}),
    ):
        for beta in (0.5,) if more.keys() - sequence.keys() else (0.0, 0.5):
            for fresh in (True, False):
                age = "fresh" if fresh else "stale"
                said = "".join(f", {key} {value}" for key, value in more.items())
                name = f"{loss_type}, beta {beta}, clip_high {high}{said}, {age} old log-probabilities"
                cases.append(loss_case(name, loss_type, beta, low, high, fresh, 11 + len(cases), **more))
    # The rest of loss type × level × estimator, off policy. The clips are narrow and the upper one higher.
    have = {(c["loss_type"], c.get("importance_sampling_level", "token"), c.get("kl_estimator", "k3"), c["beta"])
            for c in cases if c["old"] and not c.keys() & {"rollout", "entropies"}}
    for loss_type in ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "gspo"):
        for level in ("token", "sequence"):
            for estimator, beta in (("k3", 0.0), ("k3", 0.5), ("k1", 0.5), ("k2", 0.5)):
                if (loss_type, level, estimator, beta) in have or (loss_type, level) == ("gspo", "sequence"):
                    continue
                more = dict(sequence) if level == "sequence" else {}
                if estimator != "k3":
                    more["kl_estimator"] = estimator
                high = 1.1 if loss_type == "cispo" else 0.12
                said = "".join(f", {key} {value}" for key, value in more.items())
                name = f"{loss_type}, beta {beta}, clip_high {high}{said}, stale old log-probabilities"
                cases.append(loss_case(name, loss_type, beta, 0.05, high, False, 11 + len(cases), **more))
    loss = {"trl": trl.__version__, "torch": torch.__version__, "cases": cases}
    (OUT / "loss.json").write_text(json.dumps(loss, indent=1) + "\n")
    (OUT / "adamw.json").write_text(json.dumps({"torch": torch.__version__, **adamw_case()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
