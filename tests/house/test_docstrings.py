"""Nothing public is undocumented; a method may inherit its docstring from what it implements."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

PACKAGES = [
    "perrin",
    "perrin_image",
    "perrin_molecule",
    "perrin_video",
    "perrin_audio",
    "perrin_shape",
    "perrin_orchestration",
    "perrin_dashboard",
]


def _modules() -> list[str]:
    names = []
    for package in PACKAGES:
        root = importlib.import_module(package)
        names += [info.name for info in pkgutil.walk_packages(root.__path__, f"{package}.")]
    return [n for n in names if ".migrations" not in n and not n.endswith(("__main__", "perrin_dashboard.app"))]


@pytest.mark.parametrize("name", _modules())
def test_public_things_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is for"
    missing = []
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isfunction(value) and not value.__doc__:
            missing.append(key)
        if inspect.isclass(value):
            if not value.__doc__:
                missing.append(key)
            missing += [
                f"{key}.{attribute}"
                for attribute, member in vars(value).items()
                if not attribute.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod))
                and not inspect.getdoc(getattr(value, attribute))
            ]
    assert not missing, f"{name}: {', '.join(missing)}"
