"""Control: what is read of a picture, what a side network does with it in a request, and how one is trained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

import perrin
from perrin.cli import main
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.models import find, verify
from perrin.models.card import ModelCard, write_card
from perrin.models.weights import load_network
from perrin.nn import DiffusionTransformer, SideNetwork
from perrin.settings import Settings
from perrin.training import read_recipe, train
from perrin_image.control import edges, lines_in, read_control
from perrin_image.data import Record
from perrin_image.data.pack import write_pack
from perrin_image.face import ImageParameters
from perrin_image.runtime import ImageRuntime
from perrin_image.training.control import agreement, scribbled

FEW: dict[str, Any] = {"steps": 4, "sampler": "ddim", "seed": 7}
OWN = {"channels": 16, "width": 32, "depth": 1, "heads": 2, "hidden": 32, "context": 0}
OVERRIDES = [
    "side.batch=4",
    "side.compile=false",
    "side.warmup=1",
    "side.options.samples=2",
    "side.options.own={channels: 16, width: 32, depth: 1, heads: 2, hidden: 32, context: 0}",
]


def drawing(side: int = 64, ink: str = "black", paper: str = "white", width: int = 1) -> Image.Image:
    """A house: lines on paper."""
    image = Image.new("RGB", (side, side), paper)
    pen, s = ImageDraw.Draw(image), side / 64
    house = [(12, 56), (12, 28), (32, 8), (52, 28), (52, 56), (12, 56)]
    pen.line([(x * s, y * s) for x, y in house], ink, width)
    return image


def file(image: Image.Image) -> InputFile:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return InputFile("image/png", stream.getvalue())


def disc(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng, pixels, (y, x) = np.random.default_rng(number), np.zeros((64, 64, 4), np.uint8), np.mgrid[:64, :64]
    pixels[(x - 32) ** 2 + (y - rng.integers(26, 38)) ** 2 < rng.integers(150, 700)] = [*rng.integers(0, 200, 3), 255]
    return pixels


# --- reading ----------------------------------------------------------------------------------------------------------


def test_lines_are_lines_in_either_polarity_and_at_any_size() -> None:
    wanted = read_control("edge", file(drawing()), 64, 64)
    assert 0.02 < wanted.mean() < 0.12
    for other in (drawing(ink="white", paper="black"), drawing(ink="#222222", paper="#dddddd")):
        assert (read_control("edge", file(other), 64, 64) != wanted).sum() <= 2
    assert (read_control("scribble", file(drawing()), 64, 64) == wanted).all()
    clear = drawing().convert("L").point(lambda v: 255 - v)
    inked = Image.new("RGBA", (64, 64), "black")
    inked.putalpha(clear)
    assert (read_control("scribble", file(inked), 64, 64) == wanted).all(), "ink on nothing at all"
    for side, width in ((48, 1), (256, 2), (1000, 4)):
        found = read_control("edge", file(drawing(side, width=width)), 64, 64)
        assert agreement(found[None] > 0, wanted[None] > 0) > 0.9
    coloured = read_control("scribble", file(drawing(ink="#cc2222", paper="#ffffee")), 64, 64)
    assert (coloured != wanted).sum() <= 2, "a red pen on yellowish paper"


def test_of_an_ordinary_picture_the_edges_are_found_first() -> None:
    pixels = disc(3)
    found = read_control("edge", file(Image.fromarray(pixels)), 64, 64)
    assert (found == edges(pixels[None])[0]).all()
    inside = np.zeros((64, 64), bool)
    inside[1:-1, 1:-1] = (pixels[1:-1, 1:-1, 3] > 0) & (pixels[:-2, 1:-1, 3] > 0) & (pixels[2:, 1:-1, 3] > 0)
    rim = (pixels[..., 3] > 0) & ~inside
    assert agreement(found[None] > 0, rim[None]) > 0.95


def test_edges_are_thin_and_turn_with_the_picture() -> None:
    pixels = np.stack([disc(n) for n in range(4)])
    found = edges(pixels)
    assert not (found[:, 1:, 1:] & found[:, :-1, 1:] & found[:, 1:, :-1] & found[:, :-1, :-1]).any()
    for way in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: np.swapaxes(a, 1, 2)):
        assert (agreement(edges(np.ascontiguousarray(way(pixels))), way(found)) > 0.99).all()
    assert not edges(np.full((1, 64, 64, 4), 255, np.uint8)).any()


def test_depth_is_light_where_it_is_near() -> None:
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
    near = read_control("depth", file(ramp), 64, 64)
    assert near.shape == (64, 64)
    assert np.abs(near[0] - np.arange(64) * 4 / 255).max() < 0.01


@pytest.mark.parametrize(
    ("kind", "image", "words"),
    [
        ("edge", Image.new("RGB", (64, 64), "white"), "this one is blank"),
        ("scribble", Image.new("RGBA", (64, 64)), "this one is blank"),
        ("scribble", Image.fromarray(disc(1)).resize((40, 40), box=(20, 20, 44, 44)), "lines on plain paper"),
    ],
)
def test_what_has_no_lines_is_refused(kind: str, image: Image.Image, words: str) -> None:
    with pytest.raises(InvalidInput, match=f"control.{kind}.*{words}"):
        read_control(kind, file(image), 64, 64)


def test_the_faintest_lines_count_as_the_strongest() -> None:
    faint = np.asarray(drawing(ink="#d0d0d0").convert("RGBA"))
    assert np.allclose(lines_in(faint), lines_in(np.asarray(drawing().convert("RGBA"))), atol=1e-6)


# --- in a request -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters that are wide awake: for lines, and for depth."""
    folder, network = tmp_path_factory.mktemp("models"), load_network(find("emoji-64"), "transformer")
    assert isinstance(network, DiffusionTransformer)
    for name, kinds in (("lines", ["edge", "scribble"]), ("far", ["depth"])):
        torch.manual_seed(0)
        side = SideNetwork(network, channels=len(kinds), finer=8, own=DiffusionTransformer(**OWN))  # type: ignore[arg-type]
        for parameter in side.parameters():
            torch.nn.init.normal_(parameter, std=0.08)
        (folder / name).mkdir()
        save_file({k: v.half().contiguous() for k, v in side.state_dict().items()}, folder / name / "side.safetensors")
        architecture = {"side": {"kind": "side", "channels": len(kinds), "finer": 8, "own": OWN}}
        card = ModelCard(name=name, modality="image", base="emoji-64", title=name, licence="MIT",
                         architecture=architecture, conditioners={"control": kinds})  # fmt: skip
        write_card(card, folder / name)
    return folder


