"""Live comparison with T5X's examples/t5 network, where t5x is installed."""

import functools

from flax import core
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.model import attention
from tests.model import test_network
from tests.model import tiny
from tests.oracles import goldens

pytestmark = pytest.mark.t5x
t5x_network = pytest.importorskip('t5x.examples.t5.network')


def t5x_model(cfg):
  """T5X's network of the same shape; it has no num_kv_heads."""
  return t5x_network.Transformer(
    t5x_network.T5Config(
      vocab_size=cfg.vocab_size,
      dtype=cfg.dtype,
      emb_dim=cfg.emb_dim,
      num_heads=cfg.num_heads,
      num_encoder_layers=cfg.num_encoder_layers,
      num_decoder_layers=cfg.num_decoder_layers,
      head_dim=cfg.head_dim,
      mlp_dim=cfg.mlp_dim,
      mlp_activations=cfg.mlp_activations,
      dropout_rate=cfg.dropout_rate,
      float32_attention_logits=True,
    )
  )


@pytest.mark.parametrize('name', test_network.SIZES)
def test_pinned_shapes_are_those_of_t5x(name):
  model = t5x_model(test_network.sized_config(name))
  tokens = jnp.ones((1, 2), jnp.int32)
  init = functools.partial(model.init, enable_dropout=False)
  variables = jax.eval_shape(init, jax.random.key(0), tokens, tokens, tokens)
  params = core.unfreeze(variables['params'])
  flat = traverse_util.flatten_dict(params, sep='/')
  shapes = {path: x.shape for path, x in flat.items()}
  assert shapes == test_network.pinned_shapes(name)


@pytest.mark.parametrize('name', ['base', 'long'])
def test_network_is_that_of_t5x(name):
  """Logits and gradients on the golden models."""
  golden = goldens.load(name)
  model, params = goldens.ours(golden.weights, golden.num_heads)
  theirs = t5x_model(model.config)
  inputs, targets = golden.inputs, golden.targets

  def loss(params, model):
    logits = tiny.logits(model, params, inputs, targets)
    return jnp.mean(jnp.sin(logits) * (targets > 0)[..., None]), logits

  grad = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
  gradient, logits = grad(params, model)
  expected, expected_logits = grad(params, theirs)
  np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6),
    gradient,
    core.unfreeze(expected),
  )


def test_initial_parameters_are_spread_as_in_t5x():
  cfg = tiny.config(emb_dim=64, mlp_dim=96, head_dim=16)
  tokens = jnp.ones((1, 2), jnp.int32)

  def spread(model):
    variables = model.init(
      jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
    )
    flat = traverse_util.flatten_dict(core.unfreeze(variables['params']))
    return {path: float(jnp.std(x)) for path, x in flat.items()}

  ours = spread(tiny.network.Transformer(cfg))
  for path, expected in spread(t5x_model(cfg)).items():
    assert ours[path] == pytest.approx(expected, rel=0.2), path


def test_layer_stands_in_t5x_network(monkeypatch):
  """With its own heads it changes nothing; with fewer it decodes alike."""
  golden = goldens.load('grouped')
  logits = {}
  for num_kv_heads in (1, 2, 4):
    layer = functools.partial(
      attention.GroupedQueryAttention, num_kv_heads=num_kv_heads
    )
    _, params = goldens.ours(golden.weights, golden.num_heads, num_kv_heads)
    monkeypatch.setattr(
      t5x_network.DecoderLayer, '__call__', _with(layer, DECODER_CALL)
    )
    model = t5x_model(goldens.ours(golden.weights, golden.num_heads)[0].config)
    run = jax.jit(functools.partial(tiny.logits, model))
    logits[num_kv_heads] = run(params, golden.inputs, golden.targets)
  valid = golden.targets > 0
  for found in logits.values():
    np.testing.assert_allclose(
      np.asarray(found)[valid], golden.logits[valid], atol=1e-4
    )


DECODER_CALL = t5x_network.DecoderLayer.__call__


def _with(layer, call):
  """T5X's decoder layer with our attention in the place of its own."""

  @functools.wraps(call)
  def run(*args, **kwargs):
    own = t5x_network.layers.MultiHeadDotProductAttention
    t5x_network.layers.MultiHeadDotProductAttention = layer
    try:
      return call(*args, **kwargs)
    finally:
      t5x_network.layers.MultiHeadDotProductAttention = own

  return run
