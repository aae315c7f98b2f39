"""Point-E's weights, adopted: published names and sizes, small numbers of them, made here."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from perrin import diffusion as d
from perrin.errors import InvalidInput, ModelError
from perrin.inputs import InputFile
from perrin.models.adopting import adopt
from perrin.models.card import read_card
from perrin.models.library import models
from perrin.settings import Settings
from perrin_shape.face import modality
from perrin_shape.foreign import recognise, take_in
from perrin_shape.guests import GuestRuntime, cloud_of
from perrin_shape.point_e import PROCESSES, PointE
from perrin_shape.runtime import ShapeRuntime
from perrin_shape.shap_e import PROCESS, Decoder

WIDTH, LAYERS = 128, 2


def published(told: str = "vector", upsamples: bool = False, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """A state under the published names, which are written out here so that the code cannot change them."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "time_embed.c_fc": (4 * WIDTH, WIDTH),
        "time_embed.c_proj": (WIDTH, 4 * WIDTH),
        "input_proj": (WIDTH, 6),
        "output_proj": (12, WIDTH),
    }
    for n in range(LAYERS):
        block = f"backbone.resblocks.{n}."
        shapes |= {block + "attn.c_qkv": (3 * WIDTH, WIDTH), block + "attn.c_proj": (WIDTH, WIDTH)}
        shapes |= {block + "mlp.c_fc": (4 * WIDTH, WIDTH), block + "mlp.c_proj": (WIDTH, 4 * WIDTH)}
        shapes |= {block + "ln_1": (WIDTH,), block + "ln_2": (WIDTH,)}
    shapes |= {"ln_pre": (WIDTH,), "ln_post": (WIDTH,)}
    if told == "vector":
        shapes["clip_embed"] = (WIDTH, size)
    if told == "grid":
        shapes |= {"clip_embed.0": (size,), "clip_embed.1": (WIDTH, size)}
    if upsamples:
        shapes["cond_point_proj"] = (WIDTH, 6)
    state = {}
    for name, shape in shapes.items():
        plain = torch.randn(shape, generator=generator)
        state[f"{name}.weight"] = plain / math.sqrt(shape[1]) if len(shape) == 2 else 1 + 0.1 * plain
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    if upsamples:
        state["channel_scales"] = torch.tensor([2.0, 2.0, 2.0] + [1 / 127.5] * 3)
        state["channel_biases"] = torch.tensor([0.0, 0.0, 0.0, -1.0, -1.0, -1.0])
    return state