@pytest.fixture
def generate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> perrin.Generator:
    monkeypatch.setenv("PERRIN_MODELS", str(folder))
    return perrin.load("image", device="cpu")


def test_a_control_counts_by_its_strength(generate: perrin.Generator) -> None:
    given = file(drawing()).data
    plain = generate("a house", **FEW)[0].value
    made = {
        s: generate("a house", control={"edge": given}, control_strength=s, **FEW)[0].value.astype(int)
        for s in (0.0, 1.0, 2.0)
    }
    assert (made[0.0] == plain).all(), "at 0 there is none"
    assert 1 < np.abs(made[1.0] - plain).mean() < np.abs(made[2.0] - plain).mean()
    assert (generate("a house", control={"edge": given}, **FEW)[0].value == made[1.0]).all()
    assert (generate("a house", control={"scribble": given}, **FEW)[0].value != made[1.0]).any(), "its kind is told"
    other = file(drawing(ink="white", paper="black")).data
    assert (generate("a house", control={"edge": other}, **FEW)[0].value == made[1.0]).all()


def test_a_request_says_what_read_its_control(generate: perrin.Generator, tmp_path: Path) -> None:
    path = tmp_path / "house.png"
    path.write_bytes(file(drawing()).data)
    made = generate("a house", control={"depth": path}, **FEW)
    said = made[0].metadata["parameters"]
    assert said["control"] == {"depth": f"sha256:{file(drawing()).sha256}"}
    assert said["control_model"] == f"far@{find('far').sha256[:12]}"
    assert said["control_strength"] == 1.0
    named = generate("a house", control={"edge": path}, control_model="lines", **FEW)
    assert named[0].metadata["parameters"]["control_model"].startswith("lines@")


