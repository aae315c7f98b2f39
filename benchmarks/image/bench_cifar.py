"""Class-conditional CIFAR-10 by this project and by diffusers, for an equal budget; what came out, and how fast.

    python benchmarks/image/bench_cifar.py [--seconds 600] [--widths 64 128 128] [--samples 500] [--out FOLDER]
    python benchmarks/image/bench_cifar.py --images 200000

Ours: the recipe image/cifar10 (flow, velocity) by the project's trainer, sampled by DPM-Solver++(2M). Theirs: a
UNet2DModel of about as many parameters (widened where it has fewer), trained as diffusers' example does it
(DDPMScheduler, 1,000 linear steps, the noise's squared error, EMAModel), sampled by their DDIM and DPM-Solver++.
Optimizer, batch, rates of learning, bf16 and mirroring are the same. Seconds are of one processor (OMP_NUM_THREADS=1),
so that what else runs does not count: a few steps of each are timed, and each gets as many as fit.

Frechet and kernel distance (x 1000) in features of EfficientNet-Lite0, not Inception's: to as many test pictures as are
drawn. The floor is as many pictures of training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.metrics.distances import frechet, kernel
from perrin.pictures import grid_of, to_pixels
from perrin.settings import Settings
from perrin.training.loop import learning_rate, run_stage
from perrin.training.recipe import Stage, read_recipe
from perrin_image.data.cifar import CLASSES
from perrin_image.metrics.features import NAME, Features
from perrin_image.training.cifar import CifarTask, draw, to_colours

TIMED, PART = 6, 50


def main() -> None:
    """Train both, draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of one processor, for each")
    parser.add_argument("--images", type=int, help="for each, instead of seconds")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 128])
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("cifar-bench"), help="folder for checkpoints and pictures")
    asked = parser.parse_args()
    torch.manual_seed(0)
    task, stage = _ours(asked)
    theirs = Theirs(asked.widths, asked.blocks, task)
    print(f"parameters: ours {_size(task.network):,}, theirs {_size(theirs.network):,}; features: {NAME}")
    rates = {"ours": _rate(task.network, lambda b: task.loss(task.network, b, torch.Generator())[0], task, stage),
             "theirs": _rate(theirs.network, theirs.loss, task, stage)}  # fmt: skip
    steps = {name: max(1, round((asked.images or asked.seconds * rate) / stage.batch)) for name, rate in rates.items()}
    labels = torch.arange(asked.samples) % len(CLASSES)
    for name, rate in rates.items():
        print(
            f"{name}: {rate:.1f} pictures/s of training when alone, {steps[name] * stage.batch:,} pictures", flush=True
        )

    task, stage = _ours(asked, steps["ours"])  # from its beginning again
    (asked.out / "ours").mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    network = run_stage(stage, task, asked.out / "ours", 1, lambda *a: None).network
    took = {"ours": time.process_time() - began}
    theirs = Theirs(asked.widths, asked.blocks, task)
    began = time.process_time()
    theirs.train(stage.model_copy(update={"steps": steps["theirs"]}))
    took["theirs"] = time.process_time() - began

    ways: dict[str, Callable[[Tensor, int], Tensor]] = {
        "ours, dpmpp_2m 20": lambda one, seed: draw(network, task.objective, one, seed),
        "ours, dpmpp_2m 20, guidance 1.5": lambda one, seed: draw(network, task.objective, one, seed, guidance=1.5),
        "theirs, DPM-Solver++ 20": lambda one, seed: theirs.draw(one, seed, "dpm", 20),
        "theirs, DDIM 50": lambda one, seed: theirs.draw(one, seed, "ddim", 50),
    }
    _table(task, labels, ways, took, asked.out)


