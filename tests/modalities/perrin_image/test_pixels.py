"""Models of pixels and of other shapes, with random weights: conditions, shapes, tiles, and what is no success."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import UNET, network, write_model, write_upscaler
from torch import Tensor

import perrin
from perrin.commands.doctor import _models
from perrin.engine import Engine, Failed, Finished, Progress, Request
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.models import find, weight_bytes
from perrin.models.costs import costs
from perrin.models.weights import load_network
from perrin.nn import Autoencoder, UNet
from perrin.nn.circular import Ring, circular
from perrin.pictures import to_pixels, to_tensor
from perrin.settings import Settings
from perrin_image.codecs import Latents
from perrin_image.runtime import ImageRuntime
from perrin_image.upscaling import OVERLAP, TILE, Upscaler, enlarge

NAMES = ["airplane", "Cat", "dog"]
CLASSES = {"unet": {**UNET, "channels": 3, "classes": 3}}
CLEAR = {"unet": {**UNET, "channels": 4}}
LATENT = {"kind": "autoencoder", "channels": 4, "latent": 4, "widths": [8, 8], "blocks": 1, "patch": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERRIN_MODELS", str(tmp_path))
    return tmp_path


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def noisy(width: int, height: int, channels: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), np.uint8)


def half(width: int, height: int) -> bytes:
    made = np.zeros((height, width), np.uint8)
    made[: height // 2] = 255
    return png(made)


def ended(values: dict[str, Any]) -> tuple[Finished | Failed, list[Progress]]:
    engine, seen = Engine(), []
    engine.admit(Request("one", "image", {"seed": 1, **values}, "png"))
    while engine.requests:
        seen += engine.tick()
    assert isinstance(seen[-1], Finished | Failed)
    return seen[-1], [event for event in seen if isinstance(event, Progress)]


# --- what a model is told ---------------------------------------------------------------------------------------------


def test_a_prompt_is_the_name_of_a_class(folder: Path) -> None:
    write_model(folder, "three", CLASSES, conditioners={"class": NAMES})
    generate = perrin.load("image", model="three", device="cpu")
    cat = generate("cat", seed=1)[0].value
    assert cat.shape == (32, 32, 3)
    assert (cat == generate(" CAT ", seed=1)[0].value).all()
    for other in (generate("dog", seed=1), generate(seed=1), generate("cat", negative="dog", seed=1)):
        assert (other[0].value != cat).any()
    assert (generate("dog", seed=1, guidance=1)[0].value != generate("dog", seed=1)[0].value).any()
    for values, message in (
        ({"prompt": "horse"}, "prompt: got 'horse', wanted one of airplane, cat, dog for model three"),
        ({"prompt": "cat", "negative": "boat"}, "negative: got 'boat', wanted one of airplane, cat, dog"),
        ({"prompt": "cat", "morph": "dog"}, "morph: got 'dog', wanted none: model three takes no sentences"),
        ({"prompt": "cat", "style": "noto"}, "style: got 'noto', wanted none for model three"),
        ({"prompt": "cat", "background": "transparent"}, "wanted white: model three has no transparency"),
        ({"prompt": "cat", "size": 64}, "size: got 64, wanted one of 32 for model three"),
    ):
        with pytest.raises(InvalidInput) as caught:
            generate(**values)
        assert message in str(caught.value)


def test_a_model_may_be_told_nothing(folder: Path) -> None:
    write_model(folder, "free", CLEAR, defaults={"steps": 3, "sampler": "ddim"})
    generate = perrin.load("image", model="free", device="cpu")
    made = generate(seed=1, count=2, background="transparent")
    assert made[0].value.shape == (32, 32, 4)
    assert (generate(seed=2)[0].value != generate(seed=1)[0].value).any()
    with pytest.raises(InvalidInput, match="prompt: got 'cat', wanted none for model free"):
        generate("cat")


def test_a_model_of_pixels_may_take_sentences(folder: Path) -> None:
    told = {"unet": {**UNET, "channels": 3, "context": 384, "attention": [1]}}
    write_model(folder, "told", told, conditioners={"prompt": "minilm"}, grid={"kind": "linspace"})
    generate = perrin.load("image", model="told", device="cpu")
    assert (generate("a red apple", seed=1)[0].value != generate("(a red:0.2) apple", seed=1)[0].value).any()
    with pytest.raises(InvalidInput, match="prompt: got None, wanted a value"):
        generate()


def test_what_needs_no_latent_needs_no_codec(folder: Path) -> None:
    """A given picture, what is kept of it, and other processes than flows."""
    card = {"process": {"kind": "vp"}, "prediction": "epsilon", "conditioners": {"class": NAMES}}
    write_model(folder, "three", CLASSES, **card)
    generate, pixels = perrin.load("image", model="three", device="cpu"), noisy(32, 32)
    white = np.full((32, 32, 3), 255, np.uint8)
    given = generate("cat", image=png(pixels), strength=0, seed=1)[0].value
    assert (given == pixels).all()
    kept = generate("cat", image=png(pixels), mask=half(32, 32), seed=1)[0].value
    assert (kept[16:] == pixels[16:]).all()
    assert (kept[:16] != pixels[:16]).any()
    assert (generate("cat", image=png(white), expand=4, seed=1)[0].value[4:-4, 4:-4] == 255).all(), "no paper to it"
    near, far = (generate("cat", image=png(pixels), strength=s, steps=20, seed=1)[0].value for s in (0.1, 0.9))
    assert abs(near.astype(int) - pixels).mean() < abs(far.astype(int) - pixels).mean()


@pytest.mark.parametrize(
    ("architecture", "got"),
    [
        ({"autoencoder": LATENT}, "got autoencoder with 4 channels"),
        ({"unet": {**UNET, "channels": 5}}, "got unet with 5 channels"),
    ],
)
def test_other_models_are_refused(folder: Path, architecture: dict[str, Any], got: str) -> None:
    card = write_model(folder, "odd", architecture)
    with pytest.raises(ModelError, match=got):
        ImageRuntime.load(card, "cpu")
    larger = write_upscaler(folder)
    with pytest.raises(InvalidInput, match="model: got 'tiny-larger', wanted a model that draws by itself"):
        perrin.load("image", model=larger.name)("cat")


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [False, True])
def test_other_shapes_are_sampled_as_they_are(folder: Path, latent: bool) -> None:
    sizes = ((32, 32), (48, 32), (32, 48), (128, 128), (192, 128))
    architecture = {"autoencoder": LATENT, "unet": {**UNET, "channels": 4}} if latent else CLEAR
    write_upscaler(folder)
    write_model(folder, "wide", architecture, sizes=sizes, upscaler="tiny-larger")
    generate = perrin.load("image", model="wide", device="cpu")
    for width, height in sizes:
        made = generate(seed=1, size=f"{width}x{height}")[0]
        assert made.value.shape == (height, width, 3)
        assert made.metadata.get("models", {}).keys() == ({"tiny-larger"} if height == 128 else set())
        pixels = noisy(width, height)
        kept = generate(image=png(pixels), mask=half(width, height), size=f"{width}x{height}", seed=1)[0].value
        assert (kept[height // 2 :] == pixels[height // 2 :]).all()
        assert (kept[: height // 2] != pixels[: height // 2]).any()
    row = [item.value for item in generate(seed=1, size="48x32", count=2)]
    assert (row[1] == generate(seed=2, size="48x32")[0].value).mean() > 0.99
    square, wide = generate(seed=1)[0].value, row[0]
    assert (wide[:, :32] != square).any(), "not a square on a sheet"


def test_latents_beyond_twice_the_trained_side_are_decoded_in_tiles_to_the_same_picture() -> None:
    """The norms of a tile see a part of the whole, so of the shipped autoencoder a level of 255 is apart at most."""
    codec = Latents(load_network(find("emoji-64"), "autoencoder"), trained=64)  # type: ignore[arg-type]
    assert codec.tile == 16
    y, x = np.mgrid[:192, :320]
    picture = np.full((192, 320, 4), (255, 255, 255, 0), np.uint8)
    for row, column, colour in ((40, 60, (220, 30, 20)), (110, 170, (30, 90, 220)), (140, 270, (250, 200, 40))):
        picture[np.hypot(y - row, x - column) < 36] = (*colour, 255)
    with torch.inference_mode():
        z = codec.encode(to_tensor(picture[None]))
        whole, tiled = codec.network.decode(z), codec.decode(z)
        assert torch.equal(codec.decode(z[..., :16, :16]), codec.network.decode(z[..., :16, :16]))
    assert not torch.equal(whole, tiled)
    assert np.abs(to_pixels(whole).astype(int) - to_pixels(tiled)).mean() < 1


def test_large_pictures_are_enlarged_in_tiles_to_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    larger = network("unet", widths=(8, 8), blocks=1, attention=(), channels=133, out_channels=64)
    low = torch.rand(1, 4, TILE + 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings: dict[str, Any] = {"gain": 4.0, "steps": 2}
    with torch.inference_mode():
        tiled = enlarge(larger, low, [3], **settings)
        monkeypatch.setattr("perrin_image.upscaling.TILE", 4 * TILE)
        whole = enlarge(larger, low, [3], **settings)
    assert OVERLAP < TILE / 2
    assert not torch.equal(whole, tiled)
    assert (whole - tiled).abs().mean() < 0.05 * whole.std()


# --- rings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unet", "autoencoder"])
def test_a_network_on_a_ring_has_no_edge(kind: str) -> None:
    made = network(kind, channels=4, widths=(8, 8), blocks=1, **({"attention": (1,)} if kind == "unet" else {}))
    x = torch.randn(1, 4 if kind == "unet" else 16, 16, 24, generator=torch.Generator().manual_seed(0))

    def call(x: Tensor) -> Tensor:
        with torch.inference_mode():
            if isinstance(made, Autoencoder):
                return made.decode(x)
            return made(x, torch.full((1,), 0.5))  # type: ignore[no-any-return]

    factor = made.factor if isinstance(made, Autoencoder) else 1
    plain = call(x)
    with circular(made):
        ring, rolled = call(x), call(x.roll((4, -6), (2, 3)))
    assert torch.allclose(rolled, ring.roll((4 * factor, -6 * factor), (2, 3)), atol=1e-4)
    assert torch.equal(call(x), plain), "afterwards it is as it was"
    assert not torch.allclose(plain, ring, atol=1e-3)


def test_a_transformer_has_its_edge_elsewhere_at_every_time() -> None:
    made = network("transformer", channels=4, width=24, depth=1, heads=2, hidden=16, context=0)
    ring, x = Ring(made), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for time in (0.9, 0.4):
            t = torch.tensor([time, 0.7])
            both, first = ring(x, t), ring(x[:1], t[:1])
            assert torch.allclose(both[:1], first, atol=1e-5), "no sample depends on another"
            assert not torch.allclose(both, made(x, t), atol=1e-3)
        for block in made.blocks:  # type: ignore[union-attr]
            torch.nn.init.zeros_(block.self_out.weight)
        assert torch.allclose(ring(x, t), made(x, t), atol=1e-5), "without attention there are no positions"


@pytest.mark.parametrize("size", [32, 128])
def test_a_seamless_picture_is_a_ring(folder: Path, size: int) -> None:
    """Noise that is rolled makes the picture rolled: no place of it is an edge."""
    write_upscaler(folder)
    architecture = {"autoencoder": LATENT, "unet": {**UNET, "channels": 4}}
    card = write_model(folder, "tile", architecture, sizes=((32, 32), (128, 128)), upscaler="tiny-larger")
    made = perrin.load("image", model="tile", device="cpu")(seed=1, size=size, seamless=True)[0].value.astype(int)
    assert made.shape == (size, size, 3)
    for axis in (0, 1):
        steps = abs(made - np.roll(made, 1, axis)).mean(axis=(1 - axis, 2))
        assert steps[0] <= steps[1:].max(), "the seam is no larger a step than others"
    assert (made != perrin.load("image", model="tile", device="cpu")(seed=1, size=size)[0].value).any()
    with pytest.raises(InvalidInput, match="seamless: got True, wanted no seed_to as well"):
        perrin.load("image", model=card.name)(seamless=True, seed_to=3)


# --- no success -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fill", "prediction", "message"),
    [
        (float("nan"), "x0", "returned NaN or infinity"),
        (-1.0, "x0", r"one flat colour, RGB \[0, 0, 0\]"),
        (1.0, "x0", r"one flat colour, RGB \[255, 255, 255\]"),
    ],
)
def test_nan_and_black_samples_end_as_degenerate(folder: Path, fill: float, prediction: str, message: str) -> None:
    write_model(folder, "broken", {"unet": {**UNET, "channels": 3}}, fill=fill, prediction=prediction)
    end, _ = ended({"model": "broken"})
    assert isinstance(end, Failed)
    assert isinstance(end.error, Degenerate)
    with pytest.raises(Degenerate, match=message):
        raise end.error


@pytest.mark.parametrize("broken", ["autoencoder", "upscaler"])
def test_nan_of_a_later_stage_ends_as_degenerate(folder: Path, broken: str) -> None:
    nan = float("nan")
    write_upscaler(folder, fill=nan if broken == "upscaler" else None)
    architecture = {"autoencoder": LATENT, "unet": {**UNET, "channels": 4}}
    card = write_model(folder, "whole", architecture, sizes=((32, 32), (128, 128)), upscaler="tiny-larger")
    runtime = ImageRuntime.load(card, "cpu")
    if broken == "autoencoder":
        torch.nn.init.constant_(runtime._codec.network.decoder[-2].bias, nan)  # type: ignore[union-attr,index]
    engine = Engine()
    engine.admit(Request("one", "image", {"model": "whole", "seed": 1, "size": 128}, "png"))
    seen = []
    while engine.requests:
        for event in engine.tick():
            seen.append(event)
            if getattr(event, "stage", "") == "encode":
                engine._flights["one"].runtime = runtime
                if (resident := engine._models._resident.get(engine._flights["one"].model)) is not None:
                    resident.runtime = runtime
    assert isinstance(seen[-1], Failed)
    assert isinstance(seen[-1].error, Degenerate)
    assert "NaN or infinity" in str(seen[-1].error)


# --- through the engine -----------------------------------------------------------------------------------------------


def test_the_engine_asks_for_large_pictures_one_by_one(folder: Path) -> None:
    larger = write_upscaler(folder)
    card = write_model(folder, "whole", CLEAR, sizes=((32, 32), (128, 128)), upscaler="tiny-larger")
    end, progress = ended({"model": "whole", "size": 128, "count": 3})
    assert isinstance(end, Finished)
    assert [(e.done, e.total) for e in progress if e.stage == "decode"] == [(0, 1), (1, 3), (2, 3), (3, 3)]
    assert end.files[1].metadata["models"] == {"tiny-larger": larger.sha256}
    alone, _ = ended({"model": "whole", "size": 128, "seed": 2})
    assert isinstance(alone, Finished)
    assert abs(alone.results[0].astype(int) - end.results[1]).max() <= 2
    _, small = ended({"model": "whole", "count": 3})
    assert [(e.done, e.total) for e in small if e.stage == "decode"] == [(0, 1), (1, 1)]
    small = card.model_copy(update={"architecture": larger.architecture})
    assert costs(larger)["unet"] == costs(small)["unet"], "it works at the size of what it is told"
    assert weight_bytes(card) == sum((c.folder / "unet.safetensors").stat().st_size for c in (card, larger))
    engine = Engine()
    engine.admit(Request("gone", "image", {"model": "whole", "size": 128, "count": 64, "seed": 1}, "png"))
    for _ in range(1000):
        if any(isinstance(e, Progress) and (e.stage, e.done) == ("decode", 2) for e in engine.tick()):
            break
    engine.cancel("gone")
    assert not engine.tick()


def test_a_size_whose_upscaler_is_missing_is_refused_and_others_are_not(folder: Path) -> None:
    write_model(folder, "whole", CLEAR, sizes=((32, 32), (128, 128)), upscaler="tiny-larger")
    generate = perrin.load("image", model="whole", device="cpu")
    assert generate(seed=1)[0].value.shape == (32, 32, 3)
    with pytest.raises(InvalidInput, match="model: got 'tiny-larger', wanted one of"):
        generate(seed=1, size=128)
    home = Settings(models=str(folder))
    assert "tiny-larger, which makes results of whole larger, is not installed" in [f.found for f in _models(home)]
    write_upscaler(folder)
    assert all(finding.fine for finding in _models(home))
    assert isinstance(Upscaler.load(find("tiny-larger"), "cpu").network, UNet)
