"""Runs video models: a picture of the thing by the image model, then the clip it moves in, by both networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion import Run
from perrin.diffusion.grid import Grid
from perrin.diffusion.noise import normals
from perrin.diffusion.sampling import Noise
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.inputs import InputFile
from perrin.modality import Format
from perrin.models import ModelCard, find
from perrin.models.plans import plan_of, plan_of_rest
from perrin.models.weights import load_network
from perrin.nn import Autoencoder, DiffusionTransformer
from perrin.nn.text import Text, text_encoder
from perrin.pictures import on, over, to_pixels, to_tensor
from perrin_video.face import VideoParameters, stops
from perrin_video.measure import still
from perrin_video.motions import Poses
from perrin_video.network import MotionLayers, VideoTransformer
from perrin_video.plots import PORTRAIT, Plot, as_tensor, plot_of
from perrin_video.tracks import Track, read_track
from perrin_video.windows import Windowed
from perrin_video.words import thing_of
from perrin_video.writing import VideoClip, strip, write

__all__ = ["VideoRuntime"]

NO_FILES: Mapping[str, InputFile] = {}

AT_ONCE = 16
"""Frames that are decoded together."""

FADE = 0.5
"""Seconds in which one prompt goes over into the next."""

LEAST_ALPHA = 8


class VideoRuntime:
    """A video model on one device.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(
        self, card: ModelCard, device: str, image: ModelCard, codec: Autoencoder, network: VideoTransformer
    ) -> None:
        self.card, self.device, self._image = card, device, image
        self._codec, self._network = codec, network
        self._process = d.process.from_config(card.process)
        most = int(card.data.get("window", card.data.get("frames", 16)))
        self._denoiser = d.Denoiser(Windowed(network, most), self._process, card.prediction)
        self._painter = d.Denoiser(network.image, d.process.from_config(image.process), image.prediction)
        self._side = int(image.sizes[0][0])

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the layers along time, and the image model that they belong to, onto ``device``.

        Raises:
            ModelError: the model is none of clips, or its files, or those of its image model, are broken.
        """
        if "motion" not in card.architecture or not card.image:
            raise ModelError(f"model {card.name}: wanted layers along time and the name of an image model")
        image = find(card.image, "image")
        network, codec = load_network(image, "transformer", device), load_network(image, "autoencoder", device)
        motion = load_network(card, "motion", device, kinds={"motion": MotionLayers})
        if not isinstance(network, DiffusionTransformer) or not isinstance(codec, Autoencoder):
            raise ModelError(f"model {card.name}: its image model {image.name} is no transformer of latents")
        text_encoder(device)
        return cls(card, device, image, codec, VideoTransformer(network, cast(MotionLayers, motion)).eval())

    def also(self, parameters: VideoParameters) -> dict[str, str]:
        """The image model with its hash."""
        return {self._image.name: self._image.sha256}

    # --- before sampling ----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def start(self, parameters: VideoParameters, inputs: Mapping[str, InputFile] = NO_FILES) -> Run:
        """Read the motion, draw the thing, and draw the starting noise of the clip."""
        p = parameters
        if p.seed is None or p.steps is None or p.sampler is None or p.guidance is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        prompts = self._prompts(p)
        text = text_encoder(self.device)([prompt for _, prompt in prompts] + [p.negative])
        plot = self._plot(p, inputs, prompts, text)
        _track(inputs, plot.length)
        count = len(plot.seconds)
        portrait, portrait_pose = self._portraits(p, plot, [prompt for _, prompt in prompts])
        condition: dict[str, Any] = {
            "context": text.tokens[None, :-1],
            "context_mask": text.mask[None, :-1],
            "label": self._label(p),
            "portrait": portrait,
            "portrait_pose": portrait_pose,
            "share": as_tensor(_shares([at for at, _ in prompts], plot.seconds), self.device),
            "pose": as_tensor(plot.poses, self.device),
            "seconds": as_tensor(plot.told, self.device),
        }
        if p.loop:
            condition["loop"] = True
        if p.causal:
            condition["causal"] = True
        latents = None if plot.guide is None else self._encoded(plot.guide).transpose(0, 1)[None]
        if latents is not None and plot.kept.any():
            condition |= {"given": latents, "kept": as_tensor(plot.kept, self.device)}
        plan, late = plan_of_rest(self.card, p.sampler, self._grid(p.steps), plot.strength)
        wide = portrait.shape[-1]
        return d.start(
            self._denoiser,
            plan,
            shape=(portrait.shape[1], count, wide, wide),
            seeds=[int(p.item(number)["seed"]) for number in range(p.count)],
            condition=condition,
            noise=self._noise(p, (portrait.shape[1], count, wide, wide)),
            initial=latents if late else None,
            device=self.device,
        )

    def _noise(self, p: VideoParameters, shape: tuple[int, int, int, int]) -> Noise:
        """Draws of which a share, the card's, is the same in all frames; all of them follow from an item's seed."""
        seeds = [int(p.item(number)["seed"]) for number in range(p.count)]
        share = float(self.card.data.get("shared_noise", 0.0))

        def draw(index: int) -> npt.NDArray[np.float32]:
            own, same = normals(seeds, index, shape), normals(seeds, index, (shape[0], 1, *shape[2:]), "shared")
            mixed = np.sqrt(share) * same + np.sqrt(1 - share) * own
            return np.asarray(mixed, np.float32)

        return draw

    def _prompts(self, p: VideoParameters) -> list[tuple[float, str]]:
        return [(0.0, p.prompt or ""), *stops(p.travel)]

    def _plot(
        self, p: VideoParameters, inputs: Mapping[str, InputFile], prompts: list[tuple[float, str]], text: Text
    ) -> Plot:
        def read(seconds: npt.NDArray[np.float64]) -> Poses:
            when = torch.from_numpy(np.asarray(seconds, np.float32))[None].to(self.device)
            many = len(prompts)
            found = self._network.motion.reader(text.tokens[:many], text.mask[:many], when.expand(many, -1))
            shares = torch.from_numpy(_shares([at for at, _ in prompts], seconds)).to(found)
            return cast(Poses, (found * shares[..., None]).sum(0).cpu().numpy())

        return plot_of(p, inputs, read if p.prompt is not None else None, self._side)

    def _portraits(self, p: VideoParameters, plot: Plot, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """What the thing looks like: (B or 1, C, S, h, w), and the poses of those pictures (1, S, 7)."""
        if plot.picture is not None:
            picture, pose = plot.picture
            latent = self._encoded(picture[None])[:, :, None].expand(-1, -1, len(prompts), -1, -1)
            return latent, as_tensor(np.tile(pose, (len(prompts), 1)), self.device)
        drawn = torch.stack([self._draw(p, thing_of(prompt)) for prompt in prompts], 2)
        return drawn, as_tensor(np.tile(PORTRAIT, (len(prompts), 1)), self.device)

    def _draw(self, p: VideoParameters, thing: str) -> Tensor:
        """(B, C, h, w) pictures of a thing, as the image model draws them of these seeds."""
        text, label = text_encoder(self.device)([thing, p.negative]), self._label(p)
        told, away = (
            {"context": text.tokens[i : i + 1], "context_mask": text.mask[i : i + 1], "label": label} for i in range(2)
        )
        guidance = d.guidance.classifier_free(self._painter, cast(float, p.guidance), away)
        preferred = self._image.preferred
        grid = d.grid.shifted(self._painter.process_of(""), int(preferred["steps"]), **self._image.grid)
        side = self._side // self._codec.factor
        return cast(
            Tensor,
            d.sample(
                guidance,
                plan_of(self._image, str(preferred["sampler"]), grid),
                shape=(self._codec.latent, side, side),
                seeds=[int(p.item(number)["seed"]) for number in range(p.count)],
                condition=told,
                device=self.device,
            ),
        )

    def _label(self, p: VideoParameters) -> Tensor | None:
        styles = self._image.conditioners.get("style")
        style = p.style or self._image.defaults.get("style", "any")
        return None if styles is None else torch.tensor([styles.index(style)], device=self.device)

    def _encoded(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """(F, C, h, w) of pictures (F, S, S, 4)."""
        x = to_tensor(np.ascontiguousarray(frames)).to(self.device)
        return torch.cat([self._codec.encode(part) for part in x.split(AT_ONCE)])

    def _grid(self, steps: int) -> Grid:
        return d.grid.shifted(self._process, steps, **{"shift": 1.0, **self.card.grid})

    # --- after sampling -----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def preview(self, clean: Tensor) -> bytes | None:
        """A strip of frames of the first item."""
        chosen = np.linspace(0, clean.shape[2] - 1, min(8, clean.shape[2])).round().astype(int)
        frames = to_pixels(self._codec.decode(clean[0].transpose(0, 1)[chosen]))[..., :3]
        stream = BytesIO()
        strip(frames).save(stream, "PNG")
        return stream.getvalue()

    def decode(
        self, clean: Tensor, parameters: VideoParameters, inputs: Mapping[str, InputFile] = NO_FILES
    ) -> Iterable[VideoClip]:
        """The clips, one after the other; frames that were kept are those that were given, bit for bit.

        Raises:
            Degenerate: the sample has numbers that are not finite.
        """
        with torch.inference_mode():
            prompts = self._prompts(parameters)
            text = text_encoder(self.device)([prompt for _, prompt in prompts] + [parameters.negative])
            plot = self._plot(parameters, inputs, prompts, text)
        sound = _track(inputs, plot.length)
        for number in range(parameters.count):
            yield replace(self._clip(clean[number], parameters, plot), sound=sound)

    @torch.inference_mode()
    def _clip(self, latent: Tensor, p: VideoParameters, plot: Plot) -> VideoClip:
        if not torch.isfinite(latent).all():
            raise Degenerate("the clip has NaN or infinity in it; try another seed, or less guidance")
        parts = [to_pixels(self._codec.decode(part)) for part in latent.transpose(0, 1).split(AT_ONCE)]
        frames = [on(frame, p.background) for frame in np.concatenate(parts)]
        before = plot.given if p.background == "white" else plot.guide
        if before is not None:
            kept = np.ones_like(plot.kept) if plot.strength == 0 else plot.kept
            for number in np.flatnonzero(kept):
                frames[number] = over(before[number], p.background)
        made = np.stack([_enlarged(frame, p.size or self._side) for frame in frames])
        return VideoClip(made, plot.seconds, plot.length, plot.moves and len(frames) > 1, plot.strength == 0)

    def check(self, result: VideoClip) -> None:
        """Refuse a clip of one colour, an empty one, and one in which nothing moves though something should."""
        frames = result.frames
        if result.kept:
            return
        if frames.shape[-1] == 4 and frames[..., 3].max() < LEAST_ALPHA:
            raise Degenerate("the clip is empty, transparent all over; try another seed or prompt")
        if frames.reshape(-1, frames.shape[-1]).astype(np.float32).std(0).max() < 1.0:
            raise Degenerate("the clip is one flat colour; try another seed or prompt")
        if result.moves and still(frames):
            raise Degenerate(
                "the clip is frozen, though the prompt says that something moves; try another seed or prompt"
            )

    def export(self, results: Sequence[VideoClip], format: Format, metadata: Mapping[str, Any]) -> bytes:
        """One clip with its metadata.

        Raises:
            InvalidInput: a transparent clip in a format that has no transparency.
        """
        if results[0].frames.shape[-1] == 4 and format.name in ("mp4", "webm"):
            raise InvalidInput("format", format.name, "gif, webp or zip: these clips have no transparency")
        return write(results[0], format.name, metadata)


def _track(inputs: Mapping[str, InputFile], seconds: float) -> Track | None:
    return read_track("sound", inputs["sound"], seconds) if "sound" in inputs else None


def _shares(begins: Sequence[float], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(S, F) how much each of prompts that follow each other counts: one goes over into the next in half a second."""
    ahead = [np.ones_like(seconds)]
    ahead += [np.clip((seconds - begin) / FADE + 0.5, 0, 1) for begin in begins[1:]]
    ahead.append(np.zeros_like(seconds))
    return np.stack([ahead[i] - ahead[i + 1] for i in range(len(begins))]).clip(0, 1)


def _enlarged(frame: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    if frame.shape[0] == side:
        return frame
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))
