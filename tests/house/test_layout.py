"""The shape of the house: no `__init__.py` in a source root, light imports, entry points that load."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ["platform", "modalities", "orchestration", "dashboard"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_root_is_no_package(source: str) -> None:
    """With an `__init__.py` in platform/, `import platform` would no longer find Python's own module."""
    assert (ROOT / source).is_dir()
    assert not (ROOT / source / "__init__.py").exists()


def test_pythons_own_platform_is_found() -> None:
    assert platform.python_version().startswith("3.")
    assert Path(platform.__file__).parent != ROOT / "platform"


LIGHT = {
    "import perrin": "torch",
    "import perrin.client": "torch",
    "import perrin.wire": "torch",
    "import perrin.modality, perrin.plugins; perrin.plugins.modalities()": "torch",
    "from perrin.diffusion import process, grid, solvers, plan": "torch",
    "import perrin.cli": "torch",
    "import perrin_orchestration.gateway": "torch",
    "import perrin_orchestration.commands": "sqlalchemy",
    "import perrin_dashboard.command": "streamlit",
    "import perrin.cli ": "pydantic",
}


@pytest.mark.parametrize(("code", "heavy"), LIGHT.items(), ids=[f"{c} / {h}" for c, h in LIGHT.items()])
def test_light_at_the_door(code: str, heavy: str) -> None:
    """Imported in a fresh interpreter, these load no torch (or not what they start later)."""
    check = f"{code.strip()}\nimport sys\nassert {heavy!r} not in sys.modules, 'loads {heavy}'"
    subprocess.run([sys.executable, "-W", "error", "-c", check], check=True, cwd=ROOT)


def test_modalities_and_commands_load() -> None:
    found = entry_points(group="perrin.modalities")
    assert {"image", "molecule", "video", "audio"} <= found.names
    for entry in [*found, *entry_points(group="perrin.commands")]:
        assert entry.load() is not None


def test_every_public_name_exists() -> None:
    """`__all__` tells the truth, in every module that has one."""
    import importlib
    import pkgutil

    for package in (
        "perrin",
        "perrin_image",
        "perrin_molecule",
        "perrin_video",
        "perrin_audio",
        "perrin_shape",
        "perrin_orchestration",
        "perrin_dashboard",
    ):
        root = importlib.import_module(package)
        for info in pkgutil.walk_packages(root.__path__, f"{package}."):
            if ".migrations" in info.name or info.name.endswith(("__main__", "perrin_dashboard.app")):
                continue
            module = importlib.import_module(info.name)
            for name in getattr(module, "__all__", ()):
                assert hasattr(module, name), f"{info.name} has no {name}"
