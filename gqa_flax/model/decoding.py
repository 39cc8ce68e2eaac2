"""Autoregressive decoding: greedy, sampling, beam search.

Each is one compiled loop that stops when every sequence has ended. The source
is encoded once and its cross-attention keys and values are projected once, at
num_kv_heads heads; under beam search there is one copy of them per source.
"""

import dataclasses
import functools
from typing import Any

import flax
from flax import traverse_util
import jax
from jax import lax
import jax.numpy as jnp

from gqa_flax.model import network

EOS_ID = 1
# Log probability of what is ruled out (T5X's value).
RULED_OUT = -1.0e7


@dataclasses.dataclass(frozen=True)
class Sampling:
  """Temperature sampling; temperature 0 is greedy.

  Attributes:
    temperature: divides the logits.
    top_k: samples among the k most probable tokens; 0 for all.
    top_p: samples among the fewest tokens that hold this probability; 1 for
      all.
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if self.temperature < 0:
      raise ValueError(
        f'temperature ({self.temperature}) must not be negative.'
      )
    if self.top_k < 0:
      raise ValueError(f'top_k ({self.top_k}) must not be negative.')
    if not 0 < self.top_p <= 1:
      raise ValueError(f'top_p ({self.top_p}) must be in (0, 1].')


@dataclasses.dataclass(frozen=True)
class BeamSearch:
  """Beam search by T5X's rule.

  Candidates that end are taken from the best 2 * num_beams, and the search
  goes on until no live beam can better the worst of the finished ones.

  Attributes:
    num_beams: beams of a source.
    length_penalty: alpha of ((5 + length) / 6)^alpha, which divides the log
      probability; 0 for none.
  """

  num_beams: int = 4
  length_penalty: float = 0.6

  def __post_init__(self):
    if self.num_beams < 1:
      raise ValueError(f'num_beams ({self.num_beams}) must be at least 1.')


Cache = dict[str, Any]


def generate(
  model: network.Transformer,
  params: Any,
  source_tokens: jax.Array,
  *,
  max_decode_length: int,
  method: Sampling | BeamSearch = Sampling(),
  rng: jax.Array | None = None,
  ignore_eos: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Decodes a batch of sources.

  Args:
    model: the network.
    params: its parameters.
    source_tokens: [b, s] integers, 0 is padding.
    max_decode_length: most tokens to decode, the end-of-sequence included.
    method: how; greedy by default.
    rng: key for sampling at a temperature above 0.
    ignore_eos: decodes max_decode_length tokens whatever they are, for
      timing.

  Returns:
    Tokens [b, max_decode_length] int32, 0 after the end, and their log
    probabilities [b]. For beam search [b, n, max_decode_length] and scores
    [b, n], the best first.
  """
  if max_decode_length < 1:
    raise ValueError(
      f'max_decode_length ({max_decode_length}) must be at least 1.'
    )
  if isinstance(method, Sampling) and method.temperature and rng is None:
    raise ValueError('Sampling at a temperature above 0 needs rng, a key.')
  return _generate(
    model,
    params,
    source_tokens,
    rng if rng is not None else jax.random.key(0),
    max_decode_length,
    method,
    ignore_eos,
  )


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _generate(
  model, params, source_tokens, rng, max_decode_length, method, ignore_eos
):
  eos_id = -1 if ignore_eos else EOS_ID
  cross = encode_source(model, params, source_tokens)
  if isinstance(method, BeamSearch):
    step = _step_fn(model, params, cross, source_tokens, max_decode_length)
    return _beam_search(
      step,
      empty_cache(model, source_tokens, method.num_beams, max_decode_length),
      source_tokens.shape[0],
      max_decode_length,
      method,
      eos_id,
    )
  return decode_tokens(
    model,
    params,
    cross,
    source_tokens,
    rng,
    max_decode_length=max_decode_length,
    method=method,
    eos_id=eos_id,
  )


def encode_source(
  model: network.Transformer, params: Any, source_tokens: jax.Array
) -> Cache:
  """Encodes [b, s] and projects it: the cache of cross-attention."""
  encoded = model.apply(
    {'params': params}, source_tokens, enable_dropout=False, method='encode'
  )
  _, variables = model.apply(
    {'params': params}, encoded, method='fill_cache', mutable=['cache']
  )
  return variables['cache']


def empty_cache(
  model: network.Transformer,
  source_tokens: jax.Array,
  num_beams: int,
  max_decode_length: int,
) -> Cache:
  """Zeros for decoder self-attention, [b * num_beams, k, d, length]."""
  source = jnp.ones((source_tokens.shape[0] * num_beams, 1), jnp.int32)
  target = jnp.ones((source.shape[0], max_decode_length), jnp.int32)
  init = functools.partial(model.init, enable_dropout=False, decode=True)
  shapes = jax.eval_shape(init, jax.random.key(0), source, target, target)
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes['cache'])


