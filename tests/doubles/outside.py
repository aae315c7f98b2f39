"""The outside plugin, really installed: by pip, into a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["install"]

PLUGIN = Path(__file__).parents[1] / "outside_plugin"


def install(folder: Path) -> Path:
    """Install it under ``folder``; what is to be put on PYTHONPATH."""
    source, target = folder / "source", folder / "site"
    shutil.copytree(PLUGIN, source)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "install", *quiet, "--target", str(target), str(source)], check=True)
    return target
