"""U-Net and transformer against the same networks put together from diffusers' parts, with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import PatchEmbed, TimestepEmbedding, apply_rotary_emb, get_timestep_embedding
from diffusers.models.normalization import RMSNorm
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn import DiffusionTransformer, UNet


def awake(network: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.08 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim < 2) * 0.5)
    return network.eval()


def copy(theirs: nn.Module, ours: Any, renamed: dict[str, str]) -> Any:
    """``theirs`` with the weights of ``ours``: every one of them, and each once."""
    weights = dict(ours.state_dict())
    found = {
        name: weights.pop(renamed.get(name.rpartition(".")[0], name.rpartition(".")[0]) + "." + name.rpartition(".")[2])
        for name in theirs.state_dict()
    }
    assert not weights, f"left over: {list(weights)}"
    theirs.load_state_dict(found)
    return theirs.eval()


# --- U-Net ------------------------------------------------------------------------------------------------------------


class TheirUNet(nn.Module):
    """The same U-Net of diffusers' residual blocks and attention."""

    def __init__(self, ours: UNet, widths: tuple[int, ...], head: int, context: int) -> None:
        super().__init__()
        self.ours = [ours]
        self.head, self.context = head, context
        self.time = TimestepEmbedding(widths[0], 4 * widths[0])
        copy(self.time, ours.time, {"linear_1": "0", "linear_2": "2"})

    def block(self, place: Any, x: Tensor, c: Tensor, context: Tensor) -> Tensor:
        narrow, wide = place.block.norm1.num_channels, place.block.norm2.num_channels
        theirs = ResnetBlock2D(
            in_channels=narrow,
            out_channels=wide,
            temb_channels=c.shape[1],
            groups=place.block.norm1.num_groups,
            groups_out=place.block.norm2.num_groups,
            eps=1e-5,
            time_embedding_norm="scale_shift",
            kernel="fir",
            up=place.block.resamples == 1,
            down=place.block.resamples == -1,
            conv_shortcut_bias=True,
        )
        copy(theirs, place.block, {"time_emb_proj": "condition", "conv_shortcut": "skip"})
        x = theirs(x, c)
        for layer, wanted in ((place.attention, None), (place.cross, context)):
            if layer is not None:
                x = x + self.attend(layer, x.flatten(2).mT, wanted).mT.reshape(x.shape)
        return x

    def attend(self, layer: Any, tokens: Tensor, context: Tensor | None) -> Tensor:
        width = tokens.shape[2]
        theirs = Attention(
            width, None if context is None else context.shape[2], width // self.head, dim_head=self.head, bias=True
        )
        k, v = layer.kv.weight.chunk(2), layer.kv.bias.chunk(2)
        weights = {"to_q.weight": layer.q.weight, "to_q.bias": layer.q.bias, "to_out.0.weight": layer.out.weight}
        weights |= {"to_out.0.bias": layer.out.bias, "to_k.weight": k[0], "to_v.weight": k[1]}
        theirs.load_state_dict(weights | {"to_k.bias": v[0], "to_v.bias": v[1]})
        out: Tensor = theirs(F.layer_norm(tokens, (width,), layer.norm.weight, layer.norm.bias), context)
        return out

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        (ours,) = self.ours
        features = get_timestep_embedding(
            t, ours.frequencies, flip_sin_to_cos=True, downscale_freq_shift=0, scale=ours.time_scale
        )
        assert ours.pooled is not None
        c = self.time(features) + ours.pooled(context.mean(1))
        kept = [ours.embed(x)]
        for place in ours.down:
            kept.append(self.block(place, kept[-1], c, context))
        h = kept[-1]
        for place in ours.middle:
            h = self.block(place, h, c, context)
        for place in ours.up:
            if not place.block.resamples:  # type: ignore[union-attr]
                h = torch.cat([h, kept.pop()], 1)
            h = self.block(place, h, c, context)
        out: Tensor = ours.out(F.silu(ours.norm(h)))
        return out


@pytest.mark.parametrize("widths", [(16, 32), (32, 48, 64)])
def test_the_unet_is_diffusers(widths: tuple[int, ...]) -> None:
    ours = awake(UNet(3, widths, 2, (1,), head=8, context=12))
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 3, 16, 24, generator=generator), torch.randn(2, 5, 12, generator=generator)
    t = torch.tensor([0.03, 0.9])
    with torch.no_grad():
        wanted = TheirUNet(ours, widths, 8, 12)(x, t, context)
        found = ours(x, t, context)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


