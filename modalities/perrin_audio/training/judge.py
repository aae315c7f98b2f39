"""Trains the judge of instruments on real renders; the held-out pairs of instrument and note are not among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.modality import Progress
from perrin.training.data.pack import Pack
from perrin_audio.data.recipe import load_mels
from perrin_audio.data.score import INSTRUMENTS, KINDS
from perrin_audio.metrics.instruments import Judge
from perrin_audio.pictures import logs_sheet

__all__ = ["JudgeTask"]


class Batch(NamedTuple):
    """Logarithms (B, bands, frames) and instruments (B,)."""

    logs: Tensor
    program: Tensor


class JudgeTask:
    """Options: ``network`` (of `perrin_audio.metrics.instruments.Judge`)."""

    weights = "judge"
    mels: Pack

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._folders = dict(options), dict(folders)
        torch.manual_seed(0)
        self.network: nn.Module = Judge(len(INSTRUMENTS), **self.options.get("network", {}))

    def prepare(self, progress: Progress) -> None:
        """Render and pack the spectrograms; of each fifteenth note in each instrument nothing is trained on."""
        self.mels = load_mels(self._folders["data"] / "audio", progress)
        kind, note, program = (np.asarray(self.mels.arrays[name]) for name in ("kind", "note", "program"))
        notes = np.flatnonzero((kind == KINDS.index("note")) & (program < len(INSTRUMENTS)))
        apart = (note[notes] + 7 * program[notes]) % 15 == 0
        self.train, self.held_out = notes[~apart], notes[apart]

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Notes, a little noisy."""
        chosen = generator.choice(self.train, size)
        logs = self._logs(chosen)
        noise = torch.from_numpy(generator.standard_normal(logs.shape).astype(np.float32))
        return Batch(logs + 0.25 * noise, self._program(chosen))

    def _logs(self, chosen: Any) -> Tensor:
        return torch.from_numpy(self.mels.arrays["mel"][chosen].astype(np.float32))

    def _program(self, chosen: Any) -> Tensor:
        return torch.from_numpy(self.mels.arrays["program"][chosen].astype(np.int64))

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy."""
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        said = network(batch.logs).float()
        return F.cross_entropy(said, batch.program), {"right": (said.argmax(1) == batch.program).float().mean()}

    @torch.no_grad()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """How often it is right about held-out notes; draws some that it is wrong about."""
        network.eval()
        right, wrong = [], []
        for part in np.array_split(self.held_out, max(1, len(self.held_out) // 128)):
            logs, program = self._logs(part), self._program(part)
            said = network(logs).argmax(1)
            right += (said == program).tolist()
            wrong += [item for item, a, b in zip(logs, said, program, strict=True) if a != b]
        logs_sheet(torch.stack((wrong or [self._logs([0])[0]])[:16]), columns=8).save(path)
        return {"right": sum(right) / len(right)}

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights."""
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "judge.safetensors")
        arguments = {"kind": "judge", "classes": len(INSTRUMENTS), **self.options.get("network", {})}
        return {"architecture": {"judge": arguments}}