def _table(
    task: CifarTask, labels: Tensor, ways: dict[str, Callable[[Tensor, int], Tensor]], took: dict[str, float], out: Path
) -> None:
    features, count = Features(), len(labels)
    test, train = (to_colours(_some(pixels, count)) for pixels in (task.data.test_pictures, task.data.pictures))
    real = features.of(test)
    print(f"{count} pictures each\n{'':34}{'training s':>10} {'drawing s':>9} {'Frechet':>8} {'kernel x1000':>16}")

    def line(title: str, x: Tensor, training: str = "", drawing: str = "") -> None:
        y = features.of(x)
        k = kernel(y, real, size=min(250, count // 2))
        score = f"{frechet(y, real):8.2f} {1e3 * k.mean:9.2f} ±{1e3 * k.spread:5.2f}"
        print(f"{title:34}{training:>10} {drawing:>9} {score}", flush=True)

    line("pictures of training (floor)", train)
    for title, way in ways.items():
        began = time.process_time()
        made = torch.cat([way(part, PART * number) for number, part in enumerate(labels.split(PART))])
        spent = time.process_time() - began
        line(title, made, f"{took[title.split(',')[0]]:.0f}", f"{spent:.0f}")
        name = title.replace(", ", "-").replace(" ", "-").replace("+", "p")
        Image.fromarray(grid_of(to_pixels(made[:80]), columns=10)).save(out / f"{name}.png")


def _ours(asked: argparse.Namespace, steps: int = 1000) -> tuple[CifarTask, Stage]:
    recipe = read_recipe("image/cifar10")
    stage = recipe.stages[0]
    network = {**stage.options["network"], "widths": asked.widths, "blocks": asked.blocks}
    changes = {"steps": steps, "batch": asked.batch, "warmup": min(stage.warmup, max(1, steps // 10)),
               "learning_rate": 1e-3, "evaluate_every": 10**9}  # fmt: skip
    stage = stage.model_copy(update={**changes, "options": {**stage.options, "network": network}})
    task = CifarTask(stage.options, {}, {"data": Settings().home_path / "data"})
    task.prepare(lambda *a: None)
    return task, stage


class Theirs:
    """diffusers' network, noise, loss and samplers."""

    def __init__(self, widths: list[int], blocks: int, task: CifarTask) -> None:
        import diffusers

        torch.manual_seed(0)
        with torch.device("meta"):
            sizes = {more: _size(_unet(widths, blocks, more)) for more in range(0, 129, 8)}
        self.network = _unet(widths, blocks, min(sizes, key=lambda more: abs(sizes[more] - _size(task.network))))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.noise = diffusers.DDPMScheduler(num_train_timesteps=1000)
        self.average = self.network
        self._task = task

    def loss(self, batch: Any) -> Tensor:
        """As their example computes it."""
        noise = torch.randn_like(batch.pictures)
        t = torch.randint(0, 1000, (len(noise),))
        noisy = self.noise.add_noise(batch.pictures, noise, t)
        return F.mse_loss(self.network(noisy, t, class_labels=batch.label).sample.float(), noise)

    def train(self, stage: Stage) -> None:
        """As their example does it, with the rates of learning of ``stage``."""
        from diffusers.training_utils import EMAModel

        optimizer = _optimizer(self.network, stage)
        average = EMAModel(self.network.parameters(), use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        for step in range(stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step)
            batch = self._task.batch(stage.batch, np.random.default_rng([1, step]))
            _step(self.network, self.loss, batch, optimizer, stage)
            average.step(self.network.parameters())
        average.copy_to(self.network.parameters())

    @torch.inference_mode()
    def draw(self, labels: Tensor, seed: int, sampler: str, steps: int) -> Tensor:
        """Pictures (B, 3, 32, 32) of ``labels``, in [-1, 1]."""
        import diffusers

        kind = diffusers.DDIMScheduler if sampler == "ddim" else diffusers.DPMSolverMultistepScheduler
        schedule = kind.from_config(self.noise.config)
        schedule.set_timesteps(steps)
        x = torch.randn(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        for t in schedule.timesteps:
            x = schedule.step(self.network(x, t, class_labels=labels).sample, t, x).prev_sample
        return x.clamp(-1, 1)


def _unet(widths: list[int], blocks: int, more: int) -> nn.Module:
    """Theirs with ``more`` channels at all levels but the finest."""
    import diffusers

    kinds = ["DownBlock2D"] * len(widths)
    kinds[1] = "AttnDownBlock2D"
    network: nn.Module = diffusers.UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, block_out_channels=(widths[0], *(w + more for w in widths[1:])),
        layers_per_block=blocks, down_block_types=tuple(kinds), norm_num_groups=8, attention_head_dim=32,
        up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(kinds)), num_class_embeds=len(CLASSES) + 1,
    )  # fmt: skip
    return network


def _optimizer(network: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        network.parameters(), lr=stage.learning_rate, betas=stage.betas, weight_decay=stage.weight_decay
    )


def _step(
    network: nn.Module, loss: Callable[[Any], Tensor], batch: Any, optimizer: torch.optim.Optimizer, stage: Stage
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(batch)
    value.backward()
    nn.utils.clip_grad_norm_(network.parameters(), stage.gradient_clip)
    optimizer.step()
    optimizer.zero_grad()


def _rate(network: nn.Module, loss: Callable[[Any], Tensor], task: CifarTask, stage: Stage) -> float:
    """Pictures a second of one processor; leaves the network changed."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, began = _optimizer(network, stage), 0.0
    for step in range(TIMED + 2):
        if step == 2:
            began = time.process_time()
        _step(network, loss, task.batch(stage.batch, np.random.default_rng(step)), optimizer, stage)
    return TIMED * stage.batch / (time.process_time() - began)


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _some(pixels: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    return np.stack([pixels[i] for i in np.random.default_rng(0).choice(len(pixels), count, replace=False)])


if __name__ == "__main__":
    main()
