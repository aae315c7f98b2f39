r"""Motions: what a caption says that a thing does, and where that puts it at every second. No torch.

A pose is where one thing is in a square frame: seven numbers, in half-sides of the frame (-1 to 1, y down),

=========  =============================================================================
x, y       its middle
log_size   logarithm of its size, beside one that fills the frame
cos, sin   of the angle that it is turned by, clockwise
opacity    0 to 1
apart      half the distance of its two copies, side by side; 0: there is one
=========  =============================================================================

A motion is a function of seconds. What flies straight out of the frame comes in again on the other side; what grows,
shrinks, fades or drifts comes to an end and stays there; all else repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["KINDS", "POSE", "SPEEDS", "Motion", "placed", "pose", "said"]

POSE = ("x", "y", "log_size", "cos", "sin", "opacity", "apart")

Poses = npt.NDArray[np.float32]
"""(..., 7)."""

SPEEDS: Mapping[str, float] = {"slow": 0.5, "": 1.0, "fast": 1.8}
"""Factors on the rate of a motion."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "still": ("", "standing still", "not moving"),
    "up": ("flying up", "moving up", "rising", "going up"),
    "down": ("flying down", "moving down", "falling", "going down"),
    "left": ("flying left", "moving left", "flying to the left", "moving to the left"),
    "right": ("flying right", "moving right", "flying to the right", "moving to the right"),
    "bounce": ("bouncing", "bouncing up and down", "jumping up and down", "jumping"),
    "spin": ("spinning", "rotating", "spinning clockwise", "rotating clockwise", "turning around"),
    "spin back": ("spinning counterclockwise", "rotating counterclockwise", "spinning anticlockwise"),
    "grow": ("growing", "getting bigger", "growing larger", "becoming larger"),
    "shrink": ("shrinking", "getting smaller", "becoming smaller"),
    "fade": ("fading", "fading away", "fading out", "disappearing"),
    "appear": ("appearing", "fading in"),
    "apart": ("drifting apart", "moving apart"),
    "orbit": ("orbiting", "circling", "moving in a circle", "going around in circles"),
}
"""Kinds of motion, each with how captions say it; the first is said most."""

ADVERBS: Mapping[str, tuple[str, ...]] = {"slow": ("slowly",), "fast": ("fast", "quickly")}

SIZE = 0.6
"""Of a thing that moves, beside one that fills the frame."""

RATE = 0.44
"""Half-sides a second, of what flies."""

PATH = 3.25
"""Half-sides from where a thing is out of the frame on one side to where it is out on the other."""

LEAST, MOST = 0.3, 0.95
"""Sizes between which things grow and shrink, in two seconds."""


@dataclass(frozen=True)
class Motion:
    """A kind of motion at a speed: ``slow``, none, or ``fast``."""

    kind: str
    speed: str = ""


def pose(motion: Motion, seconds: npt.ArrayLike) -> Poses:
    """Where ``motion`` puts a thing at ``seconds`` (F,): (F, 7)."""
    t = np.asarray(seconds, np.float64)
    rate = SPEEDS[motion.speed] * t
    made = {name: np.zeros_like(t) for name in POSE} | {"cos": np.ones_like(t), "opacity": np.ones_like(t)}
    size = np.full_like(t, SIZE)
    done = np.clip(rate / 2, 0, 1)
    flown = (RATE * SPEEDS[motion.speed] * (t - 1) + PATH / 2) % PATH - PATH / 2
    match motion.kind:
        case "up" | "down":
            made["y"] = flown if motion.kind == "down" else -flown
        case "left" | "right":
            made["x"] = flown if motion.kind == "right" else -flown
        case "bounce":
            made["y"] = 0.3 - 0.62 * np.abs(np.sin(np.pi * rate))
        case "spin" | "spin back":
            angle = np.pi * rate * (1 if motion.kind == "spin" else -1)
            made["cos"], made["sin"] = np.cos(angle), np.sin(angle)
        case "grow" | "shrink":
            done = done if motion.kind == "grow" else 1 - done
            size = LEAST * (MOST / LEAST) ** done
        case "fade" | "appear":
            made["opacity"] = 1 - 0.9 * (done if motion.kind == "fade" else 1 - done)
        case "apart":
            size = np.full_like(t, 0.36)
            made["apart"] = np.minimum(0.36 + 0.14 * rate, 0.85)
        case "orbit":
            size = np.full_like(t, 0.45)
            made["x"], made["y"] = 0.38 * np.sin(np.pi * rate), -0.38 * np.cos(np.pi * rate)
    made["log_size"] = np.log(size)
    return np.stack([made[name] for name in POSE], -1).astype(np.float32)


def placed(poses: Poses, zoom: float, shift: tuple[float, float]) -> Poses:
    """The same motion seen ``zoom`` times as large, and moved by ``shift`` (x, y)."""
    made = poses.copy()
    made[..., 0] = poses[..., 0] * zoom + shift[0]
    made[..., 1] = poses[..., 1] * zoom + shift[1]
    made[..., 2] = poses[..., 2] + np.log(zoom)
    made[..., 6] = poses[..., 6] * zoom
    return made


def said(thing: str, motion: Motion, generator: np.random.Generator | None = None) -> str:
    """A caption: ``a rocket slowly flying up``. Without a generator, the way it is said most."""

    def one(ways: tuple[str, ...]) -> str:
        if generator is None or generator.random() < 0.5:
            return ways[0]
        return ways[int(generator.integers(len(ways)))]

    phrase = one(KINDS[motion.kind])
    if motion.kind == "apart":
        thing = f"two {_several(thing)}"
    elif thing.split()[0] not in ("a", "an", "the") and not thing.endswith("s"):
        article = "an" if thing[0] in "aeiou" else "a"
        thing = f"{article} {thing}" if generator is None or generator.random() < 0.6 else thing
    adverb = one(ADVERBS[motion.speed]) if motion.speed and phrase else ""
    first = generator is not None and generator.random() < 0.5
    words = (
        [thing, adverb, phrase] if adverb == "slowly" or (first and adverb == "quickly") else [thing, phrase, adverb]
    )
    return " ".join(word for word in words if word)


def _several(thing: str) -> str:
    """The plural, as good as a rule of four lines has it."""
    if thing.endswith("s"):
        return thing
    if thing.endswith("y") and thing[-2:-1] not in "aeiou":
        return thing[:-1] + "ies"
    return thing + ("es" if thing.endswith(("ch", "sh", "x")) else "s")
