"""Model files that somebody made to do harm, or broke: each ends in one clear line, and nothing of it is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from perrin.errors import Conflict, ModelError, PerrinError
from perrin.models import add, broken, find, models, remove, verify
from perrin.models.card import file_hash, read_card
from perrin.models.tensors import read_tensors
from perrin.models.weights import load_network
from perrin.nn import Autoencoder
from perrin.settings import Settings

ARGUMENTS = {"channels": 3, "latent": 4, "widths": [8, 8], "blocks": 1, "patch": 2}


class Payload:
    """Unpickled, it calls ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def archive(path: Path, entries: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", packed) as stream:
        for name, data in entries.items():
            stream.writestr(name, data)


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def recursive() -> bytes:
    value: Any = torch.zeros(1)
    for _ in range(50):
        value = {"x": value}
    return saved(value)


HOSTILE: dict[str, tuple[str, Callable[[Path, Path], None], str]] = {
    "a call": (
        ".pt",
        lambda p, mark: p.write_bytes(saved(Payload(os.system, f"touch {mark}"))),
        "posix.system, which is refused",
    ),
    "a call among tensors": (
        ".ckpt",
        lambda p, mark: p.write_bytes(saved({"w": torch.zeros(2), "x": Payload(exec, f"open({str(mark)!r}, 'w')")})),
        "exec, which is refused",
    ),
    "an old pickle": (
        ".pt",
        lambda p, mark: p.write_bytes(pickle.dumps(Payload(os.mkdir, str(mark)))),
        "which is refused|more than tensors",
    ),
    "an object": (".pt", lambda p, mark: p.write_bytes(saved(Path("x"))), "PosixPath, which is refused"),
    "a bomb": (
        ".pt",
        lambda p, mark: archive(p, {"archive/data.pkl": b"\0" * (1 << 24)}, zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "a large bomb": (
        ".pth",
        lambda p, mark: archive(p, {f"a/{i}": b"\0" * (1 << 22) for i in range(20)}, zipfile.ZIP_DEFLATED),
        "unpacks to 80 MiB, more than the 64 MiB",
    ),
    "paths that climb": (".pt", lambda p, mark: archive(p, {"../../data.pkl": b"x"}), "is broken"),
    "cut short": (".pt", lambda p, mark: p.write_bytes(saved(torch.zeros(1000))[:-700]), "is broken"),
    "cut short safetensors": (
        ".safetensors",
        lambda p, mark: (save_file({"w": torch.zeros(100)}, p), p.write_bytes(p.read_bytes()[:-50]))[0],
        "not a whole safetensors file",
    ),
    "a huge header": (
        ".safetensors",
        lambda p, mark: p.write_bytes(struct.pack("<Q", 1 << 62) + b"{}"),
        "not a whole safetensors file",
    ),
    "offsets outside": (
        ".safetensors",
        lambda p, mark: p.write_bytes(
            (lambda h: struct.pack("<Q", len(h)) + h)(
                json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1600]}}).encode()
            )
        ),
        "not a whole safetensors file",
    ),
    "nothing": (".pt", lambda p, mark: p.write_bytes(b""), "is broken"),
    "noise": (".bin", lambda p, mark: p.write_bytes(os.urandom(999)), "is broken|more than tensors"),
    "a folder": (".pt", lambda p, mark: p.mkdir(), "not a file"),
    "no tensors": (".pt", lambda p, mark: p.write_bytes(saved({"a": 1, "b": ["x"]})), "holds no tensors"),
    "deeper than sense": (".pt", lambda p, mark: p.write_bytes(recursive()), "holds no tensors"),
    "another kind": (".exe", lambda p, mark: p.write_bytes(b"MZ"), "wanted .safetensors or one of"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name", "ignore:.*pickle")
def test_a_hostile_file_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    ending, make, says = HOSTILE[kind]
    path, mark = tmp_path / f"weights{ending}", tmp_path / "it-was-run"
    make(path, mark)
    with pytest.raises(ModelError, match=says) as refusal:
        read_tensors(path, most=64 << 20)
    assert "\n" not in refusal.value.message
    assert path.name in refusal.value.message
    assert not mark.exists()


@pytest.mark.parametrize("ending", [".pt", ".ckpt", ".safetensors"])
def test_tensors_are_read_from_what_people_have(ending: str, tmp_path: Path) -> None:
    path, values = tmp_path / f"weights{ending}", {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2).half()}
    if ending == ".safetensors":
        save_file(values, path)
        wanted = values
    else:
        torch.save({"state_dict": values, "epoch": 3, "optimizer": {"lr": 0.1}}, path)
        wanted = {f"state_dict.{name}": tensor for name, tensor in values.items()}
    found = read_tensors(path)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good model folder, to be spoilt."""
    made = tmp_path / "source" / "good"
    made.mkdir(parents=True)
    save_file(Autoencoder(**ARGUMENTS).state_dict(), made / "autoencoder.safetensors")  # type: ignore[arg-type]
    write(made, {})
    return made


def write(folder: Path, changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {
        "name": "good",
        "modality": "dots",
        "title": "Good",
        "licence": "CC0-1.0",
        "architecture": {"autoencoder": {"kind": "autoencoder", **ARGUMENTS}},
        "files": {path.name: file_hash(path) for path in folder.glob("*.safetensors")},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(values | changes))


def linked(folder: Path) -> None:
    weights = folder / "autoencoder.safetensors"
    weights.rename(folder.parent / "elsewhere.safetensors")
    weights.symlink_to(folder.parent / "elsewhere.safetensors")


def reshaped(folder: Path) -> None:
    other = Autoencoder(**{**ARGUMENTS, "latent": 6})  # type: ignore[arg-type]
    save_file(other.state_dict(), folder / "autoencoder.safetensors")
    write(folder, {})


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a path that climbs": (lambda f: write(f, {"files": {"../../s.safetensors": "0"}}), "not the name of a file in"),
    "an absolute path": (lambda f: write(f, {"files": {"/etc/passwd": "0"}}), "not the name of a file in"),
    "a file that may run": (lambda f: write(f, {"files": {"model.py": "0"}}), "not the name of a file in"),
    "a link": (linked, "is missing from|is a link"),
    "changed bytes": (lambda f: (f / "autoencoder.safetensors").write_bytes(b"x"), "not the file"),
    "missing": (lambda f: (f / "autoencoder.safetensors").unlink(), "is missing from"),
    "a name that climbs": (lambda f: write(f, {"name": "../good"}), "name: "),
    "no card": (lambda f: (f / "card.yaml").unlink(), "holds no model"),
    "a list for a card": (lambda f: (f / "card.yaml").write_text("- 1\n"), "not a model card"),
    "an object in the card": (
        lambda f: (f / "card.yaml").write_text("!!python/object/apply:os.system ['true']"),
        "cannot be read as YAML",
    ),
    "a card without end": (lambda f: (f / "card.yaml").write_text("a: " + "x" * (2 << 20)), "no card is longer"),
    "a card of brackets": (lambda f: (f / "card.yaml").write_text("[" * 5000), "cannot be read as YAML"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_folder_is_not_added(kind: str, folder: Path, tmp_path: Path) -> None:
    spoil, says = SPOILT[kind]
    spoil(folder)
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(ModelError, match=says) as refusal:
        add(folder, settings)
    assert len(refusal.value.message) < 600
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_model_is_added_found_and_removed(folder: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    card = add(folder, settings)
    assert card.folder == tmp_path / "home" / "models" / "good"
    verify(find("good", settings=settings))
    assert isinstance(load_network(card, "autoencoder"), Autoencoder)
    with pytest.raises(Conflict, match="perrin models remove good"):
        add(folder, settings)
    (card.folder / "autoencoder.safetensors").unlink()
    with pytest.raises(ModelError, match="is missing"):
        load_network(card, "autoencoder")
    remove("good", settings)
    assert "good" not in models(settings)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    reshaped(folder)
    with pytest.raises(ModelError, match="does not fit its card"):
        load_network(read_card(folder), "autoencoder")


def test_one_broken_folder_stops_nobody(folder: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    add(folder, settings)
    bad = tmp_path / "home" / "models" / "bad"
    bad.mkdir()
    (bad / "card.yaml").write_text("name: [")
    assert "good" in models(settings)
    (error,) = broken(settings)
    assert "bad" in error.message
    with pytest.raises(ModelError, match="cannot be read as YAML"):
        find("bad", settings=settings)
    with pytest.raises(PerrinError, match="one of"):
        find("worse", settings=settings)
