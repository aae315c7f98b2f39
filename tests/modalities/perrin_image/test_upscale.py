"""Laws of the 64 to 256 stage: its data, its loss, what it samples; and its recipe, end to end on a few pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from perrin.errors import InvalidInput, ModelError
from perrin.models import find, verify
from perrin.nn import UNet
from perrin.pictures import to_tensor
from perrin.settings import Settings
from perrin.training import read_recipe, train
from perrin_image.data import Record
from perrin_image.data.large import open_large, shrunk, write_large
from perrin_image.data.render import render_svg
from perrin_image.training.fidelity import psnr, ssim
from perrin_image.training.upscale import UpscaleTask
from perrin_image.upscaling import INSIDE, OUTSIDE, Upscaler, bicubic, enlarge

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="14" fill="#c30"/>'
    '<path d="M4 20 L28 9 L20 27 Z" fill="#28f"/></svg>'
)
OVERRIDES = [
    "name=tiny-256",
    "upscaler.batch=4",
    "upscaler.options.network={widths: [16, 16], blocks: 1}",
    "upscaler.options.crop=16",
    "upscaler.options.looks=1",
    "upscaler.options.samples=2",
    "upscaler.options.steps=2",
]


def _record(number: int) -> Record:
    return Record(
        id=f"noto/blob-{number}", source="noto", style="noto", licence="Apache-2.0", name="blob",
        captions=("blob", "a blob"), group="blob", colour=None, recoloured=False, mirror_ok=True, weight=1.0,
    )  # fmt: skip


def _blob(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A coloured ellipse with a second one inside, anywhere."""
    rng = np.random.default_rng(number)
    pixels, (y, x) = np.zeros((256, 256, 4), np.uint8), np.mgrid[:256, :256]
    for most in (90, 40):
        (v, u), (a, b) = rng.uniform(80, 176, 2), rng.uniform(most / 3, most, 2)
        pixels[((x - u) / a) ** 2 + ((y - v) / b) ** 2 < 1] = [*rng.integers(0, 255, 3), 255]
    return pixels


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a pack of 64 pictures; blob 19 and 41 are among those held out."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "data" / "image" / "pack-256"
    write_large(folder, (_blob(i) for i in range(64)), [_record(i) for i in range(64)], lambda *a: None)
    return home


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    """The finished model of twenty steps, stopped once and gone on with."""
    recipe, out = read_recipe("image/emoji_256", OVERRIDES), home / "models" / "run"
    train(recipe, dry_run=5, out=out, settings=Settings(home=home))
    return train(recipe, dry_run=20, out=out, settings=Settings(home=home))


def _task(home: Path, out: Path, **options: Any) -> UpscaleTask:
    folders = {"data": home / "data", "out": out, "model": out}
    task = UpscaleTask({"network": {"widths": [16, 16], "blocks": 1}, "crop": 16, **options}, {}, folders)
    task.prepare(lambda *a: None)
    return task


def test_the_small_picture_is_what_the_small_pack_has(home: Path) -> None:
    pytest.importorskip("resvg_py")
    small, large = render_svg(SVG), render_svg(SVG, size=256)
    apart = (to_tensor(shrunk(large)[None]) - to_tensor(small[None])).abs()
    assert large.shape == (256, 256, 4)
    assert apart.mean() < 0.01
    pack = open_large(home / "data" / "image" / "pack-256")
    assert np.array_equal(pack.small[3], shrunk(_blob(3)))
    assert pack.records[3] == _record(3)
    with pytest.raises(InvalidInput, match="run prepare_large"):
        open_large(home)


def test_bicubic_is_that_of_pillow() -> None:
    low = torch.rand(1, 1, 16, 20, generator=torch.Generator().manual_seed(0))
    theirs = np.array(Image.fromarray(low[0, 0].numpy()).resize((80, 64), Image.Resampling.BICUBIC))
    assert torch.allclose(bicubic(low)[0, 0], torch.from_numpy(theirs), atol=1e-5)


