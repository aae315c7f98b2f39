"""Image prompts: what the network hears of a picture, what a request says of it, and how a reader is trained."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import perrin
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.models import find, verify
from perrin.models.card import ModelCard, write_card
from perrin.settings import Settings
from perrin.training import read_recipe, train
from perrin_image.data import Record
from perrin_image.data.pack import write_pack
from perrin_image.face import ImageParameters
from perrin_image.like import LikeNetwork, read_like
from perrin_image.metrics.captions import CaptionNetwork, sentences
from perrin_image.metrics.features import Features
from perrin_image.runtime import ImageRuntime
from perrin_image.training.dataset import Pictures
from perrin_image.training.like import Nearest, folded

FEW: dict[str, Any] = {"steps": 4, "sampler": "ddim", "seed": 7}
KNOWN = ("apple", "blue fish", "castle", "dog", "red heart", "rocket", "snowman", "tree")
STYLES = ("noto", "twemoji")


def disc(number: int, colour: tuple[int, int, int] = (200, 40, 40)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng, pixels, (y, x) = np.random.default_rng(number), np.zeros((64, 64, 4), np.uint8), np.mgrid[:64, :64]
    pixels[(x - 32) ** 2 + (y - rng.integers(26, 38)) ** 2 < rng.integers(150, 700)] = [*colour, 255]
    return pixels


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def reader(captions: Sequence[str] = KNOWN) -> LikeNetwork:
    """Not trained: what it hears is chance, but always the same of the same picture."""
    torch.manual_seed(0)
    text = "\n".join(captions).encode()
    network = LikeNetwork(hidden=32, space=16, captions=len(captions), letters=len(text))
    network.keys.copy_(torch.randint(-127, 128, network.keys.shape))
    network.text.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    network = reader()
    (folder / "reader").mkdir()
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file(state, folder / "reader" / "like.safetensors")
    sizes = {"hidden": 32, "space": 16, "captions": len(KNOWN), "letters": len(network.text)}
    card = ModelCard(name="reader", modality="image", base="emoji-64", title="Reader", licence="MIT", sizes=((64, 64),),
                     architecture={"like": {"kind": "like", **sizes}},
                     conditioners={"like": {"captions": len(KNOWN)}})  # fmt: skip
    write_card(card, folder / "reader")
    return folder


@pytest.fixture
def generate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> perrin.Generator:
    monkeypatch.setenv("PERRIN_MODELS", str(folder))
    return perrin.load("image", device="cpu")


def test_a_picture_is_heard_beside_the_prompt_and_not_where_it_is_steered_away_from(folder: Path) -> None:
    runtime = ImageRuntime.load(find("emoji-64"), "cpu")
    network = runtime._network
    tokens = torch.randn(1, 3, 384, generator=torch.Generator().manual_seed(0))
    told = runtime._beside.told(ImageParameters(prompt="x"), runtime.card, {}, (64, 64))
    told = told._replace(tokens=tokens)
    context, mask, label = torch.randn(1, 5, 384), torch.ones(1, 5, dtype=torch.bool), torch.tensor([0])
    x, t = torch.randn(1, 16, 8, 8), torch.tensor([0.5])
    alone = network(x, t, context=context, context_mask=mask, label=label)
    torch.testing.assert_close(network(x, t, **told.condition(context, mask, label, spoken=False)), alone)
    heard = told.condition(context, mask, label)
    assert heard["context"].shape == (1, 8, 384)
    assert (network(x, t, **heard) - alone).abs().max() > 1e-3


def test_a_like_needs_no_prompt_and_goes_with_one_and_with_a_picture(generate: perrin.Generator) -> None:
    red, blue = png(disc(1)), png(disc(1, (40, 40, 200)))
    alone = [generate(like=data, **FEW)[0].value.astype(int) for data in (red, blue, red)]
    assert (alone[0] == alone[2]).all()
    assert (alone[0] != alone[1]).any()
    both = generate("a dog", like=red, **FEW)[0].value
    assert (both != generate("a dog", **FEW)[0].value).any()
    assert (both != alone[0]).any()
    mask = np.zeros((64, 64), np.uint8)
    mask[:24] = 255
    painted = generate("a hat", like=blue, image=red, mask=png(mask), **FEW)[0].value
    white = np.where(disc(1)[..., 3:] > 0, disc(1)[..., :3], 255)
    assert (painted[24:] == white[24:]).all()
    parted = generate("(a dog:1.5) on a sofa", like=red, count=2, **FEW)
    assert len(parted) == 2
    assert len(generate("a dog", morph="a cat", like=red, count=3, **FEW)) == 3


def test_where_paper_is_white_does_not_matter(generate: perrin.Generator) -> None:
    clear = disc(1)
    paper = np.where(clear[..., 3:] > 0, clear, 255).astype(np.uint8)
    one, two = (read_like(InputFile("image/png", png(pixels)), 64, 64) for pixels in (clear, paper))
    assert torch.equal(one, two)


def test_a_request_says_what_read_its_picture(generate: perrin.Generator) -> None:
    said = generate(like=png(disc(1)), **FEW)[0].metadata["parameters"]
    assert said["like_model"] == f"reader@{find('reader').sha256[:12]}"
    assert said["like"].startswith("sha256:")
    assert said["prompt"] is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "prompt.*an image, or a like"),
        ({"prompt": "x", "like_model": "reader"}, "like_model.*a picture as like as well"),
        ({"like": "PNG", "like_model": "nobody"}, "like_model.*an adapter for model emoji-64: reader"),
        ({"like": b"\x89PNG\r\n\x1a\nbroken"}, "like: "),
    ],
)
def test_what_makes_no_sense_is_refused(generate: perrin.Generator, values: dict[str, Any], words: str) -> None:
    values = {name: png(disc(1)) if value == "PNG" else value for name, value in values.items()}
    with pytest.raises(InvalidInput, match=words) as caught:
        generate(**values, **FEW)
    assert "\n" not in caught.value.message


def test_without_a_reader_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from perrin_image import adapters

    monkeypatch.setattr(adapters, "models", dict)
    with pytest.raises(InvalidInput, match="like: got 'a picture', wanted an adapter that reads it"):
        ImageParameters(like="a" * 32).resolved(find("emoji-64"))


# --- training ---------------------------------------------------------------------------------------------------------


def record(number: int) -> Record:
    """Two things, in two styles each."""
    group, style = ("disc", "ring")[number % 2], STYLES[number // 2 % 2]
    return Record(
        id=f"{style}/{group}-{number}", source=style, style=style, licence="Apache-2.0", name=group,
        captions=(group, f"a {group}"), group=group, colour=None, recoloured=False, mirror_ok=True, weight=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    pictures = np.stack([disc(n, (200, 40 + n, 40) if n % 2 else (40, 40 + n, 200)) for n in range(64)])
    write_pack(home / "data" / "image" / "pack", pictures, [record(n) for n in range(64)], {"pictures": 64}, "")
    return home


def test_a_reader_hears_what_the_judge_finds_nearest() -> None:
    """With as many channels as there are, but for the rounding of keys; and knows each caption by its own letters."""
    torch.manual_seed(1)
    judge = CaptionNetwork(hidden=64).eval()
    known = ["a dog", "café", "two words", *KNOWN]
    x = torch.randn(200, 320)
    network = folded(judge, known, 384)
    with torch.inference_mode():
        scores = judge(x) @ judge.said(sentences(known)).T
    best = scores.topk(2, 1)
    clear = best.values[:, 0] - best.values[:, 1] > 0.01
    assert clear.sum() > 50
    with torch.inference_mode():
        heard = network.heard(x)
    for n in torch.nonzero(clear).flatten().tolist():
        assert heard[n] == known[int(best.indices[n, 0])]
    assert network.keys.dtype == torch.int8
    assert folded(judge, known, 5).keys.shape == (len(known), 5)


def test_what_is_heard_is_drawn_as_its_words_are(generate: perrin.Generator) -> None:
    red = png(disc(1))
    picture = read_like(InputFile("image/png", red), 64, 64)
    (heard,) = reader().half().float().heard(Features().of(picture))
    drawn, *others = (
        generate(**one, **FEW)[0].value.astype(float)
        for one in ({"like": red}, *({"prompt": caption} for caption in KNOWN))
    )
    nearest = min(range(len(KNOWN)), key=lambda n: float(np.abs(drawn - others[n]).mean()))
    assert KNOWN[nearest] == heard


def test_the_recipe_makes_an_adapter_that_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["name=tiny-like", "like.batch=8", "like.options.network={hidden: 32}", "like.options.space=8"]
    made = train(read_recipe("image/emoji_like", overrides), dry_run=2, out=home / "run", settings=Settings(home=home))
    monkeypatch.setenv("PERRIN_MODELS", str(made.parent))
    card = find("tiny-like")
    verify(card)
    assert (card.base, card.conditioners) == ("emoji-64", {"like": {"captions": 2}})
    assert {"first", "among_five"} <= card.metrics["like"].keys()
    result = perrin.load("image", device="cpu")(like=png(disc(1)), **FEW)
    assert result[0].metadata["parameters"]["like_model"].startswith("tiny-like@")


def test_what_is_known_is_recognised() -> None:
    pixels = np.stack([disc(n, ((200, 40, 40), (40, 40, 200))[n % 2]) for n in range(12)])
    pictures = Pictures(pixels, tuple(record(n) for n in range(12)), np.arange(12), np.arange(0), np.ones(12) / 12)
    known = Nearest(pictures, range(2, 12))
    assert known.recognises(pixels[0], "disc") == (True, True)
    assert known.recognises(pixels[1], "disc") == (False, False)
    assert known.chance("disc") == 0.5
