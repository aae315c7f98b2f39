"""What `emoji-motion` makes of captions, by arithmetic: kind and speed of motion, steadiness, identity, drift.

    python benchmarks/video/bench_motion.py [--real 300] [--seeds 1] [--model emoji-motion] [--sheet sheet.png]
        [--out figures.json] [--only combinations real drift distances]

The 40 held-out combinations of thing and motion, at the committed seed; the same arithmetic on real renders of the
pictures, which is its ceiling (pictures come from the image modality's pack, fetched and kept under PERRIN_HOME the
first time). Flow is scikit-image's TV-L1. Distances of frames are the kernel distance in the image modality's features.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage.registration import optical_flow_tvl1
from skimage.transform import warp

import perrin
from perrin.metrics.distances import kernel
from perrin.pictures import to_pixels, transparent
from perrin.settings import Settings
from perrin_image.metrics.features import NAME, Features
from perrin_image.training.dataset import load_pictures
from perrin_video.clips import draw_clip, held_out, render
from perrin_video.measure import judge
from perrin_video.metrics.steadiness import drift, identity
from perrin_video.motions import Motion, pose
from perrin_video.training.dataset import to_tensor

Frames = npt.NDArray[np.uint8]

VISIBLE_TURN = 0.02
"""Mean change of a real render from frame to frame below which nobody can see that it turns."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--model", default="emoji-motion")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=["real", "combinations", "drift", "distances"])
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    generate = perrin.load("video", model=asked.model, device="cpu")
    if "real" in asked.only:
        figures["real"] = real(asked.real)
    clips: list[Frames] = []
    if {"combinations", "distances"} & set(asked.only):
        figures["combinations"], clips = combinations(generate, asked.seeds, asked.sheet)
    if "drift" in asked.only:
        figures["drift"] = drifts(generate)
    if "distances" in asked.only:
        figures["frames"] = distances(clips)
    text = json.dumps(figures, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def pictures() -> Any:
    return load_pictures(
        Settings().home_path / "data" / "image", lambda *_: None, {"people": 0.2}, {"styles": ["noto"]}
    )


def real(count: int) -> dict[str, Any]:
    """The arithmetic on real renders of pictures, motions and speeds drawn as in training."""
    pack, right, kinds, hidden, wrong = pictures(), 0, 0, 0, Counter[str]()
    for number in range(count):
        generator = np.random.default_rng([number, 99])
        chosen = int(generator.choice(pack.train, p=pack.weights))
        clip = draw_clip(pack.records, chosen, generator, plain=True)
        frames = rgba(render(to_tensor(pack.pixels[chosen]), clip.poses))
        if clip.motion.kind.startswith("spin") and _change(frames) < VISIBLE_TURN:
            hidden += 1
            continue
        found = judge(frames, clip.seconds)
        kinds += found.kind == clip.motion.kind
        right += found == clip.motion
        if found != clip.motion:
            wrong[f"{clip.motion.kind} {clip.motion.speed} taken for {found.kind} {found.speed}"] += 1
    seen = count - hidden
    return {
        "clips": seen, "kind": kinds / seen, "kind_and_speed": right / seen, "turns_that_cannot_be_seen": hidden,
        "wrong": dict(wrong),
    }  # fmt: skip


def combinations(generate: perrin.Generator, seeds: int, sheet: Path | None) -> tuple[dict[str, Any], list[Frames]]:
    """The held-out combinations."""
    rows, clips, wrong = [], [], []
    kinds = speeds = 0
    warps, motions, alike, seconds = [], [], [], []
    entries = held_out()
    for entry in entries:
        for seed in range(7, 7 + seeds):
            began = time.process_time()
            made = generate(entry["caption"], seed=seed, size=64, background="transparent", format="webp")
            seconds.append(time.process_time() - began)
            value = made[0].value
            clips.append(value.frames)
            found, wanted = judge(value.frames, value.seconds), Motion(entry["kind"], entry.get("speed", ""))
            kinds += found.kind == wanted.kind
            speeds += found == wanted
            if found != wanted:
                wrong.append(f"{entry['caption']} ({seed}): {found.kind} {found.speed}".strip())
            moved, error = flow(value.frames)
            warps.append(error)
            motions.append(moved)
            alike.append(identity(value.frames))
        rows.append(clips[-seeds])
    if sheet is not None:
        draw(rows, [entry["caption"] for entry in entries], sheet)
    total = len(clips)
    reals = _renders(20)
    floor = [flow(frames) for frames in reals]
    return {
        "clips": total, "kind_and_direction": kinds / total, "with_speed": speeds / total, "wrong": wrong,
        "warp_error": float(np.mean(warps)), "motion_pixels": float(np.mean(motions)),
        "real_warp_error": float(np.mean([error for _, error in floor])),
        "real_motion_pixels": float(np.mean([moved for moved, _ in floor])),
        "identity": float(np.mean(alike)), "real_identity": float(np.mean([identity(frames) for frames in reals])),
        "cpu_seconds_a_clip": float(np.mean(seconds)),
    }, clips  # fmt: skip


def _renders(count: int) -> list[Frames]:
    pack, made = pictures(), []
    for number, entry in enumerate(held_out()[:count]):
        words = set(entry["thing"].split())
        fits = [i for i in pack.train if any(words <= set(c.split()) for c in pack.records[i].captions[:2])]
        chosen = fits[0] if fits else int(pack.train[number])
        poses = pose(Motion(entry["kind"], entry.get("speed", "")), np.arange(16) / 8)
        made.append(rgba(render(to_tensor(pack.pixels[chosen]), poses)))
    return made


def drifts(generate: perrin.Generator) -> dict[str, Any]:
    """Colour drift over four windows, of things that stay in the frame."""
    captions = (
        "a red apple bouncing",
        "a pizza spinning",
        "a blue heart orbiting",
        "a snowman bouncing",
        "a star spinning",
    )
    found = {}
    for caption in captions:
        value = generate(caption, seed=7, frames=52, size=64, background="transparent", format="webp")[0].value
        found[caption] = drift(value.frames, 4)
    return {"frames": 52, "worst": max(found.values()), "mean": float(np.mean(list(found.values()))), **found}


def distances(clips: list[Frames]) -> dict[str, Any]:
    """Kernel distance of frames to those of real renders, and of real renders to others."""
    network = Features()

    def seen(many: list[Frames]) -> torch.Tensor:
        flat = np.concatenate([frames[::3] for frames in many]).astype(np.float32)
        alpha = flat[..., 3:] / 255
        white = (flat[..., :3] * alpha + 255 * (1 - alpha)) / 127.5 - 1
        return network.of(torch.from_numpy(white).permute(0, 3, 1, 2))

    reals = _renders(40)
    ours, theirs = seen(clips), seen(reals)
    even, odd = seen(reals[::2]), seen(reals[1::2])
    return {
        "kernel_x1000": 1000 * kernel(ours, theirs, 20, 120).mean,
        "kernel_x1000_of_real_ones": 1000 * kernel(even, odd, 20, 60).mean,
        "features": NAME,
    }


def rgba(frames: torch.Tensor) -> Frames:
    """Straight-alpha pixels of (F, 4, H, W) in [-1, 1]."""
    return np.stack([transparent(frame) for frame in to_pixels(frames)])


def _change(frames: Frames) -> float:
    from perrin_video.measure import look

    return float(look(frames).change[1:].mean())


def flow(frames: Frames) -> tuple[float, float]:
    """Mean length of the flow in pixels where something is, and mean error of a frame warped to the next, of 1."""
    alpha = frames[..., 3:].astype(np.float32) / 255
    white = (frames[..., :3] * alpha + 255 * (1 - alpha)) / 255
    gray = white.mean(-1)
    lengths, errors = [], []
    for before, after, first, second, seen in zip(
        gray, gray[1:], white, white[1:], alpha[1:, ..., 0] > 0.2, strict=False
    ):
        v, u = optical_flow_tvl1(after, before, attachment=30)
        rows, columns = np.meshgrid(np.arange(gray.shape[1]), np.arange(gray.shape[2]), indexing="ij")
        warped = np.stack([warp(first[..., c], np.array([rows + v, columns + u]), mode="edge") for c in range(3)], -1)
        if seen.any():
            lengths.append(np.hypot(u, v)[seen].mean())
            errors.append(np.abs(warped - second)[seen].mean())
    return float(np.mean(lengths)) if lengths else 0.0, float(np.mean(errors)) if errors else 0.0


def draw(rows: list[Frames], captions: list[str], path: Path) -> None:
    """A contact sheet: eight frames of each clip, two clips a row."""
    from PIL import ImageDraw

    sheet = Image.new("RGB", (2 * 8 * 66 + 12, (len(rows) + 1) // 2 * 82), "white")
    for number, (frames, caption) in enumerate(zip(rows, captions, strict=True)):
        x, y = number % 2 * (8 * 66 + 12), number // 2 * 82
        ImageDraw.Draw(sheet).text((x + 2, y), caption, fill="#444")
        for place, frame in enumerate(frames[::2]):
            picture = Image.fromarray(frame)
            sheet.paste(Image.new("RGB", (64, 64), "#f2f2f4"), (x + place * 66, y + 14))
            sheet.paste(picture, (x + place * 66, y + 14), picture)
    sheet.save(path, quality=85, method=6) if path.suffix == ".webp" else sheet.save(path)


if __name__ == "__main__":
    main()
