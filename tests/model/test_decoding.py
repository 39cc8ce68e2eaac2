"""Decoding: against full passes, a plain numpy search, and itself."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.model import decoding
from tests.model import tiny
from tests.oracles import beam_reference

LENGTH = 8
by_kv_heads = pytest.mark.parametrize('num_kv_heads', tiny.KV_HEADS)


@functools.cache
def case(num_kv_heads):
  """Model, parameters and ragged sources [4, s]."""
  model, params = tiny.model_and_params(tiny.config(num_kv_heads), seed=1)
  kernel = params['decoder']['logits_dense']['kernel']
  params['decoder']['logits_dense']['kernel'] = kernel * 1.5
  return model, params, tiny.sources(batch=4)


@functools.cache
def full_pass(num_kv_heads):
  """(sources [n, s], tokens [n, LENGTH]) -> their logits, compiled once.

  Every position counts, also one where padding was decoded.
  """
  model, params, _ = case(num_kv_heads)

  @jax.jit
  def run(sources, tokens):
    shifted = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    ones = jnp.ones_like(tokens)
    return tiny.logits(model, params, sources, ones, decoder_inputs=shifted)

  return run


def next_logits(num_kv_heads, source):
  """Next-token logits of prefixes of one source, by full passes."""

  def run(prefixes):
    tokens = np.zeros((4, LENGTH), np.int32)  # of one shape, to compile once
    for row, prefix in zip(tokens, prefixes):
      row[: len(prefix)] = prefix
    sources = np.repeat(source[None], len(tokens), axis=0)
    logits = full_pass(num_kv_heads)(sources, tokens)
    return np.asarray(logits)[: len(prefixes), len(prefixes[0])]

  return run


def search(num_kv_heads, source, **kwargs):
  return beam_reference.beam_search(
    next_logits(num_kv_heads, source), max_length=LENGTH, **kwargs
  )


def until_end(row) -> list[int]:
  """Tokens up to and including the end of sequence."""
  tokens = np.asarray(row).tolist()
  return tokens[: tokens.index(1) + 1] if 1 in tokens else tokens


@by_kv_heads
def test_greedy_takes_the_best_token_of_the_full_pass(num_kv_heads):
  model, params, sources = case(num_kv_heads)
  tokens, log_probs = decoding.generate(
    model, params, sources, max_decode_length=LENGTH
  )
  assert tokens.shape == (4, LENGTH) and tokens.dtype == jnp.int32
  logits = np.asarray(full_pass(num_kv_heads)(sources, tokens))
  of_all = np.asarray(jax.nn.log_softmax(logits))
  for row, best, log_prob, of_row in zip(
    tokens, logits.argmax(axis=-1), log_probs, of_all
  ):
    decoded = until_end(row)
    assert decoded == best[: len(decoded)].tolist()
    total = sum(of_row[i, token] for i, token in enumerate(decoded))
    np.testing.assert_allclose(log_prob, total, atol=1e-4)


@by_kv_heads
def test_beam_search_with_one_beam_is_greedy_but_for_ends(num_kv_heads):
  """T5X lets a beam end among the best 2; where none does, it is greedy."""
  model, params, sources = case(num_kv_heads)
  greedy, _ = decoding.generate(
    model, params, sources, max_decode_length=LENGTH
  )
  tokens, _ = decoding.generate(
    model,
    params,
    sources,
    max_decode_length=LENGTH,
    method=decoding.BeamSearch(num_beams=1, length_penalty=0.0),
  )
  assert tokens.shape == (4, 1, LENGTH)
  compared = 0
  for i, source in enumerate(sources):
    wide = search(num_kv_heads, source, num_beams=1, alpha=0.0)
    narrow = search(num_kv_heads, source, num_beams=1, alpha=0.0, end_among=1)
    assert narrow.tokens[0] == until_end(greedy[i])
    assert wide.tokens[0] == until_end(tokens[i, 0])
    compared += wide.tokens == narrow.tokens
  assert compared


@by_kv_heads
@pytest.mark.parametrize('alpha', [0.0, 0.6])
def test_beam_search_agrees_with_a_plain_search(num_kv_heads, alpha):
  model, params, sources = case(num_kv_heads)
  tokens, scores = decoding.generate(
    model,
    params,
    sources,
    max_decode_length=LENGTH,
    method=decoding.BeamSearch(num_beams=4, length_penalty=alpha),
  )
  assert tokens.shape == (4, 4, LENGTH) and scores.shape == (4, 4)
  for i, source in enumerate(sources):
    expected = search(num_kv_heads, source, num_beams=4, alpha=alpha)
    found = [until_end(row) for row in tokens[i]]
    assert found[: len(expected.tokens)] == expected.tokens
    np.testing.assert_allclose(
      scores[i, : len(expected.scores)], expected.scores, atol=1e-4
    )


def table_step(table, ends_at=()):
  """A decoder step whose logits are a row of [length, v] at each position.

  Row i of the batch wants the end of sequence at ends_at[i].
  """

  def step(tokens, cache):
    index = cache['index']
    logits = jnp.broadcast_to(table[index], (tokens.shape[0], table.shape[1]))
    for row, end in enumerate(ends_at):
      logits = logits.at[row, 1].set(jnp.where(index == end, 50.0, -50.0))
    return logits, {'index': index + 1}

  return step


def counted(step, counts):
  def run(tokens, cache):
    jax.debug.callback(lambda: counts.append(1))
    return step(tokens, cache)

  return run


def test_greedy_stops_when_all_have_ended(monkeypatch):
  counts = []
  table = jax.random.normal(jax.random.key(0), (20, 9))
  step = counted(table_step(table, ends_at=(2, 4, 1)), counts)
  monkeypatch.setattr(decoding, '_step_fn', lambda *_: step)
  cache = {'index': jnp.zeros((), jnp.int32)}
  monkeypatch.setattr(decoding, 'empty_cache', lambda *_: cache)

  def run(eos_id):
    counts.clear()
    tokens, _ = decoding.decode_tokens(
      None, None, None, jnp.ones((3, 2)), jax.random.key(0),
      max_decode_length=20, eos_id=eos_id,
    )  # fmt: skip
    jax.effects_barrier()
    return len(counts), (np.asarray(tokens) > 0).sum(axis=-1)

  steps, _ = run(decoding.EOS_ID)
  assert steps == 5  # positions 0 to 4
  steps, _ = run(-1)  # as under ignore_eos
  assert steps == 20


def test_beam_search_stops_when_no_beam_can_be_bettered():
  counts = []
  table = jnp.full((30, 9), -9.0).at[:3, 4].set(5.0).at[3:, 1].set(9.0)
  cache = {'index': jnp.zeros((), jnp.int32)}
  method = decoding.BeamSearch(num_beams=2, length_penalty=0.0)
  step = counted(table_step(table), counts)
  decoding._beam_search(step, cache, 3, 30, method, 1)
  jax.effects_barrier()
  expected = beam_reference.beam_search(
    lambda prefixes: np.repeat(table[None, len(prefixes[0])], len(prefixes), 0),
    num_beams=2,
    max_length=30,
    alpha=0.0,
  )
  assert len(counts) == expected.steps < 10


def test_ignore_eos_decodes_every_position():
  model, params, sources = case(2)
  run = functools.partial(
    decoding.generate, model, params, sources, max_decode_length=24
  )
  tokens, _ = run(ignore_eos=True)
  ended, _ = run()
  lengths = [len(until_end(row)) for row in ended]
  assert min(lengths) < 24
  for row, other, length in zip(tokens, ended, lengths):
    np.testing.assert_array_equal(row[:length], other[:length])
    assert (np.asarray(other)[length:] == 0).all()
    assert length == 24 or (np.asarray(row)[length:] > 0).any()


def loops_of(jaxpr):
  """Every `while` equation, at any depth."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'while':
      yield eqn
    for sub in jax.extend.core.jaxprs_in_params(eqn.params):
      yield from loops_of(sub)