def merge(self_cache: Cache, cross_cache: Cache) -> Cache:
  """One collection `cache` out of both."""
  return traverse_util.unflatten_dict(
    traverse_util.flatten_dict(self_cache)
    | traverse_util.flatten_dict(cross_cache)
  )


def _step_fn(model, params, cross_cache, source_tokens, max_decode_length):
  """(tokens [n], self-attention cache) -> (logits [n, v], cache)."""
  cross_paths = set(traverse_util.flatten_dict(cross_cache))

  def step(tokens, cache):
    logits, variables = model.apply(
      {'params': params, 'cache': merge(cache, cross_cache)},
      None,  # Cross-attention reads its cache.
      source_tokens,
      tokens[:, None],
      tokens[:, None],
      enable_dropout=False,
      decode=True,
      max_decode_length=max_decode_length,
      method='decode',
      mutable=['cache'],
    )
    flat = traverse_util.flatten_dict(variables['cache'])
    kept = {path: x for path, x in flat.items() if path not in cross_paths}
    return logits[:, 0], traverse_util.unflatten_dict(kept)

  return step


@flax.struct.dataclass
class _SamplingState:
  """State of the loop of `decode_tokens`.

  Attributes:
    index: tokens decoded so far.
    tokens: [b, length] decoded, 0 where not yet or after the end.
    current: [b] last token, the input of the next step.
    ended: [b] whether the end-of-sequence was decoded.
    log_probs: [b] sum of log probabilities of the tokens.
    cache: of self-attention.
    rng: key.
  """

  index: jax.Array
  tokens: jax.Array
  current: jax.Array
  ended: jax.Array
  log_probs: jax.Array
  cache: Cache
  rng: jax.Array


def decode_tokens(
  model: network.Transformer,
  params: Any,
  cross_cache: Cache,
  source_tokens: jax.Array,
  rng: jax.Array,
  *,
  max_decode_length: int,
  method: Sampling = Sampling(),
  eos_id: int = EOS_ID,
) -> tuple[jax.Array, jax.Array]:
  """Greedy or sampled tokens of sources that `encode_source` has read.

  Returns:
    [b, max_decode_length] int32 and log probabilities [b], as `generate`.
  """
  step = _step_fn(model, params, cross_cache, source_tokens, max_decode_length)
  b = source_tokens.shape[0]
  state = _SamplingState(
    index=jnp.zeros((), jnp.int32),
    tokens=jnp.zeros((b, max_decode_length), jnp.int32),
    current=jnp.zeros((b,), jnp.int32),  # T5 starts from padding.
    ended=jnp.zeros((b,), bool),
    log_probs=jnp.zeros((b,), jnp.float32),
    cache=empty_cache(model, source_tokens, 1, max_decode_length),
    rng=rng,
  )

  def goes_on(state):
    return (state.index < max_decode_length) & ~jnp.all(state.ended)

  def body(state):
    logits, cache = step(state.current, state.cache)
    rng, sample_rng = jax.random.split(state.rng)
    token = choose(logits, method, sample_rng)
    chosen = jnp.take_along_axis(logits, token[:, None], 1)[:, 0]
    log_prob = chosen - jax.nn.logsumexp(logits, axis=-1)
    token = jnp.where(state.ended, 0, token)
    return _SamplingState(
      index=state.index + 1,
      tokens=lax.dynamic_update_slice_in_dim(
        state.tokens, token[:, None], state.index, 1
      ),
      current=token,
      ended=state.ended | (token == eos_id),
      log_probs=state.log_probs + jnp.where(state.ended, 0.0, log_prob),
      cache=cache,
      rng=rng,
    )

  state = lax.while_loop(goes_on, body, state)
  return state.tokens, state.log_probs


def choose(logits: jax.Array, method: Sampling, rng: jax.Array) -> jax.Array:
  """Next tokens [b] int32 from logits [b, v]."""
  if method.temperature == 0.0:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  logits = logits / method.temperature
  if 0 < method.top_k < logits.shape[-1]:
    least = lax.top_k(logits, method.top_k)[0][:, -1:]
    logits = jnp.where(logits < least, RULED_OUT, logits)
  if method.top_p < 1.0:
    ordered = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1)
    before -= jax.nn.softmax(ordered)  # probability of the better tokens
    least = jnp.min(
      jnp.where(before < method.top_p, ordered, jnp.inf), -1, keepdims=True
    )
    logits = jnp.where(logits < least, RULED_OUT, logits)
  return jax.random.categorical(rng, logits).astype(jnp.int32)