def test_a_network_that_says_nothing_leaves_bicubic() -> None:
    network = UNet(INSIDE, (16, 16), 1, (), out_channels=OUTSIDE)  # its last layer begins at zero
    low = torch.rand(2, 4, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert torch.equal(enlarge(network, low, [1, 2], gain=4.0, steps=3), bicubic(low))


def test_a_network_that_knows_leaves_the_picture() -> None:
    real = to_tensor(np.stack([_blob(1), _blob(2)]))
    low = F.avg_pool2d(real, 4)

    def knows(given: Tensor, t: Tensor) -> Tensor:
        assert given.shape == (2, INSIDE, 64, 64)
        assert torch.equal(given[:, 2 * OUTSIDE : -1], low)
        return F.pixel_unshuffle(4 * (real - bicubic(low)), 4)

    assert torch.allclose(enlarge(knows, low, [1, 2], gain=4.0, steps=3), real, atol=1e-5)


def test_a_picture_does_not_depend_on_those_beside_it() -> None:
    torch.manual_seed(0)
    network = UNet(INSIDE, (16, 16), 1, (), out_channels=OUTSIDE)
    torch.nn.init.normal_(network.out.weight, std=0.1)
    low = to_tensor(np.stack([shrunk(_blob(1)), shrunk(_blob(2))]))
    settings = {"gain": 4.0, "steps": 2, "level": 0.1}
    with torch.no_grad():
        both, second = enlarge(network, low, [5, 6], **settings), enlarge(network, low[1:], [6], **settings)
        other = enlarge(network, low[1:], [7], **settings)
    assert torch.allclose(both[1:], second, atol=1e-4)
    assert not torch.allclose(second, other, atol=1e-2)


def test_crops_are_of_one_place_and_of_no_picture_held_out(home: Path, tmp_path: Path) -> None:
    task = _task(home, tmp_path)
    assert len(task.train) + len(task.held_out) == 64
    assert len(task.held_out)
    batch = task.batch(64, np.random.default_rng(0))
    assert batch.large.shape == (64, 4, 64, 64)
    assert batch.low.shape == (64, 4, 16, 16)
    assert 0.25 < float((batch.level == 0).float().mean()) < 0.75
    assert 0.05 < float(batch.level.max()) <= 0.1
    shown = batch.large[:, :3].flatten(1).std(1) > 0.3
    means = F.avg_pool2d(batch.large, 4)
    right = (means - batch.low).abs().flatten(1).mean(1)
    for wrong in (means.flip(-1), means.flip(-2), means.transpose(-1, -2)):
        assert right[shown].mean() < 0.5 * (wrong - batch.low).abs().flatten(1).mean(1)[shown].mean()
    assert all(torch.equal(a, b) for a, b in zip(batch, task.batch(64, np.random.default_rng(0)), strict=True))


def test_the_loss_is_zero_for_a_network_that_knows(home: Path, tmp_path: Path) -> None:
    task = _task(home, tmp_path, perceptual=0.5, noise=0.0)
    batch = task.batch(16, np.random.default_rng(0))
    answer = F.pixel_unshuffle(16 * (batch.large - bicubic(batch.low)), 4)
    knows, numbers = task.loss(lambda given, t: answer, batch, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    silent, _ = task.loss(lambda given, t: 0 * answer, batch, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert float(knows) < 1e-4 < 0.1 < float(silent)
    assert set(numbers) == {"residual", "perceptual"}
    with pytest.raises(InvalidInput, match="a residual has no looks"):
        _task(home, tmp_path, objective={"prediction": "velocity"})


def test_fidelity_of_pictures() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    assert psnr(x, x).tolist() == [100, 100]
    assert psnr(x, x + 0.2).tolist() == pytest.approx([20, 20], abs=1e-3)
    assert ssim(x, x).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert torch.equal(ssim(x, x.flip(-1)), ssim(x.flip(-1), x))
    flat = torch.zeros(1, 3, 32, 32)  # of two flat pictures only the means tell: (2ab + c) / (a^2 + b^2 + c)
    a, b = 0.5, 0.75
    assert float(ssim(flat, flat + 0.5)) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-6)


def test_the_recipe_leaves_a_grid_figures_and_a_card(home: Path, model: Path) -> None:
    run = home / "models" / "run" / "upscaler"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if "evaluation" in line][-1]["evaluation"]
    kinds = [f"{how}{what}" for how in ("psnr", "ssim", "lpips") for what in ("", "_bicubic")]
    assert set(last) == {f"{which}{kind}" for which in ("", "worn_") for kind in kinds}
    assert all(np.isfinite(value) for value in last.values())
    with Image.open(run / "samples-0000020.png") as grid:
        assert grid.size[0] == 4 * 258 - 2
    card = find("tiny-256", settings=Settings(models=str(home / "models" / "run")))
    verify(card)
    assert card.folder == model
    assert card.metrics["upscaler"]["images"] == 80
    assert card.data["pictures"] == 64
    assert set(card.files) == {"unet.safetensors"}


def test_the_trained_model_enlarges(home: Path, model: Path) -> None:
    card = find("tiny-256", settings=Settings(models=str(home / "models" / "run")))
    upscaler = Upscaler.load(card, "cpu")
    small = np.stack([shrunk(_blob(70)), shrunk(_blob(71))])
    made = upscaler.enlarge(small, seed=3)
    assert made.shape == (2, 256, 256, 4)
    assert made.dtype == np.uint8
    assert np.array_equal(made, upscaler.enlarge(small, seed=3))
    assert not np.array_equal(made[0], upscaler.enlarge(small, seed=4)[0])
    assert upscaler.enlarge(small[:, :32, :48], seed=3, steps=1).shape == (2, 128, 192, 4)
    for wrong in (small[0], small[..., :3], small.astype(np.float32), small[:, :33]):
        with pytest.raises(InvalidInput, match="pictures"):
            upscaler.enlarge(wrong, seed=3)
    with pytest.raises(ModelError, match="wanted a unet"):
        Upscaler.load(find("emoji-64"), "cpu")
