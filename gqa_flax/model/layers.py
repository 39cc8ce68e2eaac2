"""Layers of T5.1.1 other than attention: dense, MLP, embedding, norm, bias.

Parameter names, shapes, initialisers and logical axes are those of T5X's
examples/t5/layers.py, so that its checkpoints load unchanged.
"""

from collections.abc import Callable, Sequence
import functools
import operator
from typing import Any

from flax import linen as nn
from flax.linen import partitioning
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

Dtype = Any
Initializer = Callable[..., jax.Array]

param_with_axes = partitioning.param_with_axes
constrain = partitioning.with_sharding_constraint

mlp_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')


class Dense(nn.Module):
  """A matrix product without bias: [..., in] -> [..., features].

  The kernel is 2-D [in, features] whatever its columns stand for (T5X keeps
  heads joined, as `joined_kv`).
  """

  features: int
  kernel_axes: tuple[str, str]
  kernel_init: Initializer = mlp_init
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    kernel = param_with_axes(
      'kernel',
      self.kernel_init,
      (inputs.shape[-1], self.features),
      jnp.float32,
      axes=self.kernel_axes,
    )
    return flat_matmul(inputs.astype(self.dtype), kernel.astype(self.dtype))


def flat_matmul(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
  """[..., i] x [i, o] -> [..., o] as one 2-D product.

  With the leading axes joined the gradients are 2-D products too; XLA on CPU
  runs those about twice as fast as the 3-D form.
  """
  flat = inputs.reshape((-1, inputs.shape[-1])) @ kernel
  return flat.reshape(inputs.shape[:-1] + (kernel.shape[-1],))


class MlpBlock(nn.Module):
  """Gated MLP: product of activations of parallel projections, then `wo`."""

  intermediate_dim: int
  activations: Sequence[str]
  dropout_rate: float = 0.1
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, inputs: jax.Array, *, deterministic: bool = False
  ) -> jax.Array:
    single = len(self.activations) == 1
    hidden = [
      _activation(name)(
        Dense(
          self.intermediate_dim,
          ('embed', 'mlp'),
          dtype=self.dtype,
          name='wi' if single else f'wi_{i}',
        )(inputs)
      )
      for i, name in enumerate(self.activations)
    ]
    x = functools.reduce(operator.mul, hidden)
    x = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))(
      x, deterministic=deterministic
    )
    x = constrain(x, ('batch', 'length', 'mlp'))
    return Dense(
      inputs.shape[-1], ('mlp', 'embed'), dtype=self.dtype, name='wo'
    )(x)


def _activation(name: str) -> Callable[[jax.Array], jax.Array]:
  if name == 'linear':
    return lambda x: x
  if not hasattr(nn, name):
    raise ValueError(
      f'mlp_activations ({name!r}) must name functions of flax.linen or be '
      "'linear'."
    )
  return getattr(nn, name)


class Embed(nn.Module):
  """Token embedding [vocab, embed]."""

  num_embeddings: int
  features: int
  dtype: Dtype = jnp.float32

  def setup(self):
    self.embedding = param_with_axes(
      'embedding',
      nn.initializers.normal(stddev=1.0),
      (self.num_embeddings, self.features),
      jnp.float32,
      axes=('vocab', 'embed'),
    )

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """[b, t] integers -> [b, t, e]."""
    x = self.embedding.astype(self.dtype)[tokens]
    return constrain(x, ('batch', 'length', 'embed'))

  def attend(self, x: jax.Array) -> jax.Array:
    """[b, t, e] -> [b, t, v] float32 logits by the transposed table."""
    return jnp.dot(x.astype(jnp.float32), self.embedding.T)


