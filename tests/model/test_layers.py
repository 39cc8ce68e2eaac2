import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.model import layers


def buckets(positions, bidirectional):
  return layers.relative_position_bucket(
    np.asarray(positions),
    bidirectional=bidirectional,
    num_buckets=32,
    max_distance=128,
  )


def test_causal_buckets_are_exact_then_logarithmic():
  # Keys to the right share bucket 0; 16 exact buckets, 16 up to distance 128.
  positions = [5, 1, 0, -1, -15, -16, -17, -18, -19, -31, -64, -127, -128, -999]
  expected = [0, 0, 0, 1, 15, 16, 16, 16, 17, 21, 26, 31, 31, 31]
  np.testing.assert_array_equal(buckets(positions, False), expected)


def test_bidirectional_buckets_put_keys_to_the_right_in_the_upper_half():
  positions = [0, -1, -7, -8, -16, -32, -64, -128, -999]
  lower = [0, 1, 7, 8, 10, 12, 14, 15, 15]
  np.testing.assert_array_equal(buckets(positions, True), lower)
  upper = [x + 16 for x in lower[1:]]
  right = [-x for x in positions[1:]]
  np.testing.assert_array_equal(buckets(right, True), upper)


@pytest.mark.parametrize('bidirectional', [True, False])
def test_buckets_never_fall_with_distance(bidirectional):
  found = buckets(-np.arange(300), bidirectional)
  assert (np.diff(found) >= 0).all()
  assert found.max() == (15 if bidirectional else 31)


def bias_and_table(query_length, key_length, bidirectional, index=None):
  module = layers.RelativePositionBiases(
    num_buckets=32, max_distance=128, num_heads=3
  )
  table = jax.random.normal(jax.random.key(0), (3, 32))
  bias = module.apply(
    {'params': {'rel_embedding': table}},
    query_length,
    key_length,
    bidirectional,
    query_index=index,
  )
  return np.asarray(bias), np.asarray(table)


@pytest.mark.parametrize('bidirectional', [True, False])
@pytest.mark.parametrize('query_length, key_length', [(9, 9), (3, 7), (8, 2)])
def test_relative_bias_looks_its_table_up(
  query_length, key_length, bidirectional
):
  bias, table = bias_and_table(query_length, key_length, bidirectional)
  distance = np.arange(key_length)[None] - np.arange(query_length)[:, None]
  expected = table[:, buckets(distance, bidirectional)]
  np.testing.assert_array_equal(bias, expected[None])


def test_relative_bias_of_one_query_is_its_row():
  bias, _ = bias_and_table(9, 9, False)
  for index in range(9):
    row, _ = bias_and_table(9, 9, False, jnp.array(index))
    np.testing.assert_array_equal(row, bias[:, :, index : index + 1])


def test_relative_bias_gradient_counts_its_reads():
  module = layers.RelativePositionBiases(
    num_buckets=32, max_distance=128, num_heads=2
  )
  weights = jax.random.normal(jax.random.key(1), (1, 2, 40, 40))

  def total(table):
    bias = module.apply({'params': {'rel_embedding': table}}, 40, 40, True)
    return jnp.sum(bias * weights)

  gradient = jax.grad(total)(jnp.zeros((2, 32)))
  distance = np.arange(40)[None] - np.arange(40)[:, None]
  expected = np.zeros((2, 32))
  for h in range(2):
    np.add.at(expected[h], buckets(distance, True), np.asarray(weights)[0, h])
  np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_layer_norm_divides_by_root_mean_square():
  x = jnp.array([[3.0, -4.0, 0.0, 0.0]])
  scale = jnp.array([1.0, 2.0, 1.0, 1.0])
  y = layers.LayerNorm().apply({'params': {'scale': scale}}, x)
  np.testing.assert_allclose(y, [[1.2, -3.2, 0.0, 0.0]], rtol=1e-6)


def test_layer_norm_takes_statistics_in_float32():
  x = jax.random.normal(jax.random.key(0), (4, 512)) * 30
  params = {'params': {'scale': jnp.ones((512,))}}
  y = layers.LayerNorm(dtype=jnp.bfloat16).apply(params, x)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    y.astype(jnp.float32), layers.LayerNorm().apply(params, x), rtol=1e-2
  )


def test_mlp_multiplies_its_activations():
  module = layers.MlpBlock(
    intermediate_dim=5, activations=('gelu', 'linear'), dropout_rate=0.0
  )
  x = jax.random.normal(jax.random.key(0), (2, 3, 4))
  params = module.init(jax.random.key(1), x, deterministic=True)['params']
  y = module.apply({'params': params}, x, deterministic=True)
  wi_0, wi_1, wo = (params[k]['kernel'] for k in ('wi_0', 'wi_1', 'wo'))
  hidden = jax.nn.gelu(x @ wi_0, approximate=True) * (x @ wi_1)
  np.testing.assert_allclose(y, hidden @ wo, atol=1e-5)


def test_mlp_refuses_an_unknown_activation():
  module = layers.MlpBlock(intermediate_dim=5, activations=('gelo',))
  with pytest.raises(ValueError, match='gelo'):
    module.init(jax.random.key(0), jnp.ones((1, 4)), deterministic=True)
