"""Grouped attention against jax.nn and against repeated K/V heads."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.model import attention
from tests.model import tiny

B, T, S, H, D = 2, 5, 6, 4, 8
by_kv_heads = pytest.mark.parametrize('num_kv_heads', tiny.KV_HEADS)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def arrays(num_kv_heads):
  """query [b,t,h,d], key and value [b,s,k,d], bias, mask, cotangent."""
  query = normal(0, B, T, H, D)
  key, value = normal(1, 2, B, S, num_kv_heads, D)
  bias = normal(2, 1, H, T, S)
  mask = jax.random.bernoulli(jax.random.key(3), 0.6, (B, 1, T, S))
  mask = mask.at[..., 0].set(True)
  return query, key, value, bias, mask, normal(4, B, T, H, D)


def ours(query, key, value, bias, mask):
  """With keys and values in jax.nn's layout [b, s, k, d]."""
  return attention.grouped_attention(
    query,
    jnp.moveaxis(key, 1, 3),
    jnp.moveaxis(value, 1, 3),
    bias=bias,
    mask=mask,
  )


def theirs(query, key, value, bias, mask):
  return jax.nn.dot_product_attention(
    query, key, value, bias=bias, mask=mask, scale=1.0
  )


@by_kv_heads
@pytest.mark.parametrize('with_mask', [True, False])
@pytest.mark.parametrize('with_bias', [True, False])
def test_attention_agrees_with_jax_forward_and_gradient(
  num_kv_heads, with_bias, with_mask
):
  query, key, value, bias, mask, cotangent = arrays(num_kv_heads)
  mask = mask if with_mask else None
  bias = bias if with_bias else jnp.zeros_like(bias)

  def run(function):
    out, vjp = jax.vjp(lambda *x: function(*x, mask), query, key, value, bias)
    return (out, *vjp(cotangent))

  run = jax.jit(run, static_argnums=0)
  for x, expected in zip(run(ours), run(theirs)):
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)


@by_kv_heads
def test_attention_takes_a_mask_of_each_head_and_a_bias_of_each_row(
  num_kv_heads,
):
  query, key, value, *_ = arrays(num_kv_heads)
  bias = normal(5, B, H, T, S)
  mask = jax.random.bernoulli(jax.random.key(6), 0.6, (B, H, T, S))
  mask = mask.at[..., 0].set(True)
  np.testing.assert_allclose(
    ours(query, key, value, bias, mask),
    theirs(query, key, value, bias, mask),
    atol=1e-5,
  )


def test_attention_query_head_n_reads_kv_head_n_over_g():
  """Each K/V head's value is its number; one key, so attention is plain."""
  query = normal(0, 1, 1, H, D)
  value = jnp.arange(2.0)[None, :, None, None] * jnp.ones((1, 2, D, 1))
  out = attention.grouped_attention(query, normal(1, 1, 2, D, 1), value)
  np.testing.assert_array_equal(out[0, 0, :, 0], [0, 0, 1, 1])


@pytest.mark.parametrize('num_kv_heads', [3, 8])
def test_attention_refuses_heads_that_do_not_divide(num_kv_heads):
  query, key = jnp.ones((1, 1, H, D)), jnp.ones((1, num_kv_heads, D, 2))
  with pytest.raises(ValueError, match=rf'\(4\).*\({num_kv_heads}\)'):
    attention.grouped_attention(query, key, key)


@by_kv_heads
def test_attention_of_masked_row_is_finite(num_kv_heads):
  query, key, value, bias, mask, _ = arrays(num_kv_heads)
  out = ours(query, key, value, bias, jnp.zeros_like(mask))
  assert np.isfinite(out).all()


def dtypes_of(function, primitive, *args):
  """Dtypes of the operands of a primitive in a function's jaxpr."""
  found = []

  def walk(jaxpr):
    for eqn in jaxpr.eqns:
      if eqn.primitive.name == primitive:
        found.append(eqn.invars[0].aval.dtype)
      for sub in jax.extend.core.jaxprs_in_params(eqn.params):
        walk(sub)

  walk(jax.make_jaxpr(function)(*args).jaxpr)
  return found


