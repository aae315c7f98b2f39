"""The wheel, not only the editable install, works: alone in an empty environment, and with the extras' packages."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # base dependencies come over the network


def _run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


def test_wheel_holds_weights_licences_and_attributions(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "perrin/py.typed",
        "perrin_image/weights/emoji-64/card.yaml",
        "perrin_image/weights/emoji-64/autoencoder.safetensors",
        "perrin_image/weights/emoji-64/transformer.safetensors",
        "perrin_image/recipes/emoji.yaml",
        "perrin_image/recipes/prompts-64.yaml",
        "perrin_molecule/weights/qm9/card.yaml",
        "perrin_molecule/weights/qm9/molecule.safetensors",
        "perrin_molecule/recipes/qm9.yaml",
        "perrin_video/weights/emoji-motion/card.yaml",
        "perrin_video/weights/emoji-motion/motion.safetensors",
        "perrin_video/recipes/motion.yaml",
        "perrin_video/recipes/held-out-40.yaml",
        "perrin_shape/weights/bricks-and-furniture/card.yaml",
        "perrin_shape/weights/bricks-and-furniture/codec.safetensors",
        "perrin_shape/weights/bricks-and-furniture/transformer.safetensors",
        "perrin_shape/recipes/bricks-and-furniture.yaml",
        "perrin_shape/recipes/held-out.yaml",
        "perrin_audio/weights/instruments/card.yaml",
        "perrin_audio/weights/instruments/transformer.safetensors",
        "perrin_audio/weights/instruments/vocoder.safetensors",
        "perrin_audio/recipes/instruments.yaml",
        "perrin_audio/recipes/held-out.yaml",
    ):
        assert wanted in names, wanted
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert any(n.endswith("licenses/NOTICE") for n in names)
    assert not any(n.startswith(("tests/", "platform/", "docs/")) for n in names)


def test_base_alone(wheel: Path, tmp_path: Path) -> None:
    """An empty environment with the base dependencies only: SDK, command line, and a clear word on the rest."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    constraints = ROOT / "deploy" / "constraints.txt"
    _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", constraints, wheel)
    _run(python, "-c", "import perrin; perrin.Client", cwd=tmp_path)
    perrin = tmp_path / "env" / "bin" / "perrin"
    assert "generate" in _run(perrin, "--help", cwd=tmp_path)
    assert "emoji-64" in _run(perrin, "models", cwd=tmp_path)
    out = tmp_path / "apple.png"
    done = subprocess.run(
        [perrin, "generate", "image", "a red apple", "--out", out], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "perrin[run]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_with_extras(wheel: Path, tmp_path: Path) -> None:
    """The wheel's own files, with this environment's packages for the extras: it makes a picture."""
    target = tmp_path / "site"
    _run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel)
    code = (
        f"import sys; sys.path = [{str(target)!r}] + [p for p in sys.path if {str(ROOT)!r} not in p or '.venv' in p]\n"
        "import perrin, perrin_image\n"
        f"assert perrin_image.__file__.startswith({str(target)!r}), perrin_image.__file__\n"
        "perrin.load('image')('a red apple', seed=7, steps=4).save('apple.png')\n"
    )
    _run(sys.executable, "-c", code, cwd=tmp_path)
    assert (tmp_path / "apple.png").read_bytes().startswith(b"\x89PNG")
