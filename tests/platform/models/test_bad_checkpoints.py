"""What is wrong with a checkpoint is said in one line, and nothing of it stays."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from perrin.errors import Conflict, ModelError, PerrinError, StorageError, Unreachable
from perrin.models import models, verify
from perrin.models.checkpoints import Options, add_checkpoint
from perrin.models.checkpoints.hub import fetched, is_hub_id, wanted
from perrin.models.checkpoints.licences import licence_in

tiny = pytest.importorskip("tiny_checkpoints")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion, made once; tests break copies of it."""
    folder = tmp_path_factory.mktemp("saved") / "base"
    tiny.sd(folder)
    return folder


@pytest.fixture
def base(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "base"))


def refused(path: Path, home: Path, kind: type[PerrinError] = ModelError, **options: Any) -> str:
    """The one line that is said."""
    before = set(models())
    with pytest.raises(kind) as caught:
        add_checkpoint(path, Options(**options))
    assert "\n" not in caught.value.message
    assert set(models()) == before
    left = [p.name for p in (home / "models").iterdir()] if (home / "models").is_dir() else []
    assert not [name for name in left if name.startswith(".")]
    print(caught.value.message)
    return caught.value.message


UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_missing_part(base: Path, home: Path) -> None:
    shutil.rmtree(base / "vae")
    said = refused(base, home)
    assert said.startswith("base lacks vae, a part that Stable Diffusion 1 and 2 needs (there: scheduler, ")
    assert "--part vae=FOLDER" in said


def test_a_part_from_elsewhere(base: Path, home: Path, tmp_path: Path) -> None:
    shutil.move(base / "vae", tmp_path / "elsewhere")
    card = add_checkpoint(base, Options(parts={"vae": tmp_path / "elsewhere"}))
    verify(card)
    assert "vae/diffusion_pytorch_model.safetensors" in card.files


def test_another_variant(base: Path, home: Path) -> None:
    assert "has no variant 'fp16'; it has plain" in refused(base, home, variant="fp16")
    (base / UNET).rename(base / "unet/diffusion_pytorch_model.fp16.safetensors")
    shutil.copy(
        base / "unet/diffusion_pytorch_model.fp16.safetensors", base / "unet/diffusion_pytorch_model.ema.safetensors"
    )
    assert "unet has the variants ema, fp16: --variant chooses one" in refused(base, home)


def test_a_file_that_is_cut_off(base: Path, home: Path) -> None:
    data = (base / UNET).read_bytes()
    (base / UNET).write_bytes(data[:-1000])
    assert "is cut off" in refused(base, home)
    (base / UNET).write_bytes(b"not tensors at all")
    assert "no safetensors file" in refused(base, home)


def test_a_shard_that_is_missing(base: Path, home: Path) -> None:
    tensors = load_file(base / UNET)
    (base / UNET).unlink()
    half = len(tensors) // 2
    parts = [dict([*tensors.items()][:half]), dict([*tensors.items()][half:])]
    for number, part in enumerate(parts, 1):
        save_file(part, base / f"unet/diffusion_pytorch_model.fp16-0000{number}-of-00002.safetensors")
    card = add_checkpoint(base, Options(name="whole"))
    assert "unet/diffusion_pytorch_model.safetensors.index.json" in card.files
    (base / "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors").unlink()
    assert "unet lacks shard 2 of 2" in refused(base, home)


def test_precisions_that_are_mixed(base: Path, home: Path) -> None:
    tensors = load_file(base / UNET)
    tensors["conv_in.weight"] = tensors["conv_in.weight"].half()
    save_file(tensors, base / UNET)
    assert "unet mixes precisions: conv_in.weight is float16, " in refused(base, home)
    card = add_checkpoint(base, Options(dtype="bfloat16"))
    assert {t.dtype for t in load_file(card.folder / UNET).values()} == {torch.bfloat16}


def test_an_unknown_architecture(base: Path, home: Path, tmp_path: Path) -> None:
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDifusionPipe"}))
    assert "the nearest known one is StableDiffusionPipeline" in refused(base, home)
    save_file(
        {"blocks.0.mixer.in_proj.weight": torch.zeros(80, 4), "norm.weight": torch.zeros(90)},
        tmp_path / "odd.safetensors",
    )
    said = refused(tmp_path / "odd.safetensors", home)
    assert "blocks.0.mixer.in_proj.weight" in said
    assert "nearest known" in said


def test_a_class_that_is_not_on_the_list(base: Path, home: Path) -> None:
    """Whatever a checkpoint names, nothing is imported that we did not choose."""
    config = json.loads((base / "unet/config.json").read_text())
    (base / "unet/config.json").write_text(json.dumps(config | {"_class_name": "subprocess.Popen"}))
    assert "which is unknown; the nearest known one is" in refused(base, home)


def test_weights_of_another_description(base: Path, home: Path) -> None:
    config = json.loads((base / "unet/config.json").read_text())
    (base / "unet/config.json").write_text(json.dumps(config | {"cross_attention_dim": 48}))
    assert "its config.json wants" in refused(base, home)
    (base / "unet/config.json").write_text(json.dumps(config | {"layers_per_block": 2}))
    assert "unet lacks" in refused(base, home)


def test_a_network_of_a_variant_that_is_not_known(base: Path, home: Path) -> None:
    config = json.loads((base / "unet/config.json").read_text())
    (base / "unet/config.json").write_text(json.dumps(config | {"in_channels": 8}))
    assert "takes 8 channels, wanted 4, or 9" in refused(base, home)


