"""Runs Point-E's and Shap-E's networks by our own loop.

Point-E makes 1,024 points from words or a picture, and 4,096 where its upsampler is there; Shap-E makes latents, which
its transmitter decodes to a surface, of which as many points are taken as are wanted.

Coordinates are scaled by 2 and colours to within [-1, 1] inside; estimates are cut off there, as their authors do.
Their shapes stand on z, ours on y.

References:
    Nichol et al., Point-E (2022), section 4.3 and appendix B; Jun and Nichol, Shap-E (2023), section 4.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion import Run
from perrin.errors import Degenerate, InvalidInput, ModelError, NotInstalled
from perrin.inputs import InputFile
from perrin.modality import Format
from perrin.models import ModelCard, models
from perrin.models.plans import plan_of
from perrin.models.weights import load_network
from perrin_shape.cloud import Cloud, check
from perrin_shape.face import ShapeParameters
from perrin_shape.foreign import DECODER, UPSAMPLER
from perrin_shape.pictures import preview
from perrin_shape.point_e import PointE
from perrin_shape.reading import centred
from perrin_shape.shap_e import Decoder
from perrin_shape.writing import exported

__all__ = ["GuestRuntime", "cloud_of"]

NO_FILES: Mapping[str, InputFile] = {}

COARSE = 1024
"""Points of the first stage."""


def cloud_of(clean: Tensor) -> Cloud:
    """Of an estimate (6, n): y up, centred, the farthest point at distance one.

    Raises:
        ValueError: all points are at one place.
    """
    x, y, z = (clean[:3].double().cpu().numpy() / 2).astype(np.float32)
    colours = ((clean[3:].float().cpu().numpy().T + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    return centred(Cloud(np.stack([x, z, -y], 1), None, colours))


class GuestRuntime:
    """A base network of Point-E's or Shap-E's on one device, with what goes with it where that was added.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(self, card: ModelCard, device: str, network: PointE) -> None:
        self.card, self.device, self._network = card, device, network
        self._denoiser = d.Denoiser(network, d.process.from_config(card.process), card.prediction, variance=True)
        self._clip: Any = None
        self._decoder: Decoder | None = None

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the network of ``card`` onto ``device``."""
        name = next(iter(card.architecture))
        network = load_network(card, name, device, kinds={"point_e": PointE})
        return cls(card, device, cast(PointE, network))

    @torch.inference_mode()
    def start(self, parameters: ShapeParameters, inputs: Mapping[str, InputFile] = NO_FILES) -> Run:
        """Tell the network words or a picture, and draw the starting noise.

        Raises:
            InvalidInput: what this model does not know: a shape, a picture or words of the wrong kind, too many points.
        """
        p = parameters
        if p.seed is None or p.steps is None or p.sampler is None or p.guidance is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        if "cloud" in inputs:
            raise InvalidInput("cloud", "a shape", f"none: model {self.card.name} begins with words or a picture")
        if p.category is not None:
            raise InvalidInput("category", p.category, f"none: model {self.card.name} has no classes")
        self._stages(p)
        condition: dict[str, Tensor] = {}
        if self._network.told != "none":
            condition = {"clip": self._told(p, inputs)}
        away = {name: torch.zeros_like(value) for name, value in condition.items()}
        guidance: Any = self._denoiser
        if condition:
            guidance = d.guidance.classifier_free(self._denoiser, p.guidance, away)
        return d.start(
            d.guidance.clipped(guidance),
            plan_of(self.card, p.sampler, d.grid.karras(self._denoiser.process_of(""), p.steps)),
            shape=(self._network.channels, self._network.positions or COARSE),
            seeds=[int(p.item(number)["seed"]) for number in range(p.count)],
            condition=condition,
            device=self.device,
        )

    def _stages(self, p: ShapeParameters) -> ModelCard | None:
        """The card of what goes with the network, where it is needed: the upsampler, or Shap-E's decoder.

        Raises:
            InvalidInput: it is needed and not there, or more points are asked for than it makes.
            ModelError: Shap-E's decoder is not there.
        """
        if self._network.positions:
            for card in models().values():
                if DECODER in card.architecture and card.base == "shap-e":
                    return card
            wanted = "its decoder is not here (perrin models add transmitter.pt)"
            raise ModelError(f"model {self.card.name} makes latents of Shap-E, and {wanted}")
        if p.points is None or p.points <= COARSE:
            return None
        found = [card for card in models().values() if UPSAMPLER in card.architecture and card.modality == "shape"]
        if not found:
            wanted = f"at most {COARSE}: Point-E's upsampler is not here (perrin models add upsample_40m.pt)"
            raise InvalidInput("points", p.points, wanted)
        if p.points > found[0].data["points"]:
            raise InvalidInput("points", p.points, f"at most {found[0].data['points']}, which Point-E makes")
        return found[0]

    def _told(self, p: ShapeParameters, inputs: Mapping[str, InputFile]) -> Tensor:
        """(1, size) or (1, m, size) by CLIP."""
        model, processor = self._reader()
        if "image" in inputs:
            try:
                picture = Image.open(io.BytesIO(inputs["image"].data)).convert("RGB")
            except (OSError, ValueError, Image.DecompressionBombError):
                raise InvalidInput("image", inputs["image"].media_type, "a picture that can be read") from None
            pixels = processor(images=picture, return_tensors="pt")["pixel_values"].to(self.device)
            if self._network.told == "grid":
                return cast(Tensor, model.vision_model(pixel_values=pixels).last_hidden_state[:, 1:])
            seen = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
            return torch.nn.functional.normalize(seen, dim=-1)
        if self._network.told == "grid":
            raise InvalidInput("image", None, f"a picture: model {self.card.name} is told nothing else")
        words = processor(text=[p.prompt or ""], return_tensors="pt", padding=True, truncation=True).to(self.device)
        text = model.text_model(input_ids=words["input_ids"], attention_mask=words["attention_mask"]).pooler_output
        return torch.nn.functional.normalize(model.text_projection(text), dim=-1)

    def _reader(self) -> Any:
        """CLIP and what prepares its inputs, once."""
        if self._clip is None:
            folder = Path(str(self.card.data.get("clip") or "none"))
            if not folder.is_dir():
                raise ModelError(
                    f"model {self.card.name} is told by CLIP ViT-L/14, which is not here: put its folder (as "
                    "transformers writes it) beside the checkpoint, and add that again"
                )
            try:
                from transformers import CLIPModel, CLIPProcessor
            except ImportError:
                raise NotInstalled("CLIP", "hub") from None
            try:
                model = CLIPModel.from_pretrained(folder, local_files_only=True).eval().to(self.device)
                self._clip = model, CLIPProcessor.from_pretrained(folder, local_files_only=True)
            except (OSError, ValueError) as error:
                raise ModelError(f"{folder} holds no CLIP: {str(error).splitlines()[0][:160]}") from None
        return self._clip

    @torch.inference_mode()
    def preview(self, clean: Tensor) -> bytes | None:
        """The first cloud as it is believed to be; None for latents."""
        if self._network.positions:
            return None
        try:
            return preview(cloud_of(clean[0]), 128)
        except ValueError:
            return None

    @torch.inference_mode()
    def decode(
        self, clean: Tensor, parameters: ShapeParameters, inputs: Mapping[str, InputFile] = NO_FILES
    ) -> Iterator[Any]:
        """Clouds, one by one, with more points where that was asked for.

        Raises:
            Degenerate: the sample has numbers that are not finite, or all points at one place.
        """
        from perrin_shape.runtime import Made

        p = parameters
        beside = self._stages(p)
        wanted = p.points or COARSE
        for number, item in enumerate(clean):
            if not torch.isfinite(item).all():
                raise Degenerate("the sample has NaN or infinity in it; try another seed, or less guidance")
            seed = int(p.item(number)["seed"])
            if self._network.positions and beside is not None:
                yield Made(self._decoded(beside, item, p.points or 4 * COARSE, seed), p.mesh)
                continue
            points = item if beside is None else self._finer(beside, item, p, seed)
            chosen = torch.from_numpy(np.random.default_rng(seed).permutation(points.shape[1])[:wanted])
            try:
                yield Made(cloud_of(points[:, chosen]), p.mesh)
            except ValueError:
                raise Degenerate(
                    "all points of the shape lie in one place; try another seed, or less guidance"
                ) from None

    def _decoded(self, card: ModelCard, latents: Tensor, count: int, seed: int) -> Cloud:
        if self._decoder is None:
            self._decoder = cast(Decoder, load_network(card, DECODER, self.device, kinds={DECODER: Decoder}))
        if (self._decoder.vectors, card.architecture[DECODER]["latent"]) != tuple(latents.T.shape):
            raise ModelError(f"model {card.name} decodes latents of another size than {self.card.name} makes")
        found = self._decoder.cloud(latents.T.contiguous(), count, seed)
        if found is None:
            raise Degenerate("the shape has no surface; try another seed, prompt, or less guidance")
        return centred(found)

    def _finer(self, card: ModelCard, coarse: Tensor, p: ShapeParameters, seed: int) -> Tensor:
        """(6, 4096) of (6, 1024): the points that are there, and those between them."""
        network = cast(PointE, load_network(card, UPSAMPLER, self.device, kinds={UPSAMPLER: PointE, "point_e": PointE}))
        process = d.process.from_config(card.process)
        denoiser = d.Denoiser(network, process, card.prediction, variance=True)
        condition = {"coarse": coarse[None]}
        if network.told == "grid":
            condition["clip"] = torch.zeros(1, 256, network.size, device=coarse.device)  # it is told no picture
        made = d.sample(
            d.guidance.clipped(denoiser),
            plan_of(card, str(p.sampler), d.grid.karras(process, cast(int, p.steps))),
            shape=(6, card.data["points"] - COARSE),
            seeds=[seed],
            condition=condition,
            device=self.device,
        )
        return torch.cat([coarse, made[0]], 1)

    def check(self, result: Any) -> None:
        """Refuse a cloud that has collapsed."""
        check(result.cloud)

    def export(self, results: Sequence[Any], format: Format, metadata: Mapping[str, Any]) -> bytes:
        """One shape with its metadata: points, a mesh of them, or a picture of it."""
        return exported(results[0].cloud, results[0].how, format, metadata)
