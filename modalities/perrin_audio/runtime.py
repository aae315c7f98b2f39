"""Runs audio models: captions and sounds into mel spectrograms, spectrograms into waveforms."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.diffusion import Run
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.inputs import InputFile
from perrin.modality import Format
from perrin.models import ModelCard, models
from perrin.models.plans import plan_of_rest
from perrin.models.weights import load_network
from perrin.nn.text import text_encoder
from perrin_audio.conditions import Told
from perrin_audio.face import AudioParameters
from perrin_audio.foreign import Foreign
from perrin_audio.gan import Generator
from perrin_audio.given import as_long, given_of
from perrin_audio.mel import Mel
from perrin_audio.notes import read_caption
from perrin_audio.pictures import mel_picture, sound_picture
from perrin_audio.vocoder import GriffinLim, Vocoder, Vocodes
from perrin_audio.windows import Layout, Windows, layout_of
from perrin_audio.writing import levelled, write

__all__ = ["AudioRuntime", "Heard"]

NO_FILES: Mapping[str, InputFile] = {}

QUIETEST = 1e-3
"""A waveform whose peaks stay below it is silence."""

END = 0.005
"""Seconds over which a sound that does not loop is faded out, so that it does not end in a click."""

AROUND = 8
"""Frames of a loop that the vocoder sees before its beginning and after its end."""


@dataclass(frozen=True)
class Heard:
    """One result: (samples,) at ``rate``, to be written with so many bits."""

    sound: npt.NDArray[np.float32]
    rate: int
    depth: str = "16"


class AudioRuntime:
    """An audio model on one device.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(self, card: ModelCard, device: str, network: nn.Module, vocoder: nn.Module | None) -> None:
        self.card, self.device = card, device
        self.mel = Mel.from_card(card.data["mel"])
        self._width = int(card.data["frames"])
        self._network = network
        self._own = vocoder
        self._others: dict[str, Foreign] = {}
        self._process = d.process.from_config(card.process)
        self._denoiser = d.Denoiser(network, self._process, card.prediction)

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the networks of ``card`` onto ``device``.

        Raises:
            ModelError: the model is none of sounds, or its files are broken.
        """
        if "transformer" not in card.architecture or not {"mel", "frames"} <= card.data.keys():
            got = ", ".join(card.architecture) or "nothing"
            raise ModelError(f"model {card.name}: wanted a transformer over mel spectrograms, got {got}")
        text_encoder(device)
        vocoder = None
        if "vocoder" in card.architecture:
            vocoder = load_network(card, "vocoder", device, kinds={"vocoder": Vocoder})
        return cls(card, device, load_network(card, "transformer", device), vocoder)

    def start(self, parameters: AudioParameters, inputs: Mapping[str, InputFile] = NO_FILES) -> Run:
        """Encode caption and sound, lay out windows, choose grid and solver, and draw the starting noise."""
        p = as_long(parameters, inputs)
        if p.seed is None or p.steps is None or p.sampler is None or p.guidance is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        self._vocoder(p)
        given = given_of(p, inputs, self.mel.rate)
        layout = self._layout(p, None if given is None else len(given.sound))
        options = dict(self.card.grid)
        grid = d.grid.shifted(self._process, p.steps, **{"shift": 1.0, **options})
        plan, late = plan_of_rest(self.card, p.sampler, grid, None if given is None else p.strength)
        said = p.prompt or ""
        if p.note is not None:
            said = f"{read_caption(said).text}, {p.note}".lstrip(", ")
        told = Told.of([said, p.negative], self.device, self.card.data.get("names", ()))
        denoiser = self._denoiser
        if layout.single:
            told = told.starting(torch.tensor([p.start] * 2, device=self.device))
        else:
            denoiser = d.Denoiser(Windows(self._network, layout), self._process, self.card.prediction)
        condition, away = ({k: v[i : i + 1] for k, v in told.condition.items()} for i in (0, 1))
        scale = p.guidance if p.prompt or p.note is not None or p.negative else 1.0
        guidance: Any = d.guidance.classifier_free(denoiser, scale, away)
        initial = None
        if given is not None:
            known = self.mel.standard(given.logs(self.mel, layout.frames)).to(self.device)
            initial = known if late else None
            if given.keeps:
                guidance = d.guidance.constrained(guidance, known, given.kept(self.mel, layout.frames).to(self.device))
        return d.start(
            guidance,
            plan,
            shape=(self.mel.bands, layout.frames),
            seeds=[int(p.item(number)["seed"]) for number in range(p.count)],
            condition=condition,
            initial=initial,
            device=self.device,
        )

    def _layout(self, p: AudioParameters, samples: int | None) -> Layout:
        wanted = round(cast(float, p.seconds) * self.mel.rate) if samples is None else samples
        frames = -(-wanted // self.mel.hop)
        first = (p.prompt or "").partition(",")[0].strip().lower()
        held = samples is not None or first in self.card.data.get("held", ())
        return layout_of(frames, self._width, self.mel.hop / self.mel.rate, held, p.start, p.loop)

    def _vocoder(self, p: AudioParameters) -> Vocodes:
        if p.vocoder == "griffin-lim":
            return GriffinLim(self.mel)
        if p.vocoder == "own" and self._own is not None:
            return cast(Vocodes, self._own)
        known = {name: card for name, card in models().items() if "generator" in card.architecture}
        if p.vocoder not in known:
            names = ["own"] * (self._own is not None) + ["griffin-lim", *known]
            raise InvalidInput("vocoder", p.vocoder, "one of " + ", ".join(names))
        if p.vocoder not in self._others:
            card = known[p.vocoder]
            network = load_network(card, "generator", self.device, kinds={"generator": Generator})
            self._others[p.vocoder] = Foreign(network, card.architecture["generator"], self.mel)
        return self._others[p.vocoder]

    @torch.inference_mode()
    def preview(self, clean: Tensor) -> bytes | None:
        """The first item's spectrogram as it is believed to be."""
        stream = io.BytesIO()
        Image.fromarray(mel_picture(self.mel.logs(clean[0]))).save(stream, "PNG")
        return stream.getvalue()

    def decode(
        self, clean: Tensor, parameters: AudioParameters, inputs: Mapping[str, InputFile] = NO_FILES
    ) -> Iterator[Heard]:
        """Waveforms of exactly the length asked for, at the loudness asked for, one by one.

        Raises:
            Degenerate: the sample has numbers that are not finite.
        """
        p = as_long(parameters, inputs)
        given = given_of(p, inputs, self.mel.rate)
        samples = round(cast(float, p.seconds) * self.mel.rate) if given is None else len(given.sound)
        vocoder = self._vocoder(p)
        for item in clean:
            if not torch.isfinite(item).all():
                raise Degenerate("the sample has NaN or infinity in it; try another seed, or less guidance")
            made = self._waveform(vocoder, self.mel.logs(item), p.loop)[:samples]
            if given is not None:
                made = given.composite(made, self.mel.rate)
            elif not p.loop:
                fade = max(1, round(END * self.mel.rate))
                made[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
            keeps = given is not None and given.keeps
            yield Heard(made if keeps else levelled(made, self.mel.rate, p.loudness), self.mel.rate, p.depth)

    @torch.inference_mode()
    def _waveform(self, vocoder: Vocodes, logs: Tensor, loops: bool) -> npt.NDArray[np.float32]:
        if loops:
            logs = torch.cat([logs[:, -AROUND:], logs, logs[:, :AROUND]], 1)
        made = vocoder(logs[None].to(self.device))[0].float().cpu().numpy()
        return np.array(made[AROUND * self.mel.hop : -AROUND * self.mel.hop] if loops else made)

    def check(self, result: Heard) -> None:
        """Refuse silence, noise of numbers that are not finite, and a sound that is clipped."""
        sound = result.sound
        if not np.isfinite(sound).all():
            raise Degenerate("the sound has samples that are not finite; try another seed, or less guidance")
        if not len(sound) or np.abs(sound).max() < QUIETEST:
            raise Degenerate("the sound is silent; try another seed, prompt, or less guidance")
        if np.ptp(sound) < QUIETEST:
            raise Degenerate("the sound is one constant value; try another seed, prompt, or less guidance")
        if (np.abs(sound) >= 0.999).mean() > 0.001:
            raise Degenerate("the sound is clipped; try another seed, or less guidance")

    def export(self, results: Sequence[Heard], format: Format, metadata: Mapping[str, Any]) -> bytes:
        """One sound with its metadata, or the picture of one."""
        heard = results[0]
        if format.media_type != "image/png":
            return write(heard.sound, heard.rate, format.media_type, heard.depth, metadata)
        return _picture(self.mel, heard, metadata)


def _picture(mel: Mel, heard: Heard, metadata: Mapping[str, Any]) -> bytes:
    import json

    text = PngImagePlugin.PngInfo()
    text.add_itxt("perrin", json.dumps(metadata, sort_keys=True, ensure_ascii=False))
    stream = io.BytesIO()
    sound_picture(mel, torch.from_numpy(heard.sound)).save(stream, "PNG", pnginfo=text)
    return stream.getvalue()