@flax.struct.dataclass
class _BeamState:
  """State of the loop of `_beam_search`; beams are ordered, the best first.

  Attributes:
    index: tokens decoded so far.
    live_tokens: [b, n, length] of beams that go on.
    live_log_probs: [b, n].
    finished_tokens: [b, n, length] of those that ended.
    finished_scores: [b, n] log probability over length penalty; RULED_OUT
      where there is none yet.
    cache: of self-attention, leaves [b * n, ...].
  """

  index: jax.Array
  live_tokens: jax.Array
  live_log_probs: jax.Array
  finished_tokens: jax.Array
  finished_scores: jax.Array
  cache: Cache


def _penalty(length: Any, alpha: float) -> jax.Array:
  """((5 + length) / 6)^alpha (Wu et al., 2016; T5X `brevity_penalty`)."""
  return jnp.power((5.0 + length) / 6.0, alpha)


def _gather(x: jax.Array, index: jax.Array) -> jax.Array:
  """[b, m, ...] and [b, n] indices of m -> [b, n, ...]."""
  index = index.reshape(index.shape + (1,) * (x.ndim - 2))
  return jnp.take_along_axis(x, index, axis=1)


def _beam_search(
  step, cache, batch, max_decode_length, method, eos_id
) -> tuple[jax.Array, jax.Array]:
  """T5X's beam search; see decoding.py there."""
  b, n, alpha = batch, method.num_beams, method.length_penalty
  tokens = jnp.zeros((b, n, max_decode_length), jnp.int32)
  # All beams begin alike: only the first may be chosen from.
  log_probs = jnp.full((b, n), RULED_OUT).at[:, 0].set(0.0)
  state = _BeamState(
    index=jnp.zeros((), jnp.int32),
    live_tokens=tokens,
    live_log_probs=log_probs,
    finished_tokens=tokens,
    finished_scores=jnp.full((b, n), RULED_OUT),
    cache=cache,
  )

  def goes_on(state):
    # T5X counts the start token into the longest length.
    best_live = state.live_log_probs[:, 0] / _penalty(
      max_decode_length + 1, alpha
    )
    worst_finished = jnp.min(state.finished_scores, axis=1)
    settled = jnp.all(worst_finished > best_live)
    return (state.index < max_decode_length) & ~settled

  def body(state):
    last = lax.dynamic_index_in_dim(
      state.live_tokens, jnp.maximum(state.index - 1, 0), 2, keepdims=False
    )
    last = jnp.where(state.index == 0, 0, last)  # [b, n]
    logits, cache = step(last.reshape(b * n), state.cache)
    return _extend(state, logits.reshape(b, n, -1), cache, alpha, eos_id)

  state = lax.while_loop(goes_on, body, state)
  any_finished = jnp.any(state.finished_scores > RULED_OUT / 2, axis=1)[:, None]
  tokens = jnp.where(
    any_finished[..., None], state.finished_tokens, state.live_tokens
  )
  scores = jnp.where(any_finished, state.finished_scores, state.live_log_probs)
  return tokens, scores


def _extend(state, logits, cache, alpha, eos_id) -> _BeamState:
  """Takes the best 2n continuations: those that end, and n to go on with."""
  b, n, vocab_size = logits.shape
  log_probs = jax.nn.log_softmax(logits) + state.live_log_probs[..., None]
  top_log_probs, top = lax.top_k(log_probs.reshape(b, -1), 2 * n)  # [b, 2n]
  parent, token = top // vocab_size, (top % vocab_size).astype(jnp.int32)
  tokens = lax.dynamic_update_index_in_dim(
    _gather(state.live_tokens, parent), token, state.index, 2
  )  # [b, 2n, length]
  ends = token == eos_id

  live = lax.top_k(jnp.where(ends, RULED_OUT, top_log_probs), n)[1]  # [b, n]
  rows = _gather(parent, live) + jnp.arange(b)[:, None] * n

  def reorder(x):
    return x if x.ndim == 0 else x[rows.reshape(-1)]

  scores = top_log_probs / _penalty(state.index + 1, alpha)
  scores = jnp.concatenate(
    [state.finished_scores, jnp.where(ends, scores, RULED_OUT)], axis=1
  )  # [b, 3n]
  finished = lax.top_k(scores, n)[1]
  all_tokens = jnp.concatenate([state.finished_tokens, tokens], axis=1)
  return _BeamState(
    index=state.index + 1,
    live_tokens=_gather(tokens, live),
    live_log_probs=_gather(jnp.where(ends, RULED_OUT, top_log_probs), live),
    finished_tokens=_gather(all_tokens, finished),
    finished_scores=_gather(scores, finished),
    cache=jax.tree.map(reorder, cache),
  )