def shapes_of(jaxpr):
  for eqn in jaxpr.eqns:
    yield from (x.aval.shape for x in eqn.outvars)
    for sub in jax.extend.core.jaxprs_in_params(eqn.params):
      yield from shapes_of(sub)


@pytest.mark.parametrize(
  'method',
  [
    decoding.Sampling(),
    decoding.Sampling(temperature=0.7, top_k=5, top_p=0.9),
    decoding.BeamSearch(num_beams=3),
  ],
)
def test_decoding_is_one_loop_that_never_projects_the_source(method):
  """Cross-attention K/V are made before it: one copy of a source, G heads."""
  model, params, _ = case(2)
  sources = np.ones((2, 13), np.int32)  # 13 occurs as no other size
  run = lambda p, s: decoding.generate(
    model,
    p,
    s,
    max_decode_length=5,
    method=method,
    rng=jax.random.key(0),
  )
  jaxpr = jax.make_jaxpr(run)(params, sources).jaxpr
  (loop,) = loops_of(jaxpr)
  body = loop.params['body_jaxpr'].jaxpr
  cached = (2, 2, 8, 13)  # [b, k, d, s]
  of_source = {x.aval.shape for x in body.invars if 13 in x.aval.shape}
  assert cached in of_source
  assert of_source <= {cached, (2, 13)}
  made = [s for s in shapes_of(body) if 13 in s and np.prod(s) > 2 * 4 * 3 * 13]
  assert not made, made


