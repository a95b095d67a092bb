"""Attention among the pixels of an image, and among tokens."""

import equinox as eqx
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.dit import Tokens
from sgm.nn.layers import GroupNorm, Image, Linear, attend


def attend_pixels(qkv: Float[Array, "height width triples"], heads: int, order: str) -> Image:
    """Softmax attention among the pixels, in heads.

    Arguments:
        qkv: Queries, keys and values, as the channels of one image.
        heads: Number of heads.
        order: Order in which the channels enumerate heads (h), features of a head (c) and queries, keys and values (t),
            such as "t h c" where all queries come first.
    """
    query, key, value = rearrange(qkv, f"y x ({order}) -> t (y x) (h c)", t=3, h=heads)
    return attend_tokens(query, key, value, heads).reshape(*qkv.shape[:2], -1)


def attend_tokens(query: Tokens, key: Tokens, value: Tokens, heads: int) -> Tokens:
    """Softmax attention among tokens, in heads that follow one another among the features."""
    query, key, value = (rearrange(part, "p (h c) -> h p c", h=heads) for part in (query, key, value))
    return rearrange(attend(query, key, value), "h p c -> p (h c)")


class PixelAttention(eqx.Module):
    """Softmax attention among the pixels, added to its input; the sum is divided by `output_scale_factor`.

    It has channels // head_dim heads, of `head_dim` features each.
    """

    group_norm: GroupNorm | None
    to_q: Linear
    to_k: Linear
    to_v: Linear
    to_out: list[Linear]
    heads: int = eqx.field(static=True)
    output_scale_factor: float = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        head_dim: int,
        groups: int | None,
        eps: float,
        output_scale_factor: float = 1.0,
        *,
        key: PRNGKeyArray,
    ):
        self.heads, self.output_scale_factor = channels // head_dim, output_scale_factor
        if self.heads < 1:
            raise ValueError(
                f"UNet2DModel: attention_head_dim = {head_dim}, but there are {channels} channels, too few for one "
                "head; pass a smaller one, or None for one head."
            )
        key_q, key_k, key_v, key_out = jr.split(key, 4)
        width = self.heads * head_dim
        self.group_norm = None if groups is None else GroupNorm(channels, groups, eps)
        self.to_q, self.to_k, self.to_v = (Linear(channels, width, key=key) for key in (key_q, key_k, key_v))
        self.to_out = [Linear(width, channels, key=key_out)]

    def __call__(self, x: Image) -> Image:
        hidden = x if self.group_norm is None else self.group_norm(x)
        tokens = hidden.reshape(-1, x.shape[-1])
        mixed = attend_tokens(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), self.heads)
        return (x + self.to_out[0](mixed).reshape(x.shape)) / self.output_scale_factor
