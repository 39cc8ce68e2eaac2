"""The shape of a model.

Field names are those of T5X's examples/t5 `T5Config`, so that its gin files
bind ours; `num_kv_heads` and the default of `float32_attention_logits` are
this project's.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax.numpy as jnp

# Relative position bias of T5: 32 buckets, the last from distance 128 on.
RELATIVE_BUCKETS = 32
RELATIVE_MAX_DISTANCE = 128


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Hyperparameters of a T5.1.1 encoder-decoder.

  Attributes:
    vocab_size: rows of the embedding table, sentinels and padding included.
    dtype: dtype of activations. Parameters are always created in float32.
    emb_dim: width of the residual stream (d_model).
    num_heads: query heads of every attention, and K/V heads of the encoder.
    num_kv_heads: K/V heads of the decoder's self- and cross-attention: G of
      the paper. None means num_heads (multi-head); 1 is multi-query.
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    head_dim: dimension of a head (d_kv).
    mlp_dim: hidden width of the MLP (d_ff).
    mlp_activations: ('gelu', 'linear') is T5.1.1's gated GELU.
    dropout_rate: dropout everywhere T5X has it.
    logits_via_embedding: ties logits to the embedding (T5 1.0; not T5.1.1).
    float32_attention_logits: keeps attention logits and softmax in float32
      whatever dtype is.
  """

  vocab_size: int
  dtype: Any = jnp.float32
  emb_dim: int = 512
  num_heads: int = 8
  num_kv_heads: int | None = None
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  head_dim: int = 64
  mlp_dim: int = 2048
  mlp_activations: Sequence[str] = ('relu',)
  dropout_rate: float = 0.1
  logits_via_embedding: bool = False
  float32_attention_logits: bool = True

  def __post_init__(self):
    if self.num_kv_heads is None:
      object.__setattr__(self, 'num_kv_heads', self.num_heads)
    object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))
    object.__setattr__(self, 'dtype', jnp.dtype(self.dtype))
    for name in (
      'vocab_size',
      'emb_dim',
      'num_heads',
      'num_kv_heads',
      'num_encoder_layers',
      'num_decoder_layers',
      'head_dim',
      'mlp_dim',
    ):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 1:
        raise ValueError(f'{name} ({value!r}) must be a positive integer.')
    check_num_kv_heads(self.num_heads, self.num_kv_heads)
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(f'dropout_rate ({self.dropout_rate}) must be in [0, 1).')


def check_num_kv_heads(num_heads: int, num_kv_heads: int) -> None:
  """Raises ValueError unless num_kv_heads divides num_heads."""
  if num_kv_heads < 1 or num_heads % num_kv_heads:
    valid = [g for g in range(1, num_heads + 1) if num_heads % g == 0]
    raise ValueError(
      f'num_heads ({num_heads}) must be a multiple of num_kv_heads '
      f'({num_kv_heads}); valid num_kv_heads: '
      f'{", ".join(map(str, valid))}.'
    )
