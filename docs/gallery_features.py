"""What the gallery shows of each feature: one row of `FEATURES`, with what is given and what is asked for.

Files that are given are made here: pictures that the model draws with a fixed seed, and masks drawn with Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

import perrin

__all__ = ["FEATURES", "GIVEN", "SEED", "Feature"]

SEED = 7


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name: of its sheet's file.
        title: its heading.
        command: a command line that makes one of its pictures.
        asked: label and parameters of each request, whose items are shown side by side; the seed is `SEED` where none
            is named.
        files: parameters of all requests that are files, each by its name in `GIVEN`; they are shown first. Of a
            parameter that takes a file by its kind, ``control.edge``.
        side: height at which its pictures are shown.
        copies: of each picture along a side, laid side by side.
    """

    name: str
    title: str
    command: str
    asked: tuple[tuple[str, dict[str, Any]], ...]
    files: Mapping[str, str] = field(default_factory=dict)
    side: int = 96
    copies: int = 1


def _drawn(prompt: str) -> Callable[[perrin.Generator], bytes]:
    return lambda generate: generate(prompt, seed=SEED)[0].bytes()


def _mask(*boxes: tuple[int, int, int, int]) -> Callable[[perrin.Generator], bytes]:
    def draw(generate: perrin.Generator) -> bytes:
        image, file = Image.new("L", (64, 64)), BytesIO()
        for box in boxes:
            ImageDraw.Draw(image).rectangle(box, 255)
        image.save(file, "PNG")
        return file.getvalue()

    return draw


def _sketch(generate: perrin.Generator) -> bytes:
    image, file = Image.new("L", (256, 256), 255), BytesIO()
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 120, 196, 220), outline=0, width=6)
    draw.line((40, 124, 128, 40, 216, 124), fill=0, width=6)
    draw.rectangle((110, 160, 146, 220), outline=0, width=6)
    image.save(file, "PNG")
    return file.getvalue()


GIVEN: Mapping[str, Callable[[perrin.Generator], bytes]] = {
    "apple": _drawn("a red apple"),
    "tree": _drawn("evergreen tree"),
    "cat": _drawn("cat face"),
    "the upper third": _mask((0, 0, 63, 23)),
    "a box": _mask((14, 26, 49, 47)),
    "a sketch": _sketch,
}
"""Files that features are given, by name."""

PROMPTS = ("a red apple", "rocket", "blue fish", "snowman", "guitar", "a kitten", "pizza", "hot air balloon")
STYLES = ("noto", "fluent", "3d", "twemoji", "flat", "emojione", "blob", "fx", "streamline", "clipart")

