"""Pictures four times as large: how near to the real large ones, against bicubic and Lanczos.

    python benchmarks/image/bench_upscale.py [--model emoji-64-256 | FOLDER] [--steps 1 2 4] [--pictures 60]

Held-out pictures of the data at 256x256 and what their way of drawing makes of them at 64x64; all of them (every n-th,
where fewer are wanted). PSNR and SSIM by scikit-image (Gaussian window as Wang et al.), LPIPS with AlexNet's trunk (of
`perrin.training.perceptual`), all of colours over white. "Worn" are small pictures that went through the autoencoder of
emoji-64 first, as those that it generates did. FOLDER is a model, or a run of `perrin train image/emoji_256` that has
not ended: then the average in its checkpoint.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from perrin.models import ModelCard, find
from perrin.models.card import read_card
from perrin.nn import UNet
from perrin.pictures import Pixels, grid_of, over, to_tensor
from perrin.settings import Settings
from perrin.training import read_recipe
from perrin.training.perceptual import Perceptual
from perrin_image.data.large import open_large, prepare_large
from perrin_image.metrics.known import autoencoder
from perrin_image.training.dataset import held_out
from perrin_image.training.upscale import UpscaleTask, worn
from perrin_image.upscaling import FACTOR, Upscaler

Enlarge = Callable[[Pixels], Pixels]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-64-256")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for upscale.png")
    asked = parser.parse_args()
    pack = open_large(prepare_large(Settings().home_path / "data" / "image", lambda *a: None))
    held = [i for i, record in enumerate(pack.records) if held_out(record)]
    chosen = held[:: max(1, len(held) // asked.pictures)][: asked.pictures]
    real = np.stack([pack.pictures[i] for i in chosen])
    small = np.stack([pack.small[i] for i in chosen])
    upscaler, title = _upscaler(asked.model)
    ways: dict[str, Enlarge] = {
        "bicubic": lambda low: _pillow(low, Image.Resampling.BICUBIC),
        "Lanczos": lambda low: _pillow(low, Image.Resampling.LANCZOS),
    }
    for steps in asked.steps:
        ways[f"ours, {steps} steps"] = lambda low, steps=steps: _ours(upscaler, low, steps)  # type: ignore[misc]
    print(f"{title}; {len(chosen)} held-out pictures\n{'':26}{'PSNR':>7} {'SSIM':>7} {'LPIPS':>7} {'s each':>7}")
    look, drawn = Perceptual("alex"), []
    codec = autoencoder(find("emoji-64", "image"))
    for prefix, low in (("", small), ("worn, ", worn(codec, small, lambda *a: None))):
        for name, way in ways.items():
            began = time.process_time()
            made = way(low)
            spent = (time.process_time() - began) / len(low)
            scores = _scores(made, real, look)
            print(f"{prefix + name:26}" + " ".join(f"{v:7.3f}" for v in scores) + f" {spent:7.2f}", flush=True)
            drawn.append(made[:6])
    _draw(
        [np.stack([np.kron(p, np.ones((FACTOR, FACTOR, 1), np.uint8)) for p in small[:6]]), *drawn, real[:6]], asked.out
    )


def _scores(made: Pixels, real: Pixels, look: Perceptual) -> tuple[float, float, float]:
    rows = []
    for one, other in zip(made, real, strict=True):
        x, y = over(one, "white"), over(other, "white")
        ssim = structural_similarity(
            x, y, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        with torch.inference_mode():
            lpips = float(look(*(_colours(v) for v in (x, y))))
        rows.append((min(100.0, peak_signal_noise_ratio(y, x, data_range=255)), float(ssim), lpips))
    means = np.mean(rows, axis=0)
    return float(means[0]), float(means[1]), float(means[2])


def _colours(pixels: Pixels) -> Tensor:
    return to_tensor(np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1)[None])[:, :3]


def _pillow(low: Pixels, kind: Image.Resampling) -> Pixels:
    """Over white, as nobody would enlarge colours that are not shown."""
    large = [
        np.asarray(Image.fromarray(over(p, "white")).resize((FACTOR * p.shape[1], FACTOR * p.shape[0]), kind))
        for p in low
    ]
    return np.concatenate([np.stack(large), np.full((*np.stack(large).shape[:3], 1), 255, np.uint8)], -1)


def _ours(upscaler: Upscaler, low: Pixels, steps: int) -> Pixels:
    return np.concatenate([upscaler.enlarge(low[i : i + 1], seed=7 + i, steps=steps) for i in range(len(low))])


def _upscaler(model: str) -> tuple[Upscaler, str]:
    """Of a model's name, a model's folder, or the folder of a run."""
    folder = Path(model)
    if (folder / "upscaler" / "checkpoint.safetensors").exists():
        return _unfinished(folder / "upscaler" / "checkpoint.safetensors")
    card = read_card(folder) if (folder / "card.yaml").exists() else find(model, "image")
    return Upscaler.load(card, "cpu"), f"{card.name} {card.sha256[:12]}"


def _unfinished(path: Path) -> tuple[Upscaler, str]:
    with safe_open(path, "pt") as stream:
        names = [name for name in stream.keys() if name.startswith("ema.")]  # noqa: SIM118 - not a dict
        state = {name.removeprefix("ema."): stream.get_tensor(name) for name in names}
        step = stream.metadata()["step"]
    stage = read_recipe("image/emoji_256").stages[0]
    task = UpscaleTask({**stage.options, "perceptual": 0}, {}, {})
    assert isinstance(task.network, UNet)
    task.network.load_state_dict({key: value.half().float() for key, value in state.items()})
    told = {"factor": FACTOR, **{key: task.options[key] for key in ("gain", "level", "noise")}}
    card = ModelCard(
        name="unfinished", modality="image", title="Unfinished", licence="none", process=task.objective.process,
        architecture={"unet": {**task.options["network"]}}, conditioners={"low": told}, prediction="x0",
        grid={"shift": task.options["shift"]}, defaults={"steps": task.options["steps"]},
    )  # fmt: skip
    return Upscaler(card, "cpu", task.network.eval()), f"the average in {path}, step {step}"


def _draw(rows: list[Pixels], out: Path) -> None:
    """A picture a column; small, then as in the table, then real."""
    out.mkdir(parents=True, exist_ok=True)
    flat = np.concatenate([np.stack([over(p, "white") for p in row]) for row in rows])
    Image.fromarray(grid_of(flat, columns=len(rows[0]))).save(out / "upscale.png")


if __name__ == "__main__":
    main()