def by_hand(w: dict[str, Tensor], x: Tensor, t: Tensor, clip: Tensor | None, raw: Tensor | None) -> Tensor:
    """The network, head by head and token by token, from the paper and the names; float64, no batch of heads."""
    w = {name: value.double() for name, value in w.items()}

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, value: Tensor) -> Tensor:
        value = value - value.mean(-1, keepdim=True)
        return value / (value.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(value: Tensor) -> Tensor:
        return value * 0.5 * (1 + torch.erf(value / math.sqrt(2)))

    out = []
    for i in range(len(x)):
        rates = [10000 ** (-k / (WIDTH // 2)) for k in range(WIDTH // 2)]
        waves = [math.cos(float(t[i]) * r) for r in rates] + [math.sin(float(t[i]) * r) for r in rates]
        time = linear("time_embed.c_proj", gelu(linear("time_embed.c_fc", torch.tensor([waves], dtype=torch.float64))))
        tokens = [linear("input_proj", x[i].double().T)]
        if raw is not None:
            scaled = raw[i].double() * w["channel_scales"][:, None] + w["channel_biases"][:, None]
            tokens.insert(0, linear("cond_point_proj", scaled.T))
        if clip is not None and clip.dim() == 3:
            tokens.insert(0, linear("clip_embed.1", norm("clip_embed.0", clip[i].double())))
        tokens.insert(0, time)
        if clip is not None and clip.dim() == 2:
            tokens.insert(0, linear("clip_embed", math.sqrt(clip.shape[1]) * clip[i : i + 1].double()))
        h = norm("ln_pre", torch.cat(tokens))
        for n in range(LAYERS):
            block = f"backbone.resblocks.{n}"
            mixed = linear(f"{block}.attn.c_qkv", norm(f"{block}.ln_1", h))
            heads = []
            for k in range(WIDTH // 64):
                q, key, v = mixed[:, 192 * k : 192 * (k + 1)].split(64, 1)
                heads.append(torch.softmax(q @ key.T / 8, 1) @ v)
            h = h + linear(f"{block}.attn.c_proj", torch.cat(heads, 1))
            h = h + linear(f"{block}.mlp.c_proj", gelu(linear(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", h))))
        out.append(linear("output_proj", norm("ln_post", h[-x.shape[2] :])).T)
    return torch.stack(out)


@pytest.mark.parametrize(("told", "upsamples"), [("none", False), ("vector", False), ("grid", False), ("grid", True)])
def test_the_network_is_theirs(told: str, upsamples: bool, tmp_path: Path) -> None:
    state = published(told, upsamples)
    torch.save(state, tmp_path / "some.pt")
    card = take_in(tmp_path / "some.pt", tmp_path / "model")
    assert card is not None
    name = "upsampler" if upsamples else "point_e"
    arguments = dict(card.architecture[name])
    assert arguments.pop("kind") == "point_e"
    network = PointE(**arguments).eval()
    network.load_state_dict({key: value for key, value in state.items() if not key.startswith("channel")})
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 6, 20, generator=generator), torch.tensor([3.0, 700.5])
    clip = {"none": None, "vector": torch.randn(2, 32, generator=generator)}.get(
        told, torch.randn(2, 5, 32, generator=generator)
    )
    raw = torch.cat([torch.rand(2, 3, 7, generator=generator) - 0.5, 255 * torch.rand(2, 3, 7, generator=generator)], 1)
    inside = torch.cat([2 * raw[:, :3], raw[:, 3:] / 127.5 - 1], 1) if upsamples else None
    with torch.no_grad():
        ours = network(x, t, clip, inside)
    theirs = by_hand(state, x, t, clip, raw if upsamples else None)
    torch.testing.assert_close(ours.double(), theirs, atol=2e-5, rtol=1e-4)
    order = torch.randperm(20, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(network(x[:, :, order], t, clip, inside), ours[:, :, order], atol=1e-5, rtol=1e-4)


def test_processes_are_the_published_ones() -> None:
    base = d.process.from_config(PROCESSES["base"])
    steps = np.arange(1025) / 1024
    bar = np.cos((steps + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    kept = np.cumprod(1 - betas)
    np.testing.assert_allclose(base.log_snr(np.arange(1024)), np.log(kept / (1 - kept)), rtol=1e-9)
    finer = d.process.from_config(PROCESSES["upsample"])
    kept = np.cumprod(1 - np.linspace(0.1 / 1024, 20 / 1024, 1024))
    np.testing.assert_allclose(finer.log_snr(np.arange(1024)), np.log(kept / (1 - kept)), rtol=1e-9)


def test_names_tell_whose_weights_they_are(tmp_path: Path) -> None:
    assert recognise([*published()]) == "point-e"
    assert recognise([*published("grid", True)]) == "point-e-upsampler"
    assert recognise([f"wrapped.{name}" for name in published()]) == "shap-e"
    assert recognise([*transmitter()]) == "transmitter"
    assert recognise(["encoder.params_proj.projections.nerstf__mlp__0__weight.proj.weight"]) is None
    assert recognise(["conv1.weight"]) is None
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pt")
    assert take_in(tmp_path / "other.pt", tmp_path / "a") is None
    assert take_in(tmp_path / "other.txt", tmp_path / "a") is None


LATENT, HIDDEN = 24, 16


def transmitter(seed: int = 0) -> dict[str, Tensor]:
    """A transmitter's state under the published names: the parts that decode, and some of what encodes."""
    generator = torch.Generator().manual_seed(seed)
    state = {"encoder.output_proj.weight": torch.zeros(3, 3), "renderer.void.background": torch.zeros(3)}
    widths = [93, HIDDEN, HIDDEN, HIDDEN, HIDDEN + 51, HIDDEN, HIDDEN]
    for k, width in enumerate(widths):
        out = 12 if k == 6 else HIDDEN
        state[f"renderer.nerstf.mlp.{k}.weight"] = torch.randn(out, width, generator=generator) / math.sqrt(width)
        state[f"renderer.nerstf.mlp.{k}.bias"] = 0.2 * torch.randn(out, generator=generator)
    state["renderer.nerstf.mlp.6.weight"][0] *= 10  # so that some of space is inside
    state["renderer.nerstf.mlp.6.bias"][0] = 0
    for k, width in enumerate(widths[:4]):
        name = f"encoder.params_proj.projections.nerstf__mlp__{k}__weight."
        rows = torch.randn(HIDDEN * width, LATENT, generator=generator)
        state[name + "proj.weight"] = rows / math.sqrt(LATENT)
        state[name + "proj.bias"] = 0.1 * torch.randn(HIDDEN * width, generator=generator)
        state[name + "norm.weight"] = (1 + 0.1 * torch.randn(width, generator=generator)) / math.sqrt(width)
        state[name + "norm.bias"] = 0.01 * torch.randn(width, generator=generator)
    return state


def adopted_decoder(folder: Path) -> Decoder:
    torch.save(transmitter(), folder / "transmitter.pt")
    card = take_in(folder / "transmitter.pt", folder / "decoder")
    assert card is not None
    assert card.architecture["decoder"] == {
        "kind": "decoder", "latent": LATENT, "hidden": HIDDEN, "told": 4, "layers": 6, "outputs": 12
    }  # fmt: skip
    from perrin.models.weights import load_network

    found: Any = load_network(card, "decoder", kinds={"decoder": Decoder})
    return found


def test_the_decoder_is_shap_es(tmp_path: Path) -> None:
    renderer = pytest.importorskip("diffusers.pipelines.shap_e.renderer")
    decoder = adopted_decoder(tmp_path)
    names = [f"nerstf.mlp.{k}.weight" for k in range(4)]
    shapes = [(HIDDEN, 93), *[(HIDDEN, HIDDEN)] * 3]
    theirs = renderer.ShapERenderer(param_names=names, param_shapes=shapes, d_latent=LATENT, d_hidden=HIDDEN)
    state = {
        name.replace("encoder.params_proj", "params_proj").replace("renderer.nerstf.mlp", "mlp.mlp"): value
        for name, value in transmitter().items()
    }
    missing = theirs.load_state_dict(state, strict=False).missing_keys
    assert not [name for name in missing if name.startswith(("params_proj", "mlp."))]
    latents = torch.randn(4 * HIDDEN, LATENT, generator=torch.Generator().manual_seed(1))
    places = 2 * torch.rand(500, 3, generator=torch.Generator().manual_seed(2)) - 1
    with torch.no_grad():
        weights = theirs.params_proj(latents[None])
        for name, parameter in theirs.mlp.state_dict().items():
            if f"nerstf.{name}" in weights:
                parameter.copy_(weights[f"nerstf.{name}"][0])
        wanted = theirs.mlp(position=places[None], direction=None, ts=None, nerf_level="fine", rendering_mode="stf")
        distance, colour = decoder(decoder.weights(latents), places)
    torch.testing.assert_close(distance, wanted.signed_distance[0, :, 0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(colour, wanted.channels[0], atol=1e-4, rtol=1e-3)


def test_a_latent_becomes_a_closed_surface(tmp_path: Path) -> None:
    decoder = adopted_decoder(tmp_path)
    latents = torch.randn(4 * HIDDEN, LATENT, generator=torch.Generator().manual_seed(1))
    mesh = decoder.mesh(latents, 24)
    assert mesh is not None
    assert mesh.watertight
    weights = decoder.weights(latents)
    shape_of_theirs = mesh.vertices[:, [0, 2, 1]] * np.float32([1, -1, 1])  # z up, as they have it
    inner = (np.abs(shape_of_theirs) < 0.95).all(1)
    with torch.no_grad():
        at, _ = decoder(weights, torch.from_numpy(np.ascontiguousarray(shape_of_theirs[inner])))
        anywhere, _ = decoder(weights, 2 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(3)) - 1)
    assert at.abs().mean() < 0.5 * anywhere.abs().mean()
    process = d.process.from_config(PROCESS)
    steps = np.array([0, 511, 1023])
    np.testing.assert_allclose(process.scales(process.log_snr(steps))[0] ** 2, np.exp(-12 * (steps + 1) / 1024))


def latent_network() -> dict[str, Tensor]:
    """Shap-E's network of latents: the same names behind a prefix, other widths, and vectors for places."""
    state = published("vector")
    generator = torch.Generator().manual_seed(5)
    state["input_proj.weight"] = torch.randn(WIDTH, LATENT, generator=generator) / math.sqrt(LATENT)
    state["output_proj.weight"] = torch.randn(2 * LATENT, WIDTH, generator=generator) / math.sqrt(WIDTH)
    state["output_proj.bias"] = torch.zeros(2 * LATENT)
    state["pos_emb"] = torch.randn(4 * HIDDEN, WIDTH, generator=generator)
    return {f"wrapped.{name}": value for name, value in state.items()}


def test_words_become_surfaces_by_shap_e(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("perrin_shape.shap_e.GRID", 24)
    torch.save(latent_network(), clip.parent / "text_cond.pt")
    torch.save(transmitter(), clip.parent / "transmitter.pt")
    card = adopt(clip.parent / "text_cond.pt", settings=Settings())
    assert card is not None
    assert (card.name, card.prediction, card.defaults["guidance"]) == ("shap-e-text-cond", "x0", 15.0)
    runtime: Any = ShapeRuntime.load(read_card(card.folder), "cpu")
    parameters = asked(card, prompt="a chair", points=500)
    with pytest.raises(ModelError, match="decoder is not here"):
        runtime.start(parameters)
    assert adopt(clip.parent / "transmitter.pt", settings=Settings()) is not None
    run = runtime.start(parameters)
    while not run.done:
        run.step()
    assert run.result.shape == (1, LATENT, 4 * HIDDEN)
    (made,) = runtime.decode(run.result, parameters)
    assert made.cloud.points.shape == (500, 3)
    assert made.cloud.normals is not None
    assert made.cloud.colours is not None
    runtime.check(made)
    assert runtime.preview(run.result) is None


def test_broken_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(change: Any, said: str) -> None:
        state = published()
        change(state)
        torch.save(state, tmp_path / "broken.pt")
        with pytest.raises(ModelError, match=said) as caught:
            take_in(tmp_path / "broken.pt", tmp_path / "model")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "model").exists()

    refused(lambda s: s.pop("ln_post.bias"), "lacks ln_post.bias")
    refused(lambda s: s.update(more=torch.zeros(1)), "no place for more")
    refused(lambda s: s.update({"ln_pre.bias": torch.zeros(3)}), r"ln_pre.bias is \(3,\)")
    refused(lambda s: s.update({"input_proj.weight": torch.zeros(WIDTH, 3)}), "6 numbers in")
    refused(lambda s: s.update({"input_proj.weight": torch.zeros(100, 6)}), "multiple of 64")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of CLIP's layout with random numbers: projections of 32, patches of 32."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("weights") / "clip-vit-large-patch14"
    folder.mkdir()
    words = [chr(c) for c in range(33, 127)]
    vocabulary = [*words, *(f"{w}</w>" for w in words), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**layers, "vocab_size": len(vocabulary), "bos_token_id": len(vocabulary) - 2}
    text |= {"eos_token_id": len(vocabulary) - 1, "pad_token_id": len(vocabulary) - 1}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**layers, "image_size": 32, "patch_size": 8}, projection_dim=32
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    size = {"height": 32, "width": 32}
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    transformers.CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def asked(card: Any, **values: Any) -> Any:
    return modality.parameters(seed=3, steps=2, **values).resolved(card)


def picture(colour: tuple[int, int, int]) -> InputFile:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(stream, "PNG")
    return InputFile("image/png", stream.getvalue())


def test_words_and_pictures_become_points(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("perrin_shape.guests.COARSE", 64)
    torch.save(published("vector"), clip.parent / "base_40m_textvec.pt")
    torch.save(published("grid"), clip.parent / "base_40m.pt")
    torch.save(published("grid", True), clip.parent / "upsample_40m.pt")
    cards = [adopt(clip.parent / f"{name}.pt", settings=Settings()) for name in ("base_40m_textvec", "base_40m")]
    vector, grid = cards
    assert vector is not None
    assert grid is not None
    assert (vector.name, vector.modality, vector.data["clip"]) == ("point-e-base-40m-textvec", "shape", str(clip))
    runtime: Any = ShapeRuntime.load(read_card(vector.folder), "cpu")
    assert isinstance(runtime, GuestRuntime)

    def made(runtime: Any, parameters: Any, **inputs: InputFile) -> Any:
        run = runtime.start(parameters, inputs)
        while not run.done:
            run.step()
        assert runtime.preview(run.result) is not None
        (one,) = runtime.decode(run.result, parameters, inputs)
        return one.cloud

    chair = made(runtime, asked_few(vector, "a chair"))
    assert chair.points.shape == (64, 3)
    assert chair.colours is not None
    assert np.linalg.norm(chair.points, axis=1).max() == pytest.approx(1)
    again, lamp = (made(runtime, asked_few(vector, said)) for said in ("a chair", "lamp"))
    np.testing.assert_array_equal(again.points, chair.points)
    assert np.abs(lamp.points - chair.points).max() > 1e-4  # words are heard
    seer: Any = ShapeRuntime.load(read_card(grid.folder), "cpu")
    with pytest.raises(InvalidInput, match="a picture: model"):
        seer.start(asked_few(grid, "a chair"))
    red = made(seer, asked_few(grid, None, image="0" * 32), image=picture((255, 0, 0)))
    blue = made(seer, asked_few(grid, None, image="0" * 32), image=picture((0, 0, 255)))
    assert np.abs(red.points - blue.points).max() > 1e-4

    more = asked_few(vector, "a chair").model_copy(update={"points": 300})
    with pytest.raises(InvalidInput, match="upsample_40m"):
        runtime.start(more)
    assert adopt(clip.parent / "upsample_40m.pt", settings=Settings()) is not None
    assert models()["point-e-upsample-40m"].base == "point-e"
    assert len(made(runtime, more)) == 300
    with pytest.raises(InvalidInput, match="at most 4096"):
        runtime.start(more.model_copy(update={"points": 5000}))
    with pytest.raises(InvalidInput, match="classes"):
        runtime.start(more.model_copy(update={"category": "chair"}))


def asked_few(card: Any, prompt: str | None, **values: Any) -> Any:
    return asked(card, prompt=prompt, points=256, **values).model_copy(update={"points": 64})


def test_without_clip_it_is_said_what_is_missing(tmp_path: Path) -> None:
    torch.save(published("vector"), tmp_path / "base_40m_textvec.pt")
    card = take_in(tmp_path / "base_40m_textvec.pt", tmp_path / "model")
    assert card is not None
    assert "clip" not in card.data
    runtime = GuestRuntime.load(card, "cpu")
    with pytest.raises(ModelError, match="CLIP ViT-L/14, which is not here") as caught:
        runtime.start(asked(card, prompt="a chair"))
    assert "\n" not in str(caught.value)


def test_points_are_turned_to_stand_on_y() -> None:
    clean = torch.zeros(6, 5)
    clean[2] = torch.linspace(-1, 1, 5)  # up, for them
    clean[3:] = torch.tensor([[1.0], [0.0], [-1.0]])
    cloud = cloud_of(clean)
    np.testing.assert_allclose(cloud.points[:, 1], [-1, -0.5, 0, 0.5, 1], atol=1e-6)
    assert cloud.colours is not None
    assert cloud.colours[0].tolist() == [255, 128, 0]