def test_control_goes_with_everything_else(generate: perrin.Generator) -> None:
    given, picture = file(drawing()).data, file(Image.fromarray(disc(1))).data
    made = generate(
        "(big:1.4) house", control={"edge": given}, image=picture, strength=0.7, negative="tree", count=2, **FEW
    )
    assert len(made) == 2
    assert (made[0].value != made[1].value).any()
    alone = generate("(big:1.4) house", **{**FEW, "seed": 8}, control={"edge": given}, image=picture, strength=0.7,
                     negative="tree")  # fmt: skip
    assert np.abs(alone[0].value.astype(int) - made[1].value).mean() < 1, "an item alone is the same"


def test_the_command_line_draws_with_a_control(
    generate: perrin.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "house.png").write_bytes(file(drawing()).data)
    words = ["generate", "image", "a house", "--seed", "7", "--steps", "4", "--sampler", "ddim", "--device", "cpu"]
    control = ["--control", f"edge={tmp_path / 'house.png'}", "--control-strength", "0.5"]
    assert main([*words, *control, "--out", str(tmp_path / "made.png")]) == 0
    wanted = generate("a house", control={"edge": tmp_path / "house.png"}, control_strength=0.5, **FEW)[0]
    assert (tmp_path / "made.png").read_bytes() == wanted.bytes()
    capsys.readouterr()
    assert main([*words, "--control", "pose=x.png", "--out", str(tmp_path / "other.png")]) != 0
    assert "control: got 'pose=x.png', wanted KIND=FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"control": {"pose": b"x"}}, "control.pose.*'edge', 'scribble', 'depth' or 'picture'"),
        ({"control": {"edge": b"x", "depth": b"y"}}, "control.*at most 1"),
        ({"control_strength": 0.5}, "control_strength.*a control as well"),
        ({"control_model": "lines"}, "control_model.*a control as well"),
        ({"control": {"edge": "PNG"}, "control_strength": 2.5}, "at most 2"),
        ({"control": {"edge": "PNG"}, "control_model": "far"}, "an adapter for model emoji-64: lines"),
        ({"control": {"edge": b"no picture"}}, r"control\.edge.*image/\*"),
    ],
)
def test_what_makes_no_sense_is_refused(generate: perrin.Generator, values: dict[str, Any], words: str) -> None:
    values = {**values, "control": {k: file(drawing()).data if v == "PNG" else v for k, v in values["control"].items()}
              } if "control" in values else values  # fmt: skip
    for kind, data in values.get("control", {}).items():
        values["control"][kind] = file(drawing()).data if data in (b"x", b"y") else data
    with pytest.raises(InvalidInput, match=words) as caught:
        generate("a house", **values, **FEW)
    assert "\n" not in caught.value.message