# --- transformer ------------------------------------------------------------------------------------------------------


def their_transformer(ours: Any, x: Tensor, t: Tensor, context: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    """The same transformer of diffusers' embeddings, feed-forward layers, norms and rotations."""
    width, heads, p = ours.width, ours.heads, ours.patch
    head, grid = width // heads, (x.shape[2] // p, x.shape[3] // p)
    embed = PatchEmbed(x.shape[2], x.shape[3], p, ours.channels, width, pos_embed_type=None)
    embed.proj.weight.data = ours.embed.weight.view(width, ours.channels, p, p)
    embed.proj.bias.data = ours.embed.bias  # type: ignore[union-attr]
    time = copy(TimestepEmbedding(256, width), ours.time, {"linear_1": "0", "linear_2": "2"})
    features = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=0, scale=ours.time_scale)
    pooled = (context * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    c = F.silu(time(features) + ours.pooled(pooled) + ours.label(label))
    modulation, keys = ours.modulation(c).view(-1, 6, width), ours.context(context)

    each = head // 4
    frequencies = torch.pi / 2 * 100.0 ** (-torch.arange(each) / each)
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angle = torch.cat([rows.flatten()[:, None] * frequencies, columns.flatten()[:, None] * frequencies], 1)
    turns = (angle.cos().repeat(1, 2), angle.sin().repeat(1, 2))
    norm = RMSNorm(head, eps=1e-6 / head, elementwise_affine=False)
    split = lambda y: y.unflatten(-1, (heads, head)).transpose(1, 2)  # noqa: E731

    h = embed(x)
    for block in ours.blocks:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + block.table).unsqueeze(2).unbind(1)
        told = F.layer_norm(h, (width,)) * (1 + scale1) + shift1
        q, k, v = (split(part) for part in block.qkv(told).chunk(3, -1))
        q, k = norm(q) * block.q_gain / head**0.5, norm(k) / head**0.5
        q, k = (apply_rotary_emb(part, turns, use_real_unbind_dim=-2) for part in (q, k))
        seen = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        h = h + gate1 * block.self_out(seen.transpose(1, 2).flatten(2))
        cross = Attention(width, width, heads, dim_head=head, bias=True)
        k_weight, v_weight = block.cross_kv.weight.chunk(2)
        k_bias, v_bias = block.cross_kv.bias.chunk(2)
        cross.load_state_dict(
            {"to_q.weight": block.cross_q.weight, "to_q.bias": block.cross_q.bias, "to_k.weight": k_weight}
            | {"to_k.bias": k_bias, "to_v.weight": v_weight, "to_v.bias": v_bias}
            | {"to_out.0.weight": block.cross_out.weight, "to_out.0.bias": block.cross_out.bias}
        )
        bias = torch.zeros(mask.shape).masked_fill(~mask, -1e4)[:, None]
        h = h + cross(F.layer_norm(h, (width,)), keys, bias)
        feed = FeedForward(width, inner_dim=block.down.in_features, activation_fn="swiglu", bias=True)
        copy(feed, nn.ModuleDict({"up": block.up, "down": block.down}), {"net.0.proj": "up", "net.2": "down"})
        h = h + gate2 * feed(F.layer_norm(h, (width,)) * (1 + scale2) + shift2)
    shift, scale = ours.last_modulation(c).unsqueeze(1).chunk(2, -1)
    out = ours.out(F.layer_norm(h, (width,)) * (1 + scale) + shift)
    return F.fold(out.mT, x.shape[2:], p, stride=p)


@pytest.mark.parametrize("patch", [1, 2])
def test_the_transformer_is_diffusers(patch: int) -> None:
    ours = awake(DiffusionTransformer(4, 48, 3, 3, 80, patch, context=20, classes=3))
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 4, 8, 12, generator=generator), torch.randn(2, 5, 20, generator=generator)
    mask, t, label = torch.arange(5) < torch.tensor([[2], [5]]), torch.tensor([0.03, 0.9]), torch.tensor([1, 3])
    with torch.no_grad():
        wanted = their_transformer(ours, x, t, context, mask, label)
        found = ours(x, t, context, mask, label)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
