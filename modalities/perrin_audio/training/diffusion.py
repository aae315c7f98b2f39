"""Trains the diffusion model: a rectified flow over log-mel spectrograms, told a caption, a note and where it begins.

The network predicts the clean spectrogram. A token is two frames, 224 numbers; that a clean one lies near few
dimensions and noise does not is why this works where the velocity would not. What a token cannot carry of a nearly
clean spectrogram, the grain of a bow, passes by the network's skip.

References:
    Li and He, Back to Basics: Let Denoising Generative Models Denoise (2025), for predicting what is clean, over wide
    patches; Esser et al., Scaling Rectified Flow Transformers (2024), for times; Evans et al., Fast Timing-Conditioned
    Latent Audio Diffusion (2024), for telling the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.modality import Progress
from perrin.nn import DiffusionTransformer
from perrin.training.data.pack import Pack
from perrin.training.objective import Objective, drop
from perrin.training.watch import diversity
from perrin_audio.conditions import CONTEXT, Told, classes, encode, labels, name_in
from perrin_audio.data.fetch import ATTRIBUTIONS
from perrin_audio.data.recipe import held_instruments, load_mels
from perrin_audio.data.score import KINDS
from perrin_audio.mel import Mel
from perrin_audio.notes import NO_NOTE
from perrin_audio.pictures import logs_sheet

__all__ = ["AudioTask"]

SHARES = {"note": 0.6, "later": 0.12, "phrase": 0.16, "drum": 0.04, "effect": 0.01, "hit": 0.07}
"""How much of a batch is of each kind."""

DEFAULT = {
    "prediction": "x0",
    "weight": "edm",
    "weight_options": {"sigma_data": 1.0, "most": 200.0},
    "times": {"kind": "logit_normal", "mean": 1.3, "deviation": 1.6},
}
"""Late times, because neighbouring numbers of a spectrogram say nearly the same: what it is of is in doubt only where
nearly all is noise. Wide ones, because its grain is in doubt to the end."""

SHIFT = 14.0
"""Of the sampler's times, for the same reason."""

NAMES = 256
"""Names there is room for; of more than this none is learnt. Those that stay empty are left out of what ships."""

TESTS = (
    ("violin, note A4, loud", 0.0), ("grand piano, note C4, medium", 0.0), ("flute, note E5, soft", 0.0),
    ("trumpet, note G4, loud, short", 0.0), ("church organ, note C3, loud", 0.0), ("nylon guitar, note A3, loud", 0.0),
    ("violin, scale up from A4", 0.0), ("marimba, arpeggio from C4", 0.0), ("violin, note A4, loud", 2.0),
    ("bass drum, klub", 0.0), ("closed hi-hat, loud", 0.0), ("applause, loud", 0.0),
)  # fmt: skip


class Batch(NamedTuple):
    """Standardised spectrograms (B, bands, frames), tokens (B, L, 384), mask (B, L), notes (B,)."""

    mels: Tensor
    tokens: Tensor
    mask: Tensor
    label: Tensor


