"""Time of encoding and decoding, by the paper's protocol.

The output length is fixed and the end-of-sequence ignored, so that every model
makes the same steps; batch and lengths are stated; encoding and decoding are
timed apart; compilation is outside, and each clock stops when the device has
finished (section 3.1 of the paper times the whole; it states batch and
lengths by task).

All models are timed in turn within each round, in rotating order, so that
whatever else the machine does meets all of them alike.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gqa_flax.model import decoding
from gqa_flax.model import network

# No token has this id: decoding never ends early.
_NO_EOS = -1


@dataclasses.dataclass(frozen=True)
class Shape:
  """What is decoded.

  Attributes:
    batch_size: samples decoded together.
    input_length: tokens of each source, none of them padding.
    output_length: steps of decoding.
    encode_batch_size: samples encoded at once, a divisor of batch_size; None
      for all. The encoder's attention takes memory by the square of
      input_length.
  """

  batch_size: int
  input_length: int
  output_length: int
  encode_batch_size: int | None = None

  def __post_init__(self):
    for name in ('batch_size', 'input_length', 'output_length'):
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f'{name} ({value}) must be at least 1.')
    if self.batch_size % self.encode_rows:
      raise ValueError(
        f'encode_batch_size ({self.encode_batch_size}) must divide '
        f'batch_size ({self.batch_size}).'
      )

  @property
  def encode_rows(self) -> int:
    return self.encode_batch_size or self.batch_size


def time_models(
  models: Mapping[str, tuple[network.Transformer, Any]],
  shape: Shape,
  rounds: int = 10,
  *,
  seed: int = 0,
  progress: Callable[[], Any] = lambda: None,
) -> dict[str, dict[str, Any]]:
  """Times models side by side.

  Args:
    models: name -> (model, parameters).
    shape: of the batch.
    rounds: how often each is timed.
    seed: of the tokens.
    progress: called after each round.

  Returns:
    name -> {'encode_seconds', 'decode_seconds': a list each, by round, of
    seconds a batch; 'compile_seconds'}.
  """
  if rounds < 1:
    raise ValueError(f'rounds ({rounds}) must be at least 1.')
  runs, results = {}, {}
  for name, (model, params) in models.items():
    start = time.perf_counter()
    tokens = _source_tokens(model.config.vocab_size, shape, seed)
    runs[name] = _compile(model, params, tokens, shape)
    results[name] = {
      'encode_seconds': [],
      'decode_seconds': [],
      'compile_seconds': time.perf_counter() - start,
    }
  names = list(models)
  for i in range(rounds):
    turn = i % len(names)
    for name in names[turn:] + names[:turn]:
      encode, decode = runs[name]
      seconds, cross_cache = _clock(encode)
      results[name]['encode_seconds'].append(seconds)
      seconds, _ = _clock(functools.partial(decode, cross_cache))
      results[name]['decode_seconds'].append(seconds)
    progress()
  return results


def _source_tokens(vocab_size: int, shape: Shape, seed: int) -> jax.Array:
  """Random ids [b, s] that are neither padding nor end-of-sequence."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(
    min(3, vocab_size - 1), vocab_size, (shape.batch_size, shape.input_length)
  )
  return jnp.asarray(tokens, jnp.int32)


def _compile(model, params, tokens, shape: Shape):
  """(encode() -> cache, decode(cache) -> tokens), compiled and run once."""
  rows = shape.encode_rows
  encode_rows = (
    jax.jit(functools.partial(decoding.encode_source, model))
    .lower(params, tokens[:rows])
    .compile()
  )
  parts = [tokens[i : i + rows] for i in range(0, len(tokens), rows)]

  def encode():
    caches = [encode_rows(params, part) for part in parts]
    if len(caches) == 1:
      return caches[0]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *caches)

  decode_all = compiled_decode(model, params, encode(), tokens, shape)
  decode = functools.partial(decode_all, params)
  jax.block_until_ready(decode(encode()))  # Warms up.
  return encode, decode


def compiled_decode(model, params, cross_cache, tokens, shape: Shape):
  """decode(params, cross_cache) -> [b, output_length], greedy."""

  def decode(params, cross_cache):
    return decoding.decode_tokens(
      model,
      params,
      cross_cache,
      tokens,
      jax.random.key(0),
      max_decode_length=shape.output_length,
      eos_id=_NO_EOS,
    )[0]

  return jax.jit(decode).lower(params, cross_cache).compile()


def _clock(function: Callable[[], Any]) -> tuple[float, Any]:
  start = time.perf_counter()
  result = jax.block_until_ready(function())
  return time.perf_counter() - start, result


def spread(values: Sequence[float]) -> dict[str, float]:
  """median, q1, q3, n."""
  q1, median, q3 = np.quantile(
    np.asarray(values, np.float64), (0.25, 0.5, 0.75)
  )
  return {
    'median': float(median),
    'q1': float(q1),
    'q3': float(q3),
    'n': len(values),
  }


def summarize(measured: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
  """What is reported of one model.

  Returns:
    Each {median, q1, q3, n}, in milliseconds: encode_ms_per_sample,
    decode_ms_per_sample, ms_per_sample (both), decode_ms_per_step (a step
    decodes a token of every sample of the batch).
  """
  encode = np.asarray(measured['encode_seconds'])
  decode = np.asarray(measured['decode_seconds'])
  per_sample = 1000 / shape.batch_size
  return {
    'encode_ms_per_sample': spread(encode * per_sample),
    'decode_ms_per_sample': spread(decode * per_sample),
    'ms_per_sample': spread((encode + decode) * per_sample),
    'decode_ms_per_step': spread(decode * 1000 / shape.output_length),
  }