def test_sampling_from_the_best_one_is_greedy():
  model, params, sources = case(2)
  greedy, _ = decoding.generate(
    model, params, sources, max_decode_length=LENGTH
  )
  for method in (
    decoding.Sampling(temperature=1.0, top_k=1),
    decoding.Sampling(temperature=1.0, top_p=1e-6),
    decoding.Sampling(temperature=1e-4),
  ):
    tokens, _ = decoding.generate(
      model,
      params,
      sources,
      max_decode_length=LENGTH,
      method=method,
      rng=jax.random.key(3),
    )
    np.testing.assert_array_equal(tokens, greedy)


def test_sampling_follows_its_key():
  model, params, sources = case(2)
  run = lambda seed: decoding.generate(
    model,
    params,
    sources,
    max_decode_length=LENGTH,
    method=decoding.Sampling(temperature=2.0),
    rng=jax.random.key(seed),
  )[0]
  np.testing.assert_array_equal(run(0), run(0))
  assert (np.asarray(run(0)) != np.asarray(run(1))).any()


PROBABILITIES = np.array([0.4, 0.05, 0.25, 0.1, 0.2])


@pytest.mark.parametrize(
  'method, expected',
  [
    (dict(temperature=1.0), PROBABILITIES),
    (dict(temperature=0.5), PROBABILITIES**2),
    (dict(temperature=1.0, top_k=3), PROBABILITIES * [1, 0, 1, 0, 1]),
    # 0.4 + 0.25 < 0.7 <= 0.4 + 0.25 + 0.2
    (dict(temperature=1.0, top_p=0.7), PROBABILITIES * [1, 0, 1, 0, 1]),
    (dict(temperature=1.0, top_p=0.3), PROBABILITIES * [1, 0, 0, 0, 0]),
    (dict(temperature=1.0, top_k=99), PROBABILITIES),
    # top-p counts within the top k: 0.4 / 0.65 > 0.5
    (
      dict(temperature=1.0, top_k=2, top_p=0.5),
      PROBABILITIES * [1, 0, 0, 0, 0],
    ),
  ],
)
def test_sampling_has_its_distribution(method, expected):
  n = 20_000
  logits = jnp.broadcast_to(jnp.log(PROBABILITIES), (n, 5))
  tokens = decoding.choose(
    logits, decoding.Sampling(**method), jax.random.key(0)
  )
  counts = np.bincount(tokens, minlength=5)
  expected = expected / expected.sum() * n
  assert (counts[expected == 0] == 0).all()
  kept = expected > 0
  chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
  assert chi_square < 20  # p = 0.0005 at 4 degrees of freedom


@pytest.mark.parametrize(
  'make, named',
  [
    (lambda: decoding.Sampling(temperature=-1.0), r'temperature \(-1.0\)'),
    (lambda: decoding.Sampling(top_k=-2), r'top_k \(-2\)'),
    (lambda: decoding.Sampling(top_p=0.0), r'top_p \(0.0\)'),
    (lambda: decoding.Sampling(top_p=1.5), r'top_p \(1.5\)'),
    (lambda: decoding.BeamSearch(num_beams=0), r'num_beams \(0\)'),
  ],
)
def test_methods_refuse_bad_values(make, named):
  with pytest.raises(ValueError, match=named):
    make()


def test_generate_refuses_what_it_cannot_do():
  model, params, sources = case(2)
  with pytest.raises(ValueError, match=r'max_decode_length \(0\)'):
    decoding.generate(model, params, sources, max_decode_length=0)
  with pytest.raises(ValueError, match='rng'):
    decoding.generate(
      model,
      params,
      sources,
      max_decode_length=2,
      method=decoding.Sampling(temperature=1.0),
    )
