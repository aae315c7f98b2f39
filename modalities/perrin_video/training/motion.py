"""Trains the layers along time of a video model, beside an image model that is not trained.

A clip's network is given the picture of the thing that moves, clean, and its frames at one noise level; some of the
frames are given as well, now and then, which is how a clip is continued, filled in between, or begun with a picture.

References:
    Blattmann et al., Align your Latents (2023), section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.errors import ModelError
from perrin.modality import Progress
from perrin.models import find
from perrin.models.weights import load_network
from perrin.nn import Autoencoder, DiffusionTransformer
from perrin.nn.text import text_encoder
from perrin.training.objective import Objective
from perrin_video.clips import FRAMES, PORTRAIT, draw_clip, held_out, render
from perrin_video.motions import KINDS, Motion, pose
from perrin_video.network import MotionLayers, MotionReader, VideoTransformer
from perrin_video.training.dataset import LENGTH, Clips, Pictures, load_clips, load_pictures, to_tensor

__all__ = ["MotionTask", "ReaderTask"]

SHIFT = 2.5


class Batch(NamedTuple):
    """Latents (B, C, F, h, w) and what goes with them, see `VideoTransformer`."""

    latents: Tensor
    portrait: Tensor
    tokens: Tensor
    mask: Tensor
    label: Tensor
    pose: Tensor
    seconds: Tensor
    kept: Tensor
    causal: bool


class MotionTask:
    """Options: ``base`` (the image model), ``layers`` (arguments of `MotionLayers`), ``objective``, ``clips`` (how many
    are made), ``frames`` (of each in a batch), ``text_dropout``, ``given`` (how often some of the frames are given).

    Data: ``pictures`` (``package.module:function``), ``emphasis``.
    """

    weights = "motion"
    clips: Clips
    pictures: Pictures

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._data, self._folders = dict(options), dict(data), dict(folders)
        self.card = find(str(options.get("base", "emoji-64")), "image")
        image = load_network(self.card, "transformer")
        if not isinstance(image, DiffusionTransformer) or "autoencoder" not in self.card.architecture:
            raise ModelError(f"base {self.card.name}: wanted a transformer of latents")
        torch.manual_seed(0)
        motion = MotionLayers(**self.options.get("layers", {}))
        reader = self._folders["model"] / "reader.safetensors"
        if reader.exists():
            motion.reader.load_state_dict({k: v.float() for k, v in load_file(reader).items()})
        motion.reader.requires_grad_(False)
        self.network: nn.Module = VideoTransformer(image, motion)
        self.codec = cast(Autoencoder, load_network(self.card, "autoencoder"))
        self.objective = Objective.model_validate(
            {"process": self.card.process, "prediction": self.card.prediction, **self.options.get("objective", {})}
        )
        self._loss = self.objective.loss()

    def prepare(self, progress: Progress) -> None:
        """Fetch the pictures, render and encode the clips."""
        self.pictures = load_pictures(self._data, self._folders["data"], progress)
        count = int(self.options.get("clips", 6000))
        self.clips = load_clips(self.pictures, self.codec, self.card, self._folders["data"] / "video", progress, count)

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Clips, some of their frames."""
        return self._batch(generator.integers(len(self.clips.captions), size=size), generator)

    def _batch(self, chosen: np.ndarray[Any, np.dtype[np.int64]], generator: np.random.Generator) -> Batch:
        clips, frames = self.clips, int(self.options.get("frames", 4))
        total = clips.poses.shape[1]
        latents, poses, seconds, kept = [], [], [], np.zeros((len(chosen), frames), bool)
        for row, number in enumerate(chosen):
            if generator.random() < 0.5:
                which = np.sort(generator.choice(total, frames, replace=False))
            else:
                stride = int(generator.integers(1, max(2, total // frames)))
                which = int(generator.integers(total - stride * (frames - 1))) + stride * np.arange(frames)
            if generator.random() < self.options.get("given", 0.25):
                given = generator.integers(1, frames)
                kept[row, generator.choice(frames, given, replace=False)] = True
            latents.append(clips.latents[number][[0, *(1 + which)]])
            poses.append(clips.poses[number][which])
            seconds.append(clips.seconds[number][which])
        mute = generator.random(len(chosen)) < self.options.get("text_dropout", 0.1)
        mask = np.array(clips.mask[chosen])
        tokens = np.array(clips.tokens[chosen], np.float32)
        tokens[mute], mask[mute] = self._null[0], self._null[1]
        z = torch.from_numpy(np.stack(latents).astype(np.float32)).transpose(1, 2).contiguous()
        return Batch(
            z[:, :, 1:].contiguous(),
            z[:, :, :1].contiguous(),
            torch.from_numpy(tokens),
            torch.from_numpy(mask),
            torch.from_numpy(np.array(clips.styles[chosen])),
            torch.from_numpy(np.stack(poses)),
            torch.from_numpy(np.stack(seconds)),
            torch.from_numpy(kept),
            bool(generator.random() < self.options.get("causal", 0.15)),
        )

    @property
    def _null(self) -> tuple[Any, Any]:
        if not hasattr(self, "_nothing"):
            text = text_encoder()([""], LENGTH)
            self._nothing = (text.tokens[0].numpy(), text.mask[0].numpy())
        return self._nothing

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective's, of the frames that are not given."""
        condition = {
            "context": batch.tokens, "context_mask": batch.mask, "label": batch.label, "pose": batch.pose,
            "seconds": batch.seconds, "given": batch.latents, "kept": batch.kept, "portrait": batch.portrait,
            "portrait_pose": torch.from_numpy(PORTRAIT)[None], "causal": batch.causal,
        }  # fmt: skip
        loss, numbers = self._loss(network, batch.latents, condition, generator)
        share = (~batch.kept).float().mean()
        return loss / share, numbers

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The loss on clips of pictures that were held out; draws some of those, each below what it should be."""
        video = cast(VideoTransformer, network)
        rows, aims = [], []
        held = list(self.pictures.held_out)
        noto = [i for i in held if self.pictures.records[i].style == "noto"] or held
        frames = 8
        process = d.process.from_config(self.card.process)
        plan = d.solvers.dpmpp_2m(d.grid.shifted(process, 12, shift=SHIFT))
        denoiser = d.Denoiser(video, process, self.card.prediction)
        count = int(self.options.get("samples", 10))
        for number in range(count):
            generator = np.random.default_rng([number, 7])
            chosen = int(noto[number * 7 % len(noto)])
            clip = draw_clip(self.pictures.records, chosen, generator, frames)
            aim = render(to_tensor(self.pictures.pixels[chosen]), np.concatenate([PORTRAIT, clip.poses]))
            aims.append(aim)
            rows.append((clip, self.codec.encode(aim)))
        text = text_encoder()([clip.caption for clip, _ in rows], LENGTH)
        z = torch.stack([latent for _, latent in rows]).transpose(1, 2)
        styles = self.card.conditioners["style"]
        condition = {
            "context": text.tokens, "context_mask": text.mask,
            "label": torch.full((count,), styles.index("noto")),
            "pose": torch.from_numpy(np.stack([clip.poses for clip, _ in rows])),
            "seconds": torch.from_numpy(np.stack([clip.seconds for clip, _ in rows]).astype(np.float32)),
            "portrait": z[:, :, :1], "portrait_pose": torch.from_numpy(PORTRAIT)[None],
        }  # fmt: skip
        z = z[:, :, 1:]
        made = d.sample(denoiser, plan, shape=z.shape[1:], seeds=list(range(count)), condition=condition)
        error = (made - z).square().mean()
        shown = torch.stack(
            [
                torch.stack([aim[:, :3], self.codec.decode(m.transpose(0, 1))[:, :3]])
                for aim, m in zip([aim[1:] for aim in aims], made, strict=True)
            ]
        )
        sheet = ((shown.clamp(-1, 1) + 1) * 127.5).byte().flatten(0, 1).permute(0, 3, 1, 4, 2)
        Image.fromarray(sheet.reshape(sheet.shape[0] * 64, -1, 3).numpy()).save(path)
        return {"latent_error": float(error)}

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged layers as bf16, and what the card says of them."""
        state = cast(VideoTransformer, network).motion.state_dict()
        save_file({key: value.bfloat16().contiguous() for key, value in state.items()}, folder / "motion.safetensors")
        (folder / "reader.safetensors").unlink(missing_ok=True)
        side = self.card.sizes[0][0]
        return {
            "architecture": {"motion": {"kind": "motion", **self.options.get("layers", {})}},
            "image": self.card.name,
            "process": self.card.process,
            "grid": {"shift": SHIFT},
            "prediction": self.card.prediction,
            "conditioners": {
                "prompt": "minilm",
                "motion": list(KINDS),
                "style": self.card.conditioners.get("style", []),
            },
            "sizes": [[side * factor, side * factor] for factor in (1, 2, 4)],
            "data": {
                "clips": len(self.clips.captions),
                "pictures": len(self.pictures.train),
                "held_out_pictures": len(self.pictures.held_out),
                "held_out_combinations": len(held_out()),
                "frames": FRAMES,
                "window": FRAMES,
                "fps": 8.0,
                "size": 4 * side,
                "shared_noise": self.objective.shared_noise,
            },
            "attributions": [
                {"source": f"{package} {version}", "licence": licence, "line": line}
                for package, version, licence, line in self.pictures.attributions
            ],
        }


class ReaderTask:
    """What reads motion out of captions; options: ``reader`` (arguments of `MotionReader`), ``captions`` (how many).

    It needs no pictures but their captions.
    """

    weights = "reader"

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._data, self._folders = dict(options), dict(data), dict(folders)
        torch.manual_seed(0)
        self.network: nn.Module = MotionReader(**self.options.get("reader", {}))

    def prepare(self, progress: Progress) -> None:
        """Make captions and encode them."""
        self.pictures = load_pictures(self._data, self._folders["data"], progress)
        count, rng = int(self.options.get("captions", 20000)), np.random.default_rng(5)
        self.motions, texts = [], []
        for _ in range(count):
            chosen = int(rng.choice(self.pictures.train, p=self.pictures.weights))
            clip = draw_clip(self.pictures.records, chosen, rng, 2, plain=True)
            self.motions.append(clip.motion)
            texts.append(clip.caption)
        path = self._folders["out"] / f"captions-{count}.npz"
        if not path.exists():
            tokens, mask = np.zeros((count, LENGTH, 384), np.float16), np.zeros((count, LENGTH), bool)
            for begin in range(0, count, 250):
                text = text_encoder()(texts[begin : begin + 250], LENGTH)
                tokens[begin : begin + 250] = text.tokens[:, :LENGTH].half().numpy()
                mask[begin : begin + 250] = text.mask[:, :LENGTH].numpy()
                progress(begin, count, "encoding captions")
            np.savez(path, tokens=tokens, mask=mask)
        stored = np.load(path)
        self._tokens, self._mask = stored["tokens"], stored["mask"]

    def batch(self, size: int, generator: np.random.Generator) -> tuple[Tensor, ...]:
        """Tokens, mask, seconds and poses."""
        chosen = generator.integers(len(self.motions), size=size)
        begin = np.where(generator.random(size) < 0.7, 0.0, generator.uniform(0, 7, size))
        seconds = begin[:, None] + generator.uniform(0, 2.2, (size, 12))
        poses = np.stack([pose(self.motions[i], s) for i, s in zip(chosen, seconds, strict=True)])
        return (
            torch.from_numpy(self._tokens[chosen].astype(np.float32)),
            torch.from_numpy(self._mask[chosen]),
            torch.from_numpy(seconds.astype(np.float32)),
            torch.from_numpy(poses),
        )

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared and plain distance of the poses, each number alike.

        The plain one alone gets stuck where most captions agree: what few of them say, to the left and to the right,
        cancels in the median.
        """
        tokens, mask, seconds, aim = batch
        error = (network(tokens, mask, seconds) - aim).abs()
        paid = 2 * error.square() + 0.2 * error
        return paid.mean(), {"place": error[..., :2].mean().detach(), "turn": error[..., 3:5].mean().detach()}

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The mean error, over the first two seconds, for the captions of the held-out combinations."""
        entries = held_out()
        text = text_encoder()([entry["caption"] for entry in entries], LENGTH)
        seconds = torch.arange(16).float() / 8
        aim = np.stack([pose(Motion(e["kind"], e.get("speed", "")), seconds.numpy()) for e in entries])
        made = network(text.tokens, text.mask, seconds.expand(len(entries), -1))
        error = (made - torch.from_numpy(aim)).abs()
        scale = (error.mean((1, 2)) * 255 * 4).clamp(max=255).byte()
        Image.fromarray(scale[None].expand(8, -1).contiguous().numpy()).save(path)
        worst = int(error.mean((1, 2)).argmax())
        print({"worst": entries[worst]["caption"], "error": float(error[worst].mean())})
        return {"held_out_pose_error": float(error.mean()), "worst": float(error.mean((1, 2)).max())}

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Leave it for the next stage, which ships it."""
        state = {key: value.float().contiguous() for key, value in network.state_dict().items()}
        save_file(state, folder / "reader.safetensors")
        return {}
