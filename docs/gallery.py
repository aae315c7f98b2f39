"""Draws what the shipped model makes of every feature and of the committed test prompts, once each at a fixed seed.

    python docs/gallery.py [FEATURE ...]          # all, or these features' sheets alone

writes docs/gallery.md, its sheets in docs/pictures/, and the picture that README opens with.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gallery_features import FEATURES, GIVEN, SEED, Feature
from gallery_sheet import fitted, framed, save, sheet
from PIL import Image
from rich.progress import track

import perrin

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
TITLES = {
    "as_captioned": "Captions as they stand in the data",
    "reworded": "The same things in other words",
    "recombined": "Known things, put together anew",
}
README_PROMPTS = (
    "a red apple", "rocket", "smiling face with sunglasses", "blue fish",
    "pizza", "snowman", "purple cat", "guitar",
    "blue heart", "evergreen tree", "automobile", "strawberry",
    "cat face", "alarm clock", "penguin", "green apple",
)  # fmt: skip


def main(only: Sequence[str]) -> None:
    """Generate every picture with the default settings and write the page; or the sheets of some features."""
    PICTURES.mkdir(exist_ok=True)
    generate = perrin.load("image")
    if unknown := set(only) - {feature.name for feature in FEATURES}:
        known = ", ".join(feature.name for feature in FEATURES)
        sys.exit(f"gallery: no feature is called {', '.join(sorted(unknown))}; there are {known}")
    shown = [feature for feature in FEATURES if not only or feature.name in only]
    given = {name: GIVEN[name](generate) for feature in shown for name in feature.files.values()}
    for feature in track(shown, "features"):
        save(_feature(generate, feature, given), PICTURES / f"gallery-{feature.name}.webp")
    if not only:
        committed = yaml.safe_load((files("perrin_image") / "recipes" / "prompts-64.yaml").read_text())
        for section in TITLES:
            save(_prompts(generate, committed[section], committed["seed"]), PICTURES / f"gallery-{section}.webp")
        save(_prompts(generate, README_PROMPTS, committed["seed"]), PICTURES / "readme.webp")
        (HERE / "gallery.md").write_text("\n".join(_page(generate, committed)) + "\n")


def _feature(generate: perrin.Generator, feature: Feature, given: dict[str, bytes]) -> Image.Image:
    """What is given, then what came out."""
    files: dict[str, Any] = {}
    for place, name in feature.files.items():
        parameter, _, kind = place.partition(".")
        files[parameter] = {kind: given[name]} if kind else given[name]
    pictures = [
        framed(fitted(np.asarray(Image.open(BytesIO(given[name]))), feature.side)) for name in feature.files.values()
    ]
    labels = [f"{parameter}: {name}" for parameter, name in feature.files.items()]
    for label, parameters in feature.asked:
        for number, item in enumerate(generate(**{"seed": SEED, **parameters, **files})):
            made: dict[str, Any] = {"blend": 0.0, **item.metadata["parameters"], "number": number}
            tiled = np.tile(item.value, (feature.copies, feature.copies, 1))
            pictures.append(fitted(tiled, feature.side))
            labels.append(label.format(**made))
    return sheet(pictures, labels)


def _prompts(generate: perrin.Generator, prompts: Sequence[str], seed: int) -> Image.Image:
    made = [generate(prompt, seed=seed)[0].value for prompt in track(prompts, "prompts", transient=True)]
    return sheet([fitted(value) for value in made], prompts)


def _page(generate: perrin.Generator, committed: dict[str, Any]) -> list[str]:
    card, d = generate.card, generate("a red apple", seed=SEED).parameters.model_dump()
    lines = [
        "# Gallery",
        "",
        f"Made by `make gallery`. Nothing is picked: seed {SEED} where none is named, the defaults of `{card.name}`",
        f"({d['sampler']}, {d['steps']} steps, guidance {d['guidance']}, style {d['style']}).",
        "First what each feature is given and what comes out; then the 64 prompts that were committed before training",
        "([prompts-64.yaml](../modalities/perrin_image/recipes/prompts-64.yaml)).",
        f"Model {card.sha256[:16]}.",
    ]
    for feature in FEATURES:
        picture = f"![{feature.title}: what is given, and what came out](pictures/gallery-{feature.name}.webp)"
        lines += ["", f"## {feature.title}", "", f"    {feature.command}", "", picture]
    for section, title in TITLES.items():
        lines += ["", f"## {title}", "", f"![{', '.join(committed[section])}](pictures/gallery-{section}.webp)"]
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
