"""Painting into held-out pictures: what is kept comes back bit for bit, and what is painted is scored.

    python benchmarks/image/bench_inpaint.py [MODEL] [--pictures 100] [--out FOLDER]

Pictures that no model is trained on, each with a box of a quarter to half of its sides somewhere on what it shows.
Asked for is its first caption in its style, seed 7 and on. Against it, in the same run: the box filled with the mean
colour of what is kept, and with scikit-image's biharmonic fill, which carries the surroundings smoothly on.

Kept pixels are compared bit for bit. LPIPS (AlexNet) and the distance in features of EfficientNet-Lite0 are of the box,
with a quarter of its sides around it, at 64x64, to the real picture's. Caption is how often the judge of captions still
finds the picture's own caption first, and among five, of 1,000; nothing where there is no judge.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from real import judge, real_pictures
from rich.progress import track
from skimage.restoration import inpaint_biharmonic
from torch import Tensor
from torch.nn import functional as F

import perrin
from perrin.pictures import Pixels, grid_of, over, to_pixels
from perrin.training.perceptual import Perceptual
from perrin_image.metrics.captions import ranks, sentences
from perrin_image.metrics.features import NAME, Features

SEED, SIDE = 7, 64
Mask = npt.NDArray[np.bool_]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for inpaint.png")
    asked = parser.parse_args()
    real, (network, known) = real_pictures(), judge()
    records = real.pictures.records
    chosen = [n for n, i in enumerate(real.asked) if real.fresh(i) and not records[i].recoloured][: asked.pictures]
    pictures = [over(np.asarray(real.pictures.pixels[real.asked[n]]), "white") for n in chosen]
    masks = [_box(real.pictures.pixels[real.asked[n]], np.random.default_rng(n)) for n in chosen]
    generate = perrin.load("image", model=asked.model)

    def ours(n: int, picture: Pixels, mask: Mask) -> Pixels:
        record = records[real.asked[n]]
        files = {"image": _png(picture), "mask": _png(mask.astype(np.uint8) * 255)}
        made: Pixels = generate(record.captions[0], style=record.style, seed=SEED + n, **files)[0].value
        assert np.array_equal(made[~mask], picture[~mask]), f"picture {record.id}: a kept pixel changed"
        return made

    ways: dict[str, Callable[[int, Pixels, Mask], Pixels]] = {
        "mean colour": _mean,
        "biharmonic": _biharmonic,
        "ours": ours,
    }
    print(f"{generate.card.name} {generate.card.sha256[:12]}; {len(chosen)} held-out pictures; judge: {known}")
    print(f"features: {NAME}\n{'':14}{'LPIPS':>8} {'features':>9} {'caption 1 / 5':>15}   kept pixels")
    said = sentences([records[i].captions[0] for i in real.asked])
    look, features = Perceptual("alex"), Features()
    crops, rows = _crops(pictures, masks), [torch.cat([_tensor(p) for p in pictures])]
    shown = features.of(crops)

    def judged(x: Tensor) -> str:
        found = None if network is None else ranks(network, features.of(x), said, chosen)
        return "-" if found is None else f"{found.one:.3f} / {found.five:.3f}"

    print(f"{'real':14}{0:8.3f} {0:9.2f} {judged(rows[0]):>15}")
    for title, way in ways.items():
        parts = zip(chosen, pictures, masks, strict=True)
        made = [way(*part) for part in track(list(parts), title, transient=True)]
        rows.append(torch.cat([_tensor(p) for p in made]))
        cut = _crops(made, masks)
        with torch.inference_mode():
            lpips = torch.cat([look(a, b) for a, b in zip(cut.split(16), crops.split(16), strict=True)])
        apart = (features.of(cut) - shown).norm(dim=1)
        same = all(np.array_equal(a[~m], b[~m]) for a, b, m in zip(made, pictures, masks, strict=True))
        print(
            f"{title:14}{float(lpips.mean()):8.3f} {float(apart.mean()):9.2f} "
            f"{judged(rows[-1]):>15}   {'identical' if same else 'changed'}",
            flush=True,
        )
    _draw(rows, masks, asked.out / "inpaint.png")


def _box(picture: Pixels, rng: np.random.Generator) -> Mask:
    """True in a box whose middle is on something that is shown."""
    ys, xs = np.nonzero(picture[..., 3] > 127)
    at = int(rng.integers(len(ys)))
    high, wide = (int(v) for v in rng.integers(SIDE // 4, SIDE // 2 + 1, 2))
    top, left = (int(np.clip(c[at] - s // 2, 0, SIDE - s)) for c, s in ((ys, high), (xs, wide)))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + high, left : left + wide] = True
    return mask


def _mean(n: int, picture: Pixels, mask: Mask) -> Pixels:
    made = picture.copy()
    made[mask] = picture[~mask].mean(0).round()
    return made


def _biharmonic(n: int, picture: Pixels, mask: Mask) -> Pixels:
    filled = inpaint_biharmonic(picture / 255, mask, channel_axis=-1)
    return np.where(mask[..., None], (filled.clip(0, 1) * 255).round().astype(np.uint8), picture)


def _crops(pictures: list[Pixels], masks: list[Mask]) -> Tensor:
    """The boxes with a quarter of their sides around them, (B, 3, 64, 64)."""
    cut = []
    for picture, mask in zip(pictures, masks, strict=True):
        ys, xs = np.nonzero(mask)
        edges = []
        for v in (ys, xs):
            more = (v.max() - v.min() + 1) // 4
            edges.append(slice(max(0, v.min() - more), min(SIDE, v.max() + 1 + more)))
        part = _tensor(picture)[:, :, edges[0], edges[1]]
        cut.append(F.interpolate(part, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(-1, 1))
    return torch.cat(cut)


def _tensor(picture: Pixels) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()[None] / 127.5 - 1


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _draw(rows: list[Tensor], masks: list[Mask], path: Path) -> None:
    """The first twelve, a column each: real, hole, mean colour, biharmonic, ours."""
    count = min(12, len(masks))
    hole = rows[0][:count].clone()
    hole.movedim(1, -1)[torch.from_numpy(np.stack(masks[:count]))] = torch.tensor([1.0, -1.0, 1.0])
    sheet = Image.fromarray(
        grid_of(to_pixels(torch.cat([rows[0][:count], hole, *(r[:count] for r in rows[1:])])), count)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