@by_kv_heads
def test_bfloat16_attention_has_float32_logits_and_softmax(num_kv_heads):
  query, key, value, bias, mask, _ = arrays(num_kv_heads)
  args = [x.astype(jnp.bfloat16) for x in (query, key, value)]
  run = lambda *x: ours(*x, bias, mask)
  assert dtypes_of(run, 'exp', *args) == [jnp.float32]
  out = run(*args)
  assert out.dtype == jnp.bfloat16
  rounded = [x.astype(jnp.float32) for x in args]
  np.testing.assert_allclose(
    out.astype(jnp.float32), ours(*rounded, bias, mask), atol=3e-2
  )


def layer(num_kv_heads, **kwargs):
  return attention.GroupedQueryAttention(
    num_heads=H, num_kv_heads=num_kv_heads, head_dim=D, **kwargs
  )


def layer_params(num_kv_heads, emb_dim=12):
  x = jnp.ones((1, 2, emb_dim))
  params = layer(num_kv_heads).init(jax.random.key(0), x, x)['params']
  seeds = dict(zip(sorted(params), range(10)))
  return {
    name: {'kernel': 0.3 * normal(seeds[name], *p['kernel'].shape)}
    for name, p in params.items()
  }


@by_kv_heads
def test_layer_has_the_kernels_of_t5x(num_kv_heads):
  params = layer_params(num_kv_heads)
  assert {name: p['kernel'].shape for name, p in params.items()} == {
    'query': (12, H * D),
    'key': (12, num_kv_heads * D),
    'value': (12, num_kv_heads * D),
    'out': (H * D, 12),
  }


@by_kv_heads
def test_grouped_layer_is_multi_head_with_repeated_kernels(num_kv_heads):
  """Forward; the grouped kernel's gradient sums over its copies."""
  params = layer_params(num_kv_heads)
  x, y = normal(1, B, T, 12), normal(2, B, S, 12)
  _, _, _, bias, mask, _ = arrays(num_kv_heads)

  def repeat(params):
    out = dict(params)
    for name in ('key', 'value'):
      kernel = params[name]['kernel'].reshape(12, num_kv_heads, D)
      kernel = jnp.repeat(kernel, H // num_kv_heads, axis=1)
      out[name] = {'kernel': kernel.reshape(12, H * D)}
    return out

  def total(params, module):
    out = module.apply({'params': params}, x, y, mask, bias, deterministic=True)
    return jnp.sum(jnp.sin(out)), out

  grad = lambda f: jax.jit(jax.grad(f, has_aux=True))
  gradient, out = grad(lambda p: total(p, layer(num_kv_heads)))(params)
  expected, expected_out = grad(lambda p: total(repeat(p), layer(H)))(params)
  np.testing.assert_allclose(out, expected_out, atol=1e-5)
  for name in gradient:
    np.testing.assert_allclose(
      gradient[name]['kernel'], expected[name]['kernel'], atol=1e-4
    )


@by_kv_heads
def test_filled_cache_stands_for_its_source_and_is_shared_by_beams(
  num_kv_heads,
):
  params = {'params': layer_params(num_kv_heads)}
  module = layer(num_kv_heads)
  source = normal(2, B, S, 12)
  _, variables = module.apply(
    params, source, method='fill_cache', mutable=['cache']
  )
  shape = (B, num_kv_heads, D, S)
  assert {x.shape for x in jax.tree.leaves(variables)} == {shape}
  mask = (jnp.arange(S) < jnp.array([[S], [3]]))[:, None, None]

  beams = normal(3, B * 3, 1, 12)  # three beams of each source
  out = module.apply(params | variables, beams, None, mask, deterministic=True)
  expected = module.apply(
    params,
    beams,
    jnp.repeat(source, 3, axis=0),
    jnp.repeat(mask, 3, axis=0),
    deterministic=True,
  )
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_dropout_zeroes_weights_of_a_key_for_all_positions():
  module = layer(2, dropout_rate=0.5)
  params = {'params': layer_params(2)}
  x = jnp.broadcast_to(normal(1, B, 1, 12), (B, T, 12))  # equal positions
  apply = lambda seed: module.apply(
    params, x, x, rngs={'dropout': jax.random.key(seed)}
  )
  out = apply(0)
  np.testing.assert_allclose(out, out[:, :1].repeat(T, axis=1), atol=1e-6)
  assert np.abs(out - apply(1)).max() > 1e-3