FEATURES = (
    Feature(
        "text",
        "A prompt",
        'perrin generate image "a red apple" --seed 7',
        tuple((prompt, {"prompt": prompt}) for prompt in PROMPTS),
    ),
    Feature(
        "seeds",
        "Other seeds: eight cats",
        'perrin generate image "a cat" --count 8 --seed 7',
        (("seed {seed}", {"prompt": "a cat", "count": 8}),),
    ),
    Feature(
        "styles",
        "One prompt in every style: a red apple",
        'perrin generate image "a red apple" --style fluent --seed 7',
        tuple((style, {"prompt": "a red apple", "style": style}) for style in STYLES),
    ),
    Feature(
        "negative",
        "Steered away from: a heart and a flower",
        "perrin generate image heart --negative red --seed 7",
        (
            ("heart", {"prompt": "heart"}),
            ("negative: red", {"prompt": "heart", "negative": "red"}),
            ("negative: red heart", {"prompt": "heart", "negative": "red heart"}),
            ("flower", {"prompt": "flower"}),
            ("negative: red", {"prompt": "flower", "negative": "red"}),
            ("negative: yellow", {"prompt": "flower", "negative": "yellow"}),
        ),
    ),
    Feature(
        "weights",
        "A part that counts less or more: an angry cat",
        'perrin generate image "(angry:1.5) cat" --seed 7',
        tuple((f"(angry:{weight:g}) cat", {"prompt": f"(angry:{weight:g}) cat"}) for weight in (0, 0.5, 1, 1.5, 2)),
    ),
    Feature(
        "morph",
        "From one prompt to another",
        'perrin generate image "a red apple" --morph "a green pear" --count 8 --seed 7',
        (("{blend:.2f}", {"prompt": "a red apple", "morph": "a green pear", "count": 8}),),
    ),
    Feature(
        "seed-to",
        "From one seed to another: a dog",
        'perrin generate image "a dog" --seed 7 --seed-to 21 --count 8',
        (("{blend:.2f}", {"prompt": "a dog", "seed_to": 21, "count": 8}),),
    ),
    Feature(
        "image",
        "From a picture: a green apple",
        'perrin generate image "green apple" --image apple.png --strength 0.6 --seed 7',
        tuple((f"strength {s:g}", {"prompt": "green apple", "strength": s}) for s in (0, 0.3, 0.5, 0.6, 0.8, 1)),
        {"image": "apple"},
    ),
    Feature(
        "variations",
        "Like a picture, and not it",
        "perrin generate image --image cat.png --count 6 --seed 7",
        (("seed {seed}", {"count": 6}),),
        {"image": "cat"},
    ),
    Feature(
        "inpaint",
        "Into a picture, where the mask is white: apple with a worm",
        'perrin generate image "apple with a worm" --image apple.png --mask mask.png --count 4 --seed 7',
        (("seed {seed}", {"prompt": "apple with a worm", "count": 4}),),
        {"image": "apple", "mask": "the upper third"},
    ),
    Feature(
        "inpaint-box",
        "The same in a box: sunglasses, then heart-eyes",
        'perrin generate image "smiling cat with heart-eyes" --image cat.png --mask box.png --count 3 --seed 7',
        (
            ("sunglasses, seed {seed}", {"prompt": "cat face with sunglasses", "count": 3}),
            ("heart-eyes, seed {seed}", {"prompt": "smiling cat with heart-eyes", "count": 3}),
        ),
        {"image": "cat", "mask": "a box"},
    ),
    Feature(
        "outpaint",
        "Around a picture",
        "perrin generate image fireworks --image tree.png --expand 12 --seed 7",
        tuple((text, {"prompt": text, "expand": 12}) for text in ("fireworks", "snow", "night with stars")),
        {"image": "tree"},
    ),
    Feature(
        "background",
        "Backgrounds: a rocket",
        'perrin generate image rocket --background "#ffcc00" --seed 7',
        tuple(
            (kind, {"prompt": "rocket", "background": kind}) for kind in ("white", "transparent", "#ffcc00", "#224488")
        ),
    ),
    Feature(
        "large",
        "256 pixels: what is drawn at 64, made larger",
        'perrin generate image "a red apple" --size 256 --seed 7',
        tuple(
            (f"{prompt}, {size}", {"prompt": prompt, "size": size})
            for prompt in ("a red apple", "rocket", "penguin")
            for size in (64, 256)
        ),
        side=192,
    ),
    Feature(
        "sheet",
        "Wide and tall",
        'perrin generate image rocket --size 384x256 --background "#224488" --seed 7',
        (
            ("384x256", {"prompt": "rocket", "size": "384x256", "background": "#224488"}),
            ("96x64", {"prompt": "pizza", "size": "96x64", "background": "#ffeecc"}),
            ("256x384", {"prompt": "guitar", "size": "256x384", "background": "#ffeecc"}),
        ),
        side=144,
    ),
    Feature(
        "seamless",
        "Tiles, four of each",
        'perrin generate image "blue fish" --seamless --background "#ffeecc" --seed 7',
        tuple(
            (prompt, {"prompt": prompt, "seamless": True, "background": "#ffeecc"})
            for prompt in ("blue fish", "strawberry", "evergreen tree", "star")
        ),
        side=144,
        copies=2,
    ),
    Feature(
        "control-scribble",
        "Drawn after a sketch",
        "perrin generate image house --control scribble=sketch.png --seed 7",
        tuple(
            (prompt, {"prompt": prompt}) for prompt in ("house", "barn", "castle", "gift", "milk carton", "birdhouse")
        ),
        {"control.scribble": "a sketch"},
    ),
    Feature(
        "control-edge",
        "After the edges of a picture, by their strength: a green pear",
        'perrin generate image "a green pear" --control edge=apple.png --control-strength 0.8 --seed 7',
        tuple((f"strength {s:g}", {"prompt": "a green pear", "control_strength": s}) for s in (0, 0.4, 0.8, 1.2, 1.6)),
        {"control.edge": "apple"},
    ),
    Feature(
        "lora",
        "A drawing style laid over the model: emoji-64-pencil",
        'perrin generate image "a red apple" --lora emoji-64-pencil:0.8 --seed 7',
        tuple(
            (f"weight {weight:g}", {"prompt": prompt, "lora": [f"emoji-64-pencil:{weight:g}"]})
            for prompt in ("a red apple", "penguin")
            for weight in (0, 0.4, 0.8, 1)
        ),
    ),
    Feature(
        "like-cat",
        "Something like a picture, without a word",
        "perrin generate image --like cat.png --count 5 --seed 7",
        (("seed {seed}", {"count": 5}),),
        {"like": "cat"},
    ),
    Feature(
        "like-sketch",
        "Something like a sketch, in other styles",
        "perrin generate image --like sketch.png --style 3d --seed 7",
        tuple((style, {"style": style}) for style in ("noto", "fluent", "3d", "flat", "streamline")),
        {"like": "a sketch"},
    ),
    Feature(
        "like-prompt",
        "Something like a picture, and a prompt",
        'perrin generate image "green" --like apple.png --seed 7',
        tuple((text, {"prompt": text}) for text in ("green", "with a face", "cake", "two")),
        {"like": "apple"},
    ),
)
