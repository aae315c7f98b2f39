"""What every family's pipeline has: words, a network that samplers can ask, and a way from latents to data.

A pipeline holds the parts of one checkpoint and knows how its family is asked. It samples nothing: a guidance and a
plan of `perrin.diffusion` ask its network as they ask any other, ``network(x, t, **condition)``.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from perrin.models.card import ModelCard
from perrin.models.checkpoints.families import FAMILIES
from perrin.models.checkpoints.loading import DTYPES, dtype_for, load_part, load_tokenizer, quietly, read_config
from perrin.models.checkpoints.measuring import Measured, remembered
from perrin.models.checkpoints.streaming import streamed
from perrin.nn.lora import Adapted

__all__ = ["Asked", "Pipeline", "Words"]

KEPT = 256
"""Prompts whose embeddings are kept: a text is encoded once."""

Adapters = Mapping[str, dict[str, Tensor]]

Words = dict[str, Tensor]
"""What a text becomes: conditions of leading dimension 1."""


class Asked(nn.Module):
    """A family's network as samplers ask it; subclasses say how. In the network's own dtype, whatever the sampler's."""

    rolls = False
    """It has positions, so that a ring rolls; see `perrin.nn.circular.Ring`."""

    network: Any

    ask: Callable[..., Any]
    """One evaluation, everything in the network's dtype but the times."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.dtype = next(p.dtype for p in network.parameters() if p.is_floating_point())

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """(B, ...) noisy samples at times (B,) to what the network predicts."""
        condition = {name: value.to(self.dtype) if _floats(value) else value for name, value in condition.items()}
        answer: Tensor = self.ask(x.to(self.dtype), t, **condition)
        return answer.to(x.dtype)


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


class Pipeline(nn.Module):
    """A checkpoint on a device.

    Args:
        card: of the model.
        device: where it runs.
        dtype: of the networks; what suits the device if None.
        stream: leave the weights in their files, and read each layer's when it is called.
        measured: how it runs fastest; what is remembered of this machine if None.

    Attributes:
        network: asked by samplers; takes LoRA weights of single samples as conditions (`perrin.nn.lora.Adapted`).
        core: the denoising network itself.
    """

    asked: type[Asked]
    """How the family's network is asked."""

    def __init__(
        self,
        card: ModelCard,
        device: str,
        dtype: torch.dtype | None = None,
        stream: bool = False,
        measured: Measured | None = None,
    ) -> None:
        super().__init__()
        assert card.checkpoint is not None
        self.card, self.device = card, device
        self.options: Mapping[str, Any] = card.checkpoint.options
        self.family = FAMILIES[card.checkpoint.family]
        self.measured = Measured() if stream else measured or remembered(card, device)
        self.dtype = dtype or DTYPES.get(self.measured.dtype) or dtype_for(card, device, stream)
        self.tokenizers = {
            name: load_tokenizer(card, name)
            for name in self.family.tokenizers
            if any(file.startswith(f"{name}/") for file in card.files)
        }
        for part in card.checkpoint.parts:
            if part in self.family.parts:
                read = streamed if stream else load_part
                self.add_module(part, read(card, part, device, self.dtype))
        self.core: nn.Module = self.made()
        if self.measured.channels_last:
            self.core.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.measured.xformers:
            cast(Any, self.core).enable_xformers_memory_efficient_attention()
        if self.measured.tiled and hasattr(self, "vae"):
            self.part("vae").enable_tiling()
        self.network = Adapted(self.asked(self.core), of=self.core)
        if self.measured.compiled:
            # The tracer remarks on how the libraries are written, once for each place.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\._dynamo")
            self.core.compile()
        self._known: OrderedDict[tuple[str, str], Words] = OrderedDict()
        self._readers: dict[str, Adapted] = {}
        self._longer: dict[str, str] = {}

    def made(self) -> nn.Module:
        """The denoising network, once the parts are there."""
        return self.get_submodule(self.family.network)

    def part(self, name: str) -> Any:
        """A part."""
        return self.get_submodule(name)

    def config(self, name: str) -> dict[str, Any]:
        """How a part describes itself."""
        return read_config(self.card.folder / name)

    @torch.inference_mode()
    def words(self, texts: Sequence[str], adapters: Adapters | None = None, key: str = "") -> list[Words]:
        """The condition that each text becomes; texts that were met lately cost nothing.

        Args:
            texts: any number.
            adapters: of the encoders, by the names of these, as `perrin.nn.lora.Adapted.under` takes them.
            key: tells adapters apart.
        """
        new = [text for text in dict.fromkeys(texts) if (text, key) not in self._known]
        if new:
            with contextlib.ExitStack() as stack:
                for name, weights in (adapters or {}).items():
                    stack.enter_context(self._reader(name).under(weights))
                for text, found in zip(new, self.read(new), strict=True):
                    self._known[text, key] = found
        made = [self._known[text, key] for text in texts]
        for text in texts:
            self._known.move_to_end((text, key))
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return made

    def _reader(self, name: str) -> Adapted:
        """An encoder that takes adapters."""
        if name not in self._readers:
            self._readers[name] = Adapted(self.part(name))
        return self._readers[name]

    def learn(self, token: str, vectors: Mapping[str, Tensor]) -> None:
        """Teach the encoders a word.

        Args:
            token: as it is written.
            vectors: by encoder, (n, width): the word is heard as so many.
        """
        for name, rows in vectors.items():
            tokenizer, encoder = self.tokenizers["tokenizer" + name.removeprefix("text_encoder")], self.part(name)
            heard = [token, *(f"{token}_{number}" for number in range(1, len(rows)))]
            tokenizer.add_tokens(heard)
            with quietly():
                encoder.resize_token_embeddings(max(len(tokenizer), encoder.config.vocab_size))
            table = encoder.get_input_embeddings().weight
            for place, row in zip(tokenizer.convert_tokens_to_ids(heard), rows, strict=True):
                table.data[place] = row.to(table)
            self._longer[token] = " ".join(heard)
        self.forget()

    def forget(self) -> None:
        """Let go of all embeddings: an encoder has changed."""
        self._known.clear()

    def read(self, texts: Sequence[str]) -> list[Words]:
        """`words` of texts that are new."""
        raise NotImplementedError

    def about(self, width: int, height: int, guidance: float) -> dict[str, Tensor]:
        """Conditions of every branch that come from the size and the scale of guidance."""
        return {}

    def away(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The condition of the branch that is steered away from, where it is more than another text's."""
        return dict(condition)

    @property
    def guides_itself(self) -> bool:
        """The network answers guided; it may be told the scale."""
        return False

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """Of one sample for a picture of this size in pixels."""
        raise NotImplementedError

    def tokens(self, width: int, height: int) -> int:
        """How many the network sees of one sample, where its times depend on that."""
        return 0

    def encode(self, x: Tensor) -> Tensor:
        """Samples of data in [-1, 1]."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Data, about [-1, 1], of samples."""
        raise NotImplementedError

    def ids(self, tokenizer: str, texts: Sequence[str], length: int | None = None) -> Any:
        """Texts as numbers, padded and cut to ``length``, the most that the tokenizer says if None."""
        made = self.tokenizers[tokenizer]
        for token, heard in self._longer.items():
            texts = [text.replace(token, heard) for text in texts]
        return made(
            list(texts), padding="max_length", max_length=length or made.model_max_length, truncation=True,
            return_tensors="pt",
        ).to(self.device)  # fmt: skip
