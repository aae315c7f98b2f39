"""What shapes are called: captions of parts and furniture, the classes they fall into, and the sizes that they name.

"Brick  2 x  4 with Groove" becomes "brick 2 x 4 with groove"; its short form is "brick 2 x 4", its class "brick". What
a person writes is read alike: "A 2x4 brick" is "2 x 4 brick".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["CLASSES", "class_of", "plain", "short", "sizes"]

_FURNITURE: Mapping[str, str] = {
    "chair": "chair armchair",
    "stool": "stool puff ottoman",
    "bench": "bench",
    "sofa": "sofa couch",
    "bed": "bed crib futon",
    "table": "table",
    "desk": "desk",
    "lamp": "lamp light lights lantern chandelier spotlight lamppost",
    "cabinet": "cabinet wardrobe cupboard dresser bookcase shelves chest vanity trunck locker",
    "appliance": "oven stove fridge refrigerator cooker microwave dryer machine freezer hood cooktop heater radiator",
    "bath": "washbasin bath bathtub sink toilets urinal bidet lavatory basin jacuzzi shower",
    "plant": "plant tree ficus palm pine bamboo cactus maple hedge bush tulips flowers yucca orchids lily "
    "spathiphyllum cypress poplar acacia beech succulent leaves flower",
    "vessel": "vase bottle glass cup mug bowl pot jar pottery flacon bucket barrel",
    "screen": "tv laptop imac ibook tablet screen phone iphone",
    "switch": "plug switch socket",
    "person": "male female boy girl doll mannequin",
    "animal": "animal horse dog cat deer rabbit bulldog chicken bear",
    "vehicle": "car truck sedan van bus suv scooter motorbike bike bicycle tricycle "
    "scenic focus beetle chevrolet cc r6",
    "stairs": "staircase stairs ladder escalator",
}
_PARTS: Mapping[str, str] = {
    "gear": "gear",
    "axle": "axle",
    "beam": "beam liftarm",
    "pin": "pin connector bush",
    "brick": "brick mursten",
    "plate": "plate",
    "tile": "tile",
    "slope": "slope",
    "wedge": "wedge",
    "wing": "wing",
    "wheel": "wheel",
    "tyre": "tyre",
    "baseplate": "baseplate",
    "panel": "panel",
    "windscreen": "windscreen cockpit",
    "window": "window",
    "door": "door gate",
    "hinge": "hinge turntable",
    "arch": "arch",
    "cylinder": "cylinder",
    "cone": "cone",
    "dish": "dish",
    "flag": "flag",
    "roadsign": "roadsign signpost",
    "boat": "boat",
    "train": "train monorail",
    "container": "container box",
    "bar": "bar antenna",
    "rock": "rock",
    "fence": "fence railing",
}
CLASSES: tuple[str, ...] = (*_FURNITURE, *_PARTS, "other")
"""Names of the classes; the last is for what is in none."""

_OF_FURNITURE = {word: name for name, words in _FURNITURE.items() for word in words.split()}
_OF_PARTS = {word: name for name, words in _PARTS.items() for word in words.split()}
_TURNED = {**_OF_FURNITURE, **_OF_PARTS}

_ARTICLE = re.compile(r"^(?:an?|the|some)\s+")
_BETWEEN = re.compile(r"(?<=\d)\s*[x×]\s*(?=\d)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:/\d+)?")
_DIMENSIONS = re.compile(r"\d+(?:\.\d+)?(?:\s*x\s*\d+(?:\.\d+)?)+|\b\d+(?:\.\d+)?(?=\s*(?:l\b|tooth))")
_ASIDE = re.compile(r"\s*\((?:needs work|obsolete|complete|original|[^)]*set [^)]*)\)", re.IGNORECASE)


def plain(text: str) -> str:
    """A caption as the model knows it: lower case, single spaces, no article, sizes as ``2 x 4``."""
    text = _ASIDE.sub("", " ".join(text.lower().split()))
    return _ARTICLE.sub("", _BETWEEN.sub(" x ", text)).strip(" .,")


def short(caption: str) -> str:
    """A plain caption up to its first "with", "and" or bracket: "brick 2 x 4" of "brick 2 x 4 with groove"."""
    return re.split(r"\s(?:with|without|w/|and|for|\()", caption, maxsplit=1)[0].strip()


def class_of(caption: str) -> str:
    """The class of a plain caption, by its words: of a part the first that says one, of furniture the last."""
    words = re.findall(r"[a-z]+\d?", short(caption))
    if words[:1] == ["technic"] or any(c.isdigit() for c in caption):
        found = [_TURNED[word] for word in words if word in _TURNED]
        return found[0] if found else CLASSES[-1]
    for word in reversed(words):
        if word in _OF_FURNITURE or word in _OF_PARTS:
            return _OF_FURNITURE.get(word) or _OF_PARTS[word]
    return CLASSES[-1]


def sizes(caption: str) -> tuple[float, ...]:
    """Up to three sizes that a plain caption names first: (2, 4) of "brick 2 x 4", (24,) of "gear 24 tooth"."""
    match = _DIMENSIONS.search(caption)
    if match is None:
        return ()
    return tuple(float(number) for number in _NUMBER.findall(match[0]))[:3]