def test_without_an_adapter_the_kinds_there_are_are_named(
    generate: perrin.Generator, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lines").symlink_to(folder / "lines")
    monkeypatch.setenv("PERRIN_MODELS", str(tmp_path))
    with pytest.raises(InvalidInput, match="control: got 'depth', wanted one of edge, scribble, for model emoji-64"):
        generate("a house", control={"depth": file(drawing()).data}, **FEW)


def test_a_side_network_is_read_once(generate: perrin.Generator) -> None:
    runtime = ImageRuntime.load(find("emoji-64"), "cpu")
    asked = ImageParameters.model_validate({"prompt": "a house", "control": {"edge": "a" * 32}, **FEW})
    inputs = {"control.edge": file(drawing())}
    denoisers = []
    for _ in range(2):
        run = runtime.start(asked.resolved(find("emoji-64")), inputs)
        denoisers.append(run.request().branches[0].denoiser)
    assert denoisers[0] is denoisers[1], "so requests with the same adapter share network calls"


# --- training ---------------------------------------------------------------------------------------------------------


def test_scribbles_are_like_the_lines_and_never_the_same_twice() -> None:
    lines = torch.from_numpy(np.stack([edges(disc(n)[None])[0] for n in range(8)])).float()
    one, again, other = (scribbled(lines, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert set(one.unique().tolist()) == {0.0, 1.0}
    near = torch.nn.functional.max_pool2d(lines[:, None], 9, 1, 4)[:, 0]
    assert (one * near).sum() > 0.98 * one.sum(), "no line goes far"


def test_agreement_is_whole_for_the_same_and_nothing_for_others() -> None:
    lines = edges(disc(1)[None])
    assert agreement(lines, lines) == 1
    assert agreement(np.roll(lines, 1, 2), lines) == 1, "a pixel beside is as good"
    assert agreement(np.zeros_like(lines), lines) == 0
    assert agreement(np.roll(lines, 20, 2), lines) < 0.5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a pack of 64 discs."""
    home = tmp_path_factory.mktemp("home")
    records = [
        Record(id=f"noto/disc-{n}", source="noto", style="noto", licence="Apache-2.0", name="disc",
               captions=("disc", "a disc"), group="disc", colour=None, recoloured=False, mirror_ok=True, weight=1.0)
        for n in range(64)
    ]  # fmt: skip
    pictures = np.stack([disc(n) for n in range(64)])
    write_pack(home / "data" / "image" / "pack", pictures, records, {"pictures": 64}, "")
    return home


def test_the_recipe_makes_an_adapter_that_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe("image/emoji_edge", ["name=tiny-edge", *OVERRIDES])
    made = train(recipe, dry_run=2, out=home / "run", settings=Settings(home=home))
    monkeypatch.setenv("PERRIN_MODELS", str(made.parent))
    card = find("tiny-edge")
    verify(card)
    assert (card.base, card.conditioners) == ("emoji-64", {"control": ["edge", "scribble"]})
    assert {"edge_f1", "edge_f1_without", "scribble_f1"} <= card.metrics["side"].keys()
    assert card.attributions
    generate = perrin.load("image", device="cpu")
    result = generate("a house", control={"scribble": file(drawing()).data}, **FEW)
    assert result[0].metadata["parameters"]["control_model"].startswith("tiny-edge@")


def test_pictures_with_depth_beside_them_train_depth(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rooms", "depths"):
        (tmp_path / name).mkdir()
    for number in range(6):
        Image.fromarray(disc(number)).save(tmp_path / "rooms" / f"room {number}.png")
        (tmp_path / "rooms" / f"room {number}.txt").write_text("a room")
        Image.new("L", (32, 32), 40 * number).save(tmp_path / "depths" / f"room {number}.png")
    data = {"folder": str(tmp_path / "rooms"), "controls": str(tmp_path / "depths")}
    overrides = ["name=tiny-depth", *OVERRIDES, f"data={data}", "side.options.kinds=[depth]", "side.batch=2"]
    made = train(
        read_recipe("image/emoji_edge", overrides), dry_run=1, out=tmp_path / "run", settings=Settings(home=home)
    )
    monkeypatch.setenv("PERRIN_MODELS", str(made.parent))
    card = find("tiny-depth")
    assert (card.conditioners, card.attributions) == ({"control": ["depth"]}, ())
    generate = perrin.load("image", device="cpu")
    generate("a room", control={"depth": file(Image.new("L", (64, 64), 99)).data}, **FEW)
    for number in range(6):
        (tmp_path / "depths" / f"room {number}.png").unlink()
    with pytest.raises(InvalidInput, match=r"data\.controls.*a picture called like room \d\.png as well"):
        train(read_recipe("image/emoji_edge", overrides), dry_run=1, out=tmp_path / "two", settings=Settings(home=home))


def test_kinds_that_nothing_in_the_data_tells_are_refused(home: Path, tmp_path: Path) -> None:
    for kinds, words in (("[depth]", "data.controls"), ("[]", "edge and scribble"), ("[pose]", "edge and scribble")):
        recipe = read_recipe("image/emoji_edge", [*OVERRIDES, f"side.options.kinds={kinds}"])
        with pytest.raises(InvalidInput, match=words):
            train(recipe, dry_run=1, out=tmp_path / "run", settings=Settings(home=home))