class AudioTask:
    """Options: ``network`` (of `perrin.nn.DiffusionTransformer`), ``objective`` (of
    `perrin.training.objective.Objective`), ``text_dropout`` and ``note_dropout``, ``all_dropout`` (both at once),
    ``name_dropout`` (the text stays).
    """

    weights = "transformer"
    mels: Pack

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._data, self._folders = dict(options), dict(data), dict(folders)
        torch.manual_seed(0)
        self.network: nn.Module = DiffusionTransformer(**self._arguments)
        self.objective = Objective.model_validate(self.options.get("objective", DEFAULT))
        self._loss = self.objective.loss()

    @property
    def _arguments(self) -> dict[str, Any]:
        return {
            "channels": Mel().bands,
            "dims": 1,
            "context": CONTEXT,
            "classes": classes(NAMES),
            **self.options["network"],
        }

    def prepare(self, progress: Progress) -> None:
        """Render and pack the spectrograms, measure them, encode their captions."""
        self.mels = load_mels(self._folders["data"] / "audio", progress, self._data)
        array, kinds = self.mels.arrays["mel"], self.mels.arrays["kind"]
        some = np.sort(np.random.default_rng(0).choice(len(array), min(4096, len(array)), replace=False))
        seen = array[some].astype(np.float32)
        mean, deviation = seen.mean((0, 2)), seen.std((0, 2))
        self.mel = Mel(mean=[round(float(x), 4) for x in mean], deviation=[round(float(x), 4) for x in deviation])
        shares = np.zeros(len(array))
        for number, kind in enumerate(KINDS):
            members = kinds == number
            shares[members] = SHARES[kind] / max(1, members.sum())
        every = np.arange(len(array))
        self.held_out, self.train = every[every % 200 == 7], every[every % 200 != 7]
        self._weights = shares[self.train] / shares[self.train].sum()
        captions = sorted({record.captions[0] for record in self.mels.records})
        self._row = {caption: row for row, caption in enumerate(captions)}
        names = sorted({name_in(caption) for caption in captions})
        self.names = names if len(names) <= NAMES else []
        self._labels = labels([NO_NOTE] * len(captions), captions, self.names, NAMES)
        progress(0, 1, "encoding captions")
        parts = [encode(captions[i : i + 256]) for i in range(0, len(captions), 256)]
        longest = max(part.tokens.shape[1] for part in parts)
        self._tokens = torch.cat([nn.functional.pad(p.tokens, (0, 0, 0, longest - p.tokens.shape[1])) for p in parts])
        self._mask = torch.cat([nn.functional.pad(p.mask, (0, longest - p.mask.shape[1])) for p in parts])
        self._null = encode([""])

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Spectrograms by kind; of some neither caption nor note is told, or one of the two."""
        return self._batch_of(generator.choice(self.train, size, p=self._weights), generator)

    def _batch_of(self, chosen: np.ndarray[Any, Any], generator: np.random.Generator) -> Batch:
        rates = {"text": 0.03, "note": 0.03, "name": 0.1, "all": 0.1}
        rates = {what: self.options.get(f"{what}_dropout", rate) for what, rate in rates.items()}
        without = drop(len(chosen), rates, generator)
        arrays = self.mels.arrays
        mels = torch.from_numpy(arrays["mel"][chosen].astype(np.float32))
        notes = torch.from_numpy(arrays["note"][chosen].astype(np.int64))
        notes[torch.from_numpy(without["note"])] = NO_NOTE
        rows = [self._row[self.mels.records[index].captions[0]] for index in chosen]
        tokens, mask = self._tokens[rows], self._mask[rows]
        blank = torch.from_numpy(without["text"])
        width = self._null.tokens.shape[1]
        tokens[blank], mask[blank] = 0.0, False
        tokens[blank, :width], mask[blank, :width] = self._null.tokens[0], self._null.mask[0]
        label = self._labels[rows]
        label[:, 0] = notes
        label[blank | torch.from_numpy(without["name"]), 1] = classes(NAMES)
        told = Told(tokens, mask, label).starting(torch.from_numpy(np.array(arrays["start"][chosen])))
        return Batch(self.mel.standard(mels), told.tokens, told.mask, told.label)

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the objective says."""
        condition = {"context": batch.tokens, "context_mask": batch.mask, "label": batch.label}
        return self._loss(network, batch.mels, condition, generator)

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The loss on held-out windows; draws the spectrograms of some test prompts."""
        batch = self._batch_of(self.held_out[:256], np.random.default_rng(0))
        loss = self.loss(network, batch, torch.Generator().manual_seed(0))[0]
        process = d.process.from_config(self.objective.process)
        denoiser = d.Denoiser(network, process, self.objective.prediction)
        tests: tuple[tuple[str, float], ...] = TESTS
        if self._data:  # sounds of other kinds
            captions = list(self._row)
            tests = tuple((captions[i], 0.0) for i in np.linspace(0, len(captions) - 1, len(TESTS)).astype(int))
        told = Told.of([text for text, _ in tests], names=self.names, most=NAMES).starting(
            torch.tensor([start for _, start in tests])
        )
        null = Told.of([""], most=NAMES).starting(torch.zeros(1))
        guided = d.guidance.classifier_free(denoiser, 2.0, null.condition)
        plan = d.solvers.dpmpp_2m(d.grid.shifted(process, 20, shift=SHIFT))
        shape = batch.mels.shape[1:]
        made = d.sample(guided, plan, shape=tuple(shape), seeds=[7] * len(tests), condition=told.condition)
        logs_sheet(self.mel.logs(made), columns=4, scale=2).save(path)
        return {"held_out_loss": float(loss), "diversity": diversity(made, batch.mels)}

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as bf16, and what the card says of this model."""
        state = {key: value.bfloat16().contiguous() for key, value in network.state_dict().items()}
        known, table = classes(len(self.names)), state["label.weight"]
        state["label.weight"] = torch.cat([table[:known], table[-1:]])
        save_file(state, folder / "transformer.safetensors")
        kinds = self.mels.arrays["kind"]
        return {
            "architecture": {"transformer": {"kind": "transformer", **self._arguments, "classes": known}},
            "process": self.objective.process,
            "grid": {"shift": SHIFT},
            "prediction": self.objective.prediction,
            "conditioners": {"prompt": "minilm", "note": "midi"},
            "data": {
                "sounds": {kind: int((kinds == number).sum()) for number, kind in enumerate(KINDS)},
                "mel": asdict(self.mel),
                "names": self.names,
                "frames": int(self.mels.arrays["mel"].shape[-1]),
                "held": held_instruments(self.mels),
            },
            "attributions": [dict(item) for item in ATTRIBUTIONS],
        }  # fmt: skip
