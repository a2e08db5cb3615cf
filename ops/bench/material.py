"""Model directory, pictures and questions of a case: made once, from fixed seeds, into runs/bench."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from cases import MODELS, Case

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "ops/demo/tiny-qwen2.5-vl"
WORDS = "what where which organ lesion modality is the shown in this image liver lung ct mri left right there a of".split()


def model(name: str, work: Path, worker: Path) -> Path:
    """A Hugging Face directory with random weights."""
    out = work / f"model-{name}"
    if (out / "model.safetensors").exists():
        return out
    config = work / f"config-{name}"
    shutil.rmtree(config, ignore_errors=True)
    shutil.copytree(TINY, config)
    whole = json.loads((TINY / "config.json").read_text())
    for section, changes in MODELS[name].items():
        whole[section].update(changes)
    (config / "config.json").write_text(json.dumps(whole, indent=2))
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([worker, "init", "--config", config, "--seed", "0", "--out", out], check=True, stdout=subprocess.DEVNULL)
    return out


def endless(name: str, work: Path) -> Path:
    """The model's directory without weights, with an end of an answer that is never drawn."""
    out = work / f"endless-{name}"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(work / f"model-{name}", out, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((out / "config.json").read_text())
    beyond = config["text_config"]["vocab_size"]
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": beyond}))
    return out


def picture(path: Path, side: int, seed: int) -> None:
    """Smooth blobs and noise, as a scan has."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).resize((side, side), Image.BICUBIC)
    grey = np.asarray(small, dtype=np.int16) + rng.integers(-12, 12, (side, side))
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB").save(path)


def questions(case: Case, steps: int, work: Path) -> list[list[dict]]:
    """For each step its questions; none comes twice, so neither side finds an image in a cache."""
    work.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    out = []
    for step in range(steps):
        group = []
        for place in range(case.questions):
            text = " ".join(rng.choice(WORDS) for _ in range(case.question_words)) + " ?"
            images = []
            if case.image_side:
                path = work / f"picture-{case.image_side}-{step}-{place}.png"
                if not path.exists():
                    picture(path, case.image_side, seed=1000 * step + place)
                images = [str(path)]
            group.append({"question": text, "images": images})
        out.append(group)
    return out