def test_a_lora_for_another_base(base: Path, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "strokes.safetensors"
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{layer}.lora_A.weight": torch.zeros(4, 99), f"{layer}.lora_B.weight": torch.zeros(16, 4)}, file)
    assert "there is no checkpoint" in refused(file, home)
    add_checkpoint(base)
    assert "for another base" in refused(file, home)
    save_file(
        {"unet.nowhere.lora_A.weight": torch.zeros(4, 16), "unet.nowhere.lora_B.weight": torch.zeros(16, 4)}, file
    )
    assert "for another base: it has no layer unet.nowhere" in refused(file, home)
    save_file({f"{layer}.lora_A.weight": torch.zeros(4, 16)}, file)
    assert "only one half" in refused(file, home)
    save_file({f"{layer}.hada_w1_a": torch.zeros(4, 16), f"{layer}.lora_A.weight": torch.zeros(4, 16)}, file)
    assert "no plain LoRA" in refused(file, home)


def test_a_disk_that_is_too_small(base: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(base)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "base takes 0.00 GiB, and the disk of" in refused(base, home, StorageError)


def test_a_pickle_that_wants_to_run(base: Path, home: Path, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    with (tmp_path / "bad.ckpt").open("wb") as stream:
        pickle.dump({"state_dict": Runs()}, stream, protocol=2)
    assert "more than tensors" in refused(tmp_path / "bad.ckpt", home)
    (base / UNET).unlink()
    with (base / "unet/diffusion_pytorch_model.bin").open("wb") as stream:
        pickle.dump({"conv_in.weight": Runs()}, stream, protocol=2)
    assert "more than tensors" in refused(base, home)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_become_safetensors(base: Path, home: Path) -> None:
    tensors = load_file(base / UNET)
    (base / UNET).unlink()
    torch.save(tensors, base / "unet/diffusion_pytorch_model.bin")
    card = add_checkpoint(base)
    assert UNET in card.files
    assert not [*card.folder.rglob("*.bin")]
    assert load_file(card.folder / UNET).keys() == tensors.keys()


def test_a_name_that_is_taken(base: Path, home: Path) -> None:
    add_checkpoint(base)
    with pytest.raises(Conflict, match="perrin models remove base"):
        add_checkpoint(base)


def test_a_file_that_was_changed_later(base: Path, home: Path) -> None:
    card = add_checkpoint(base)
    with (card.folder / UNET).open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\1\2\3\4")
    with pytest.raises(ModelError, match="is not the file"):
        verify(card)
    with pytest.raises(ModelError, match="is not the file that its card describes"):
        card.path(UNET)


def test_what_is_fetched_from_the_hub() -> None:
    """One set of weights a part, and none of what is not used."""
    files = [
        "README.md", "model_index.json", "all-in-one.safetensors", "unet/config.json", "vae/config.json",
        "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin", "tokenizer/merges.txt",
        "text_encoder/model-00001-of-00002.safetensors", "text_encoder/model-00002-of-00002.safetensors",
        "safety_checker/model.safetensors", "flax/weights.msgpack",
    ]  # fmt: skip
    plain = wanted(files)
    assert {"README.md", "model_index.json", "unet/config.json", "tokenizer/merges.txt"} < set(plain)
    assert [name for name in plain if name.endswith((".safetensors", ".bin"))] == [
        "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin", *files[10:12],
    ]  # fmt: skip
    half = wanted(files, "fp16")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in half
    assert "unet/diffusion_pytorch_model.safetensors" not in half
    assert wanted(["weights.safetensors", "README.md"]) == ["README.md", "weights.safetensors"]


def test_a_gated_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's own answer, as its client raises it, in one line that says what to do."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(hub, "snapshot_download", _raising(hub.errors.LocalEntryNotFoundError("not here")))
    answer = httpx.Response(403, request=httpx.Request("GET", "https://hub.invalid/owner/name"))
    gated = hub.errors.GatedRepoError("Access is restricted.\nAsk for it.", response=answer)
    monkeypatch.setattr(hub.HfApi, "list_repo_files", _raising(gated))
    with pytest.raises(ModelError) as caught:
        fetched("owner/name")
    assert "owner/name is gated: accept its terms" in caught.value.message
    assert "\n" not in caught.value.message


def _raising(error: Exception) -> Any:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


def test_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert is_hub_id("somebody/something")
    assert not is_hub_id("folder")
    with pytest.raises(Unreachable) as caught:
        fetched("somebody/something")
    assert "hf download somebody/something --local-dir FOLDER" in caught.value.message
    assert "\n" not in caught.value.message


def test_the_licence_is_shown_and_accepted(base: Path, home: Path) -> None:
    from perrin.commands.models import models as command

    (base / "README.md").write_text("---\nlicense: creativeml-openrail-m\ntags: []\n---\n# A model\n")
    assert licence_in(base) == "creativeml-openrail-m"
    runner = CliRunner()
    shown = runner.invoke(command, ["add", str(base)])
    assert "Licence: creativeml-openrail-m" in shown.output
    assert shown.exit_code != 0
    assert "base" not in models()
    added = runner.invoke(command, ["add", str(base), "--accept-licence", "--name", "mine"])
    assert added.exit_code == 0, added.output
    assert models()["mine"].licence == "creativeml-openrail-m"
    assert runner.invoke(command, ["remove", "mine"]).exit_code == 0
    assert "mine" not in models()