class LayerNorm(nn.Module):
  """Root-mean-square norm: no mean, no bias (T5). Statistics in float32."""

  epsilon: float = 1e-6
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(lax.square(x), axis=-1, keepdims=True)
    y = (x * lax.rsqrt(mean_square + self.epsilon)).astype(self.dtype)
    scale = param_with_axes(
        'scale', nn.initializers.ones, (x.shape[-1],), jnp.float32,
        axes=('embed',),
    )  # fmt: skip
    return y * scale.astype(self.dtype)


def relative_position_bucket(
  relative_position: np.ndarray,
  *,
  bidirectional: bool,
  num_buckets: int,
  max_distance: int,
) -> np.ndarray:
  """Bucket of key position minus query position.

  Half of the buckets hold one distance each, the others grow with its
  logarithm up to max_distance, beyond which all share the last.

  Args:
    relative_position: integers of any shape, key minus query position.
    bidirectional: whether keys to the right have buckets of their own.
    num_buckets: number of buckets.
    max_distance: distance from which all positions share a bucket.

  Returns:
    int32 of the same shape in [0, num_buckets).

  Source: T5X examples/t5/layers.py, `_relative_position_bucket`.
  """
  offset = 0
  distance = -relative_position
  if bidirectional:
    num_buckets //= 2
    offset = (distance < 0).astype(np.int32) * num_buckets
    distance = np.abs(distance)
  else:
    distance = np.maximum(distance, 0)
  max_exact = num_buckets // 2
  epsilon = np.finfo(np.float32).eps
  log_ratio = np.log(
    distance.astype(np.float32) / max_exact + epsilon
  ) / np.log(max_distance / max_exact)
  large = max_exact + (log_ratio * (num_buckets - max_exact)).astype(np.int32)
  large = np.minimum(large, num_buckets - 1)
  return offset + np.where(distance < max_exact, distance, large)


class RelativePositionBiases(nn.Module):
  """Bias of attention logits by bucketed distance, one table per stack."""

  num_buckets: int
  max_distance: int
  num_heads: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    query_length: int,
    key_length: int,
    bidirectional: bool = True,
    query_index: jax.Array | None = None,
  ) -> jax.Array:
    """Returns [1, h, t, s], or the row [1, h, 1, s] of one query.

    Args:
      query_length: t.
      key_length: s.
      bidirectional: whether keys to the right have buckets of their own.
      query_index: integer scalar in [0, t); None for all rows.
    """
    table = param_with_axes(
      'rel_embedding',
      nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform'),
      (self.num_heads, self.num_buckets),
      jnp.float32,
      axes=('heads', 'relpos_buckets'),
    )
    t, s = query_length, key_length
    buckets = relative_position_bucket(
      np.arange(1 - t, s),  # key minus query position
      bidirectional=bidirectional,
      num_buckets=self.num_buckets,
      max_distance=self.max_distance,
    )
    # One value for each distance, by a product with a small one-hot, whose
    # gradient is a product too (a scatter-add would be slow): [h, t + s - 1].
    by_distance = table.astype(self.dtype) @ jax.nn.one_hot(
      buckets, self.num_buckets, axis=0, dtype=self.dtype
    )
    if query_index is not None:
      row = lax.dynamic_slice_in_dim(by_distance, t - 1 - query_index, s, 1)
      return row[None, :, None]
    return lay_diagonals(by_distance, t)[None]


def lay_diagonals(values: jax.Array, num_rows: int) -> jax.Array:
  """Toeplitz matrices: [h, t + s - 1] -> [h, t, s].

  Entry (i, j) is values[:, j - i + t - 1]. Each row, written one element
  longer than its stride, starts one element earlier than the row before; so
  no gather is needed, and the gradient is a pad and a sum.
  """
  h, length = values.shape
  rows = jnp.pad(values, ((0, 0), (0, 1)))  # [h, t + s]
  rows = jnp.broadcast_to(rows[:, None], (h, num_rows, length + 1))
  flat = rows.reshape(h, -1)[:, : num_rows * length]
  return flat.reshape(h, num_rows, length)[:, :, num_rows - 1 :]
