"""Grouped-query attention: one path for multi-head, grouped and multi-query.

Section 2.2 of the paper (arXiv 2305.13245): the h query heads are divided
into k contiguous groups, each with one key and one value head. Query head n
reads K/V head n // g.

Legend, used in every shape comment of this package:
  b batch, t query position, s key position, h query heads, k K/V heads,
  g = h / k query heads per K/V head, d head_dim, e embed, v vocab.

Keys and values are held as [b, k, d, s] (T5X's cache layout), training and
decoding alike.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from gqa_flax.model import config as config_lib
from gqa_flax.model import layers

# Added to logits that a mask forbids (T5X's value).
MASKED_LOGIT = -1e10

kernel_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')


def grouped_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  bias: jax.Array | None = None,
  mask: jax.Array | None = None,
  float32_logits: bool = True,
  dropout: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
  """Attention of h query heads over k <= h key and value heads.

  Logits are not scaled by 1/sqrt(d): T5 folds that into the initialiser of
  the query kernel. The g query heads of a group are laid behind one another
  along the query axis, so that every K/V head meets one matrix product.

  Args:
    query: [b, t, h, d].
    key: [b, k, d, s], k a divisor of h.
    value: [b, k, d, s].
    bias: [1 or b, h, t, s], added to the logits.
    mask: boolean [1 or b, 1 or h, 1 or t, s], True where a query may read.
    float32_logits: computes logits and softmax in float32 whatever the dtype
      of query is.
    dropout: applied to the weights [b, k, g, t, s].

  Returns:
    [b, t, h, d] in the dtype of query.
  """
  b, t, h, d = query.shape
  k, s = key.shape[1], key.shape[3]
  if h % k:
    raise ValueError(
      f'num_heads ({h}) must be a multiple of num_kv_heads ({k}).'
    )
  g = h // k
  dtype = query.dtype
  query = query.reshape(b, t, k, g, d).transpose(0, 2, 3, 1, 4)  # [b,k,g,t,d]
  logits = jnp.einsum(
    'bkqd,bkds->bkqs',
    query.reshape(b, k, g * t, d),
    key,
    # bfloat16 logits would lose the small differences softmax turns on.
    preferred_element_type=jnp.float32 if float32_logits else None,
  ).reshape(b, k, g, t, s)
  if bias is not None:
    bias = _broadcast_batch(bias.astype(logits.dtype), b)
    logits += _split_heads(bias, k, g)
  if mask is not None:
    logits = jnp.where(_split_heads(mask, k, g), logits, MASKED_LOGIT)
  weights = jax.nn.softmax(logits).astype(dtype)
  if dropout is not None:
    weights = dropout(weights)
  x = jnp.einsum(
    'bkqs,bkds->bkqd', weights.reshape(b, k, g * t, s), value
  ).reshape(b, k, g, t, d)
  return x.transpose(0, 3, 1, 2, 4).reshape(b, t, h, d)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _broadcast_batch(bias: jax.Array, batch: int) -> jax.Array:
  """[1 or b, h, t, s] -> [b, h, t, s].

  The gradient sums over the batch by a product with ones: XLA on CPU takes
  tens of times longer for the plain sum over the slowest axis.
  """
  return jnp.broadcast_to(bias, (batch,) + bias.shape[1:])


def _broadcast_batch_fwd(bias, batch):
  return _broadcast_batch(bias, batch), bias.shape[0]


def _broadcast_batch_bwd(batch, bias_batch, gradient):
  if bias_batch == batch:
    return (gradient,)
  summed = jnp.ones((1, batch), gradient.dtype) @ gradient.reshape(batch, -1)
  return (summed.reshape(1, *gradient.shape[1:]),)


_broadcast_batch.defvjp(_broadcast_batch_fwd, _broadcast_batch_bwd)


def _split_heads(x: jax.Array, k: int, g: int) -> jax.Array:
  """[b, 1 or h, t, s] -> [b, 1, 1, t, s] or [b, k, g, t, s]."""
  if x.shape[1] == 1:
    return x[:, :, None]
  return x.reshape(x.shape[0], k, g, *x.shape[2:])


class GroupedQueryAttention(nn.Module):
  """Attention layer with num_kv_heads key and value heads.

  It has the signature of T5X's `MultiHeadDotProductAttention` and, with
  num_kv_heads = num_heads, its parameters, so it can stand in its place.

  Two caches, both in the collection `cache`:
    Self-attention with decode=True keeps `cached_key` and `cached_value`
    [b, k, d, length] and the scalar `cache_index`, one position a call.
    Cross-attention keeps the first two after `fill_cache`, projected once
    for a source; calls then ignore inputs_kv. A query batch that is a
    multiple of the cache's (beams of one source, adjacent) shares its rows.

  Attributes:
    num_heads: query heads h.
    head_dim: d.
    num_kv_heads: key and value heads k; None means num_heads.
    dtype: dtype of the computation.
    dropout_rate: dropout of attention weights, the same for all positions.
    kernel_init: initialiser; the query's is divided by sqrt(head_dim).
    float32_logits: keeps logits and softmax in float32.
  """

  num_heads: int
  head_dim: int
  num_kv_heads: int | None = None
  dtype: Any = jnp.float32
  dropout_rate: float = 0.0
  kernel_init: Callable[..., jax.Array] = kernel_init
  float32_logits: bool = True

  def setup(self):
    self.groups = self.num_kv_heads or self.num_heads
    config_lib.check_num_kv_heads(self.num_heads, self.groups)
    self.key = self._projection(self.groups, self.kernel_init)
    self.value = self._projection(self.groups, self.kernel_init)

  def _projection(self, heads: int, init, **kwargs) -> layers.Dense:
    return layers.Dense(
        heads * self.head_dim, ('embed', 'joined_kv'), init, self.dtype,
        **kwargs,
    )  # fmt: skip

  def _project_kv(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[b, s, e] -> key and value [b, k, d, s]."""

    def split(x):
      x = x.reshape(x.shape[:-1] + (self.groups, self.head_dim))
      x = layers.constrain(x, ('batch', 'length', 'kv_heads', 'kv'))
      return jnp.moveaxis(x, 1, 3)

    return split(self.key(inputs)), split(self.value(inputs))

  def fill_cache(self, inputs_kv: jax.Array) -> None:
    """Projects a source [b, s, e] once and keeps its keys and values."""
    key, value = self._project_kv(inputs_kv)
    self.put_variable('cache', 'cached_key', key)
    self.put_variable('cache', 'cached_value', value)

  @nn.compact
  def __call__(
    self,
    inputs_q: jax.Array,
    inputs_kv: jax.Array,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    decode: bool = False,
    deterministic: bool = False,
  ) -> jax.Array:
    """[b, t, e] and [b, s, e] -> [b, t, e].

    Args:
      inputs_q: [b, t, e] where queries come from.
      inputs_kv: [b, s, e] where keys and values come from.
      mask: [b, 1 or h, t, s], boolean or positive where a query may read.
      bias: [1 or b, h, t, s]; in decoding all rows, or the current one.
      decode: self-attention reads and writes its cache, t = 1. The first
        call, without a cache, makes one of the length of its inputs.
      deterministic: switches dropout off.
    """
    b, t, e = inputs_q.shape
    query_init = lambda *args: (
      self.kernel_init(*args) / jnp.sqrt(self.head_dim).astype(self.dtype)
    )
    query = self._projection(self.num_heads, query_init, name='query')(inputs_q)
    query = query.reshape(b, t, self.num_heads, self.head_dim)
    query = layers.constrain(query, ('batch', 'length', 'heads', 'kv'))

    if not decode and self.has_variable('cache', 'cached_key'):
      key = self.get_variable('cache', 'cached_key')
      value = self.get_variable('cache', 'cached_value')
    else:
      key, value = self._project_kv(inputs_kv)
      if decode:
        key, value, mask, bias = self._decode_step(key, value, mask, bias)
    if mask is not None:
      mask = mask > 0

    # Beams of one source, adjacent in the batch, are further query positions.
    query = query.reshape(key.shape[0], -1, *query.shape[2:])
    x = grouped_attention(
      query,
      key,
      value,
      bias=bias,
      mask=mask,
      float32_logits=self.float32_logits,
      dropout=self._dropout(deterministic),
    )
    x = x.reshape(b, t, self.num_heads * self.head_dim)
    return layers.Dense(
      e, ('joined_kv', 'embed'), self.kernel_init, self.dtype, name='out'
    )(x)

  def _decode_step(self, key, value, mask, bias):
    """Adds one position to the cache; returns what attention then reads."""
    initialized = self.has_variable('cache', 'cached_key')
    cached_key = self.variable('cache', 'cached_key', jnp.zeros_like, key)
    cached_value = self.variable('cache', 'cached_value', jnp.zeros_like, value)
    cache_index = self.variable(
      'cache', 'cache_index', lambda: jnp.array(0, jnp.int32)
    )
    if not initialized:
      return key, value, mask, bias
    if key.shape[3] != 1:
      raise ValueError(
        f'Decoding takes one position a call, not {key.shape[3]}.'
      )
    index = cache_index.value
    length = cached_key.value.shape[3]
    update = lambda cache, x: lax.dynamic_update_slice_in_dim(
      cache, x.astype(cache.dtype), index, 3
    )
    cached_key.value = update(cached_key.value, key)
    cached_value.value = update(cached_value.value, value)
    cache_index.value = index + 1
    written = (jnp.arange(length) <= index)[None, None, None]  # [1, 1, 1, s]
    mask = written if mask is None else jnp.logical_and(mask > 0, written)
    if bias is not None and bias.shape[2] > 1:
      bias = lax.dynamic_slice_in_dim(bias, index, 1, 2)
    return cached_key.value, cached_value.value, mask, bias

  def _dropout(self, deterministic: bool):
    """Dropout of weights [b, k, g, t, s], broadcast over t as T5 does."""
    if deterministic or self.dropout_rate == 0.0:
      return None
    rng = self.make_rng('dropout')

    def apply(weights):
      shape = weights.shape[:3] + (1,) + weights.shape[4:]
      keep = jax.random.bernoulli(rng, 1.0 - self.dropout_rate, shape)
      return weights * keep.astype(weights.dtype) / (1.0 - self.dropout_rate)

    return apply
