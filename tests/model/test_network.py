"""The whole network: shapes, grouping, packing, padding, caches, dtypes."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.model import config as config_lib
from gqa_flax.model import decoding
from gqa_flax.model import network
from tests.model import tiny

SHAPES = pathlib.Path(__file__).parents[1] / 'testdata' / 'param_shapes.json'
# emb_dim, mlp_dim, layers, heads; the T5.1.1 sizes, and the shipped model.
SIZES = {
  'mini': (256, 704, 3, 8),
  'small': (512, 1024, 8, 6),
  'base': (768, 2048, 12, 12),
  'large': (1024, 2816, 24, 16),
  'xl': (2048, 5120, 24, 32),
  'xxl': (4096, 10240, 24, 64),
}
by_kv_heads = pytest.mark.parametrize('num_kv_heads', tiny.KV_HEADS)


def sized_config(name, num_kv_heads=None):
  emb_dim, mlp_dim, num_layers, num_heads = SIZES[name]
  return config_lib.T5Config(
    vocab_size=4096 if name == 'mini' else 32128,
    emb_dim=emb_dim,
    num_heads=num_heads,
    num_kv_heads=num_kv_heads,
    head_dim=32 if name == 'mini' else 64,
    mlp_dim=mlp_dim,
    num_encoder_layers=num_layers,
    num_decoder_layers=num_layers,
    mlp_activations=('gelu', 'linear'),
  )


def pinned_shapes(name) -> dict[str, tuple[int, ...]]:
  """Shapes of a size in the file, `layers_*` written out for each layer."""
  flat = {}
  for path, shape in json.loads(SHAPES.read_text())[name].items():
    for i in range(SIZES[name][2] if '*' in path else 1):
      flat[path.replace('*', str(i))] = tuple(shape)
  return flat


@pytest.mark.parametrize('name', SIZES)
def test_multi_head_parameters_have_the_pinned_shapes(name):
  shapes = tiny.shapes(sized_config(name))
  assert shapes == pinned_shapes(name)
  millions = sum(np.prod(s, dtype=np.int64) for s in shapes.values()) / 1e6
  published = dict(small=76.9, base=247.5, large=783, xl=2850, xxl=11135)
  assert millions == pytest.approx(published.get(name, millions), rel=1e-3)


@pytest.mark.parametrize('name, num_kv_heads', [('small', 1), ('xxl', 8)])
def test_grouping_shrinks_the_decoders_key_and_value_kernels_alone(
  name, num_kv_heads
):
  expected = pinned_shapes(name)
  for path, shape in expected.items():
    if path.startswith('decoder') and path.split('/')[-2] in ('key', 'value'):
      expected[path] = (shape[0], num_kv_heads * 64)
  assert tiny.shapes(sized_config(name, num_kv_heads)) == expected


@by_kv_heads
def test_grouped_network_is_multi_head_with_repeated_kernels(num_kv_heads):
  """Logits, and the gradient through the repetition."""
  model, params = tiny.model_and_params(tiny.config(num_kv_heads))
  multi_head, _ = tiny.model_and_params(tiny.config())
  inputs, targets = tiny.sources(), tiny.sources(length=5, seed=1)

  def loss(params, model):
    logits = tiny.logits(model, params, inputs, targets)
    return jnp.sum(jnp.sin(logits) * (targets > 0)[..., None]), logits

  repeat = functools.partial(tiny.repeat_kv, num_kv_heads=num_kv_heads)
  grad = functools.partial(jax.grad, has_aux=True)
  gradient, logits = jax.jit(grad(lambda p: loss(p, model)))(params)
  expected, expected_logits = jax.jit(
    grad(lambda p: loss(repeat(p), multi_head))
  )(params)
  np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3),
    gradient,
    expected,
  )


@by_kv_heads
def test_packed_examples_give_the_logits_of_separate_ones(num_kv_heads):
  model, params = tiny.model_and_params(tiny.config(num_kv_heads))
  logits = jax.jit(functools.partial(tiny.logits, model))
  sources = [np.array([[5, 9, 3, 1]]), np.array([[7, 2, 1]])]
  targets = [np.array([[4, 8, 1]]), np.array([[6, 3, 9, 1]])]
  separate = [logits(params, *pair) for pair in zip(sources, targets)]

  def pack(rows):
    padded = np.pad(np.concatenate(rows, axis=1), ((0, 0), (0, 2)))
    segments = np.repeat([1, 2, 0], [rows[0].size, rows[1].size, 2])[None]
    return padded, segments

  inputs, input_segments = pack(sources)
  packed_targets, target_segments = pack(targets)
  shifted, _ = pack([np.pad(t, ((0, 0), (1, 0)))[:, :-1] for t in targets])
  packed = logits(
    params,
    inputs,
    packed_targets,
    decoder_inputs=shifted,
    encoder_segment_ids=input_segments,
    decoder_segment_ids=target_segments,
  )
  # Relative positions are unchanged by packing; padding adds nothing.
  np.testing.assert_allclose(
    packed[:, :7], np.concatenate(separate, axis=1), atol=1e-4
  )


@by_kv_heads
def test_padding_changes_nothing(num_kv_heads):
  model, params = tiny.model_and_params(tiny.config(num_kv_heads))
  logits = jax.jit(functools.partial(tiny.logits, model))
  inputs, targets = np.array([[5, 9, 3]]), np.array([[4, 8]])
  padded = logits(
    params, np.pad(inputs, ((0, 0), (0, 4))), np.pad(targets, ((0, 0), (0, 3)))
  )
  np.testing.assert_allclose(
    padded[:, :2], logits(params, inputs, targets), atol=1e-5
  )


def test_logits_do_not_see_later_tokens():
  model, params = tiny.model_and_params(tiny.config(2))
  logits = jax.jit(functools.partial(tiny.logits, model))
  inputs = tiny.sources(1)
  a, b = np.array([[4, 8, 5, 2]]), np.array([[4, 8, 9, 3]])
  a, b = logits(params, inputs, a), logits(params, inputs, b)
  np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-6)
  assert np.abs(a[:, 3] - b[:, 3]).max() > 1e-2


@by_kv_heads
def test_cached_steps_equal_the_full_pass_at_every_position(num_kv_heads):
  cfg = tiny.config(num_kv_heads)
  model, params = tiny.model_and_params(cfg)
  # No padding in the targets: every position counts.
  inputs = tiny.sources()
  targets = np.random.default_rng(2).integers(2, 24, (3, 9), np.int32)
  full = jax.jit(functools.partial(tiny.logits, model))(params, inputs, targets)

  cross = jax.jit(functools.partial(decoding.encode_source, model))(
    params, inputs
  )
  cache = decoding.empty_cache(model, inputs, 1, 9)
  shapes = {x.shape for x in jax.tree.leaves(cache)}
  assert shapes == {(3, num_kv_heads, cfg.head_dim, 9), ()}
  assert {x.shape for x in jax.tree.leaves(cross)} == {
    (3, num_kv_heads, cfg.head_dim, inputs.shape[1])
  }
  step = jax.jit(decoding._step_fn(model, params, cross, inputs, 9))
  for position in range(9):
    tokens = targets[:, position - 1] if position else np.zeros(3, np.int32)
    logits, cache = step(tokens, cache)
    np.testing.assert_allclose(logits, full[:, position], atol=1e-4)


def test_bfloat16_network_has_float32_logits_and_parameters():
  cfg = tiny.config(2, dtype='bfloat16')
  tokens = jnp.ones((1, 4), jnp.int32)
  init = functools.partial(network.Transformer(cfg).init, enable_dropout=False)
  params = jax.eval_shape(init, jax.random.key(0), tokens, tokens, tokens)
  dtypes = {x.dtype for x in jax.tree.leaves(params['params'])}
  assert dtypes == {jnp.dtype(jnp.float32)}

  model, params = tiny.model_and_params(cfg)
  exact, _ = tiny.model_and_params(tiny.config(2))
  inputs, targets = tiny.sources(), tiny.sources(length=5, seed=1)
  run = lambda model: jax.jit(functools.partial(tiny.logits, model))
  logits = run(model)(params, inputs, targets)
  assert logits.dtype == jnp.float32
  expected = run(exact)(params, inputs, targets)
  correlation = np.corrcoef(logits.ravel(), expected.ravel())[0, 1]
  assert correlation > 0.99


def test_bfloat16_caches_are_bfloat16():
  cfg = tiny.config(2, dtype='bfloat16')
  cache = decoding.empty_cache(network.Transformer(cfg), tiny.sources(), 1, 4)
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(cache) if x.ndim)


def test_logical_axes_are_those_of_t5x():
  tokens = jnp.ones((1, 2), jnp.int32)
  model = network.Transformer(tiny.config(2))
  variables = jax.eval_shape(
    functools.partial(model.init, enable_dropout=False),
    *(jax.random.key(0), tokens, tokens, tokens),
  )
  axes = variables['params_axes']
  layer = axes['decoder']['layers_0']
  names = lambda x: tuple(x.names)
  cross = layer['encoder_decoder_attention']
  assert names(cross['key']['kernel_axes']) == ('embed', 'joined_kv')
  assert names(cross['out']['kernel_axes']) == ('joined_kv', 'embed')
  assert names(layer['mlp']['wo']['kernel_axes']) == ('mlp', 'embed')
  embedding = axes['token_embedder']['embedding_axes']
  assert names(embedding) == ('vocab', 'embed')
  bias = axes['encoder']['relpos_bias']['rel_embedding_axes']
  assert names(bias) == ('heads', 'relpos_buckets')


def test_packed_decoding_is_refused():
  model, params = tiny.model_and_params(tiny.config(2))
  tokens = tiny.sources()
  with pytest.raises(ValueError, match='encoder_segment_ids'):
    model.apply(
      {'params': params},
      *(tokens, tokens[:, :1], tokens[:, :1]),
      encoder_segment_ids=tokens,
      enable_dropout=False,
      decode=True,
    )
