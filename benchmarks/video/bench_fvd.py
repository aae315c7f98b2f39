"""Frechet video distance of two folders of clips, under the settings of a published figure.

    python benchmarks/video/bench_fvd.py --weights FILE [--protocol styleganv] REAL MADE

FILE holds the tensors of I3D's RGB stream, trained on Kinetics-400, in the names of the usual PyTorch conversion; no
registry has them. Clips are any that `perrin_video.reading` reads. Too few clips for the protocol are refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perrin.inputs import InputFile
from perrin.media import sniff
from perrin_video.metrics.fvd import PROTOCOLS, fvd, load_i3d
from perrin_video.reading import read_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="styleganv")
    parser.add_argument("real", type=Path)
    parser.add_argument("made", type=Path)
    asked = parser.parse_args()
    protocol = PROTOCOLS[asked.protocol]
    distance = fvd(load_i3d(asked.weights), clips(asked.real), clips(asked.made), protocol)
    print(f"{distance:.2f}  ({protocol.source}; I3D logits, Kinetics-400)")


def clips(folder: Path) -> Iterator[npt.NDArray[np.uint8]]:
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        yield read_clip(path.name, InputFile(sniff(data), data), 256).frames[..., :3]


if __name__ == "__main__":
    main()
