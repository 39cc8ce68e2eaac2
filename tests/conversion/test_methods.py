from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.conversion import grouping
from gqa_flax.conversion import methods
from gqa_flax.conversion import plan
from gqa_flax.errors import UserError
from gqa_flax.model import network
from tests.conversion import trees

DTYPES = [np.float32, trees.bfloat16]


def convert(params, num_heads=4, **kwargs):
  tree = traverse_util.unflatten_dict(params, sep='/')
  out = methods.convert_params(tree, num_heads=num_heads, **kwargs)
  return traverse_util.flatten_dict(out, sep='/')


def kv_paths(params):
  return [path for path in params if grouping.is_kv_kernel(path)]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('method', methods.METHODS)
@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_convert_params_gives_the_planned_shapes_and_keeps_the_rest(
  num_kv_heads, method, dtype
):
  params = trees.flat_params(trees.config(), dtype=dtype)
  out = convert(params, num_kv_heads=num_kv_heads, method=method)
  expected = plan.parameter_shapes(trees.config(num_kv_heads=num_kv_heads))
  assert {path: x.shape for path, x in out.items()} == expected
  assert all(x.dtype == dtype for x in out.values())
  for path in set(params) - set(kv_paths(params)):
    assert out[path] is params[path]


@pytest.mark.parametrize('method', methods.METHODS)
def test_convert_params_to_all_heads_is_the_identity(method):
  params = trees.flat_params(trees.config(), dtype=trees.bfloat16)
  out = convert(params, num_kv_heads=4, method=method)
  assert all(out[path].tobytes() == params[path].tobytes() for path in params)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('num_kv_heads', [1, 2])
def test_mean_is_the_mean_over_the_heads_of_a_group(num_kv_heads, dtype):
  params = trees.flat_params(trees.config(), dtype=dtype)
  out = convert(params, num_kv_heads=num_kv_heads, method='mean')
  m = 4 // num_kv_heads
  for path in kv_paths(params):
    heads = params[path].astype(np.float64).reshape(16, 4, 8)
    pooled = out[path].astype(np.float64).reshape(16, num_kv_heads, 8)
    for group in range(num_kv_heads):
      mean = sum(heads[:, group * m + i] for i in range(m)) / m
      rounding = 1e-7 if dtype == np.float32 else 2.0**-8
      np.testing.assert_allclose(
        pooled[:, group], mean, rtol=rounding, atol=1e-6
      )


def test_mean_of_bfloat16_is_pooled_in_float32():
  # 1 + 15 * 2**-8: in bfloat16 every partial sum would round the terms away.
  heads = np.full((1, 16, 1), 2.0**-8, trees.bfloat16)
  heads[0, 0] = 16.0
  out = methods.convert_kernel(
    heads.reshape(1, 16), path='p', num_kv_heads_before=16, num_kv_heads=1
  )
  assert out == np.float32((16 + 15 * 2.0**-8) / 16).astype(trees.bfloat16)


@pytest.mark.parametrize('num_kv_heads', [1, 2])
def test_first_is_the_first_head_of_each_group(num_kv_heads):
  params = trees.flat_params(trees.config())
  out = convert(params, num_kv_heads=num_kv_heads, method='first')
  for path in kv_paths(params):
    np.testing.assert_array_equal(
      out[path].reshape(16, num_kv_heads, 8),
      params[path].reshape(16, 4, 8)[:, :: 4 // num_kv_heads],
    )


def test_random_is_the_layers_initialiser_seeded_per_tensor():
  cfg = trees.config(num_heads=8, head_dim=16, emb_dim=64)
  params = trees.flat_params(cfg)
  out = convert(params, num_heads=8, num_kv_heads=4, method='random')
  again = convert(params, num_heads=8, num_kv_heads=4, method='random')
  other = convert(params, num_heads=8, num_kv_heads=4, method='random', seed=1)
  kernels = [out[path] for path in kv_paths(params)]
  for path in kv_paths(params):
    np.testing.assert_array_equal(out[path], again[path])
    assert not np.array_equal(out[path], other[path])
    # variance_scaling(1, 'fan_in'): a variance of 1 / embed, 4096 samples.
    np.testing.assert_allclose(out[path].std(), 64**-0.5, rtol=0.05)
  for i, kernel in enumerate(kernels):
    assert not any(np.array_equal(kernel, k) for k in kernels[:i])


@pytest.mark.parametrize('method', methods.METHODS)
def test_numpy_jax_and_traced_kernels_agree(method):
  kernel = trees.flat_params(trees.config())[
    'decoder/layers_0/self_attention/key/kernel'
  ]

  def convert(x):
    return methods.convert_kernel(
      x, path='p', num_kv_heads_before=4, num_kv_heads=2, method=method
    )

  host = convert(kernel)
  assert isinstance(host, np.ndarray)
  np.testing.assert_allclose(convert(jnp.asarray(kernel)), host, atol=1e-6)
  np.testing.assert_allclose(jax.jit(convert)(kernel), host, atol=1e-6)


def test_converting_in_two_steps_is_converting_in_one():
  params = trees.flat_params(trees.config(num_heads=8), dtype=np.float32)
  once = convert(params, num_heads=8, num_kv_heads=2)
  twice = convert(
    convert(params, num_heads=8, num_kv_heads=4), num_heads=8, num_kv_heads=2
  )
  for path in params:
    np.testing.assert_allclose(twice[path], once[path], atol=1e-6)


@pytest.mark.parametrize('method', ['mean', 'first'])
@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_identical_heads_convert_without_loss(num_kv_heads, method):
  cfg = trees.config()
  params = trees.flat_params(cfg)
  for path in kv_paths(params):
    one = params[path].reshape(16, 4, 8)
    one[:] = one[:, :1]
  out = convert(params, num_kv_heads=num_kv_heads, method=method)
  tokens = jnp.arange(1, 9, dtype=jnp.int32).reshape(2, 4)

  def logits(cfg, flat):
    tree = traverse_util.unflatten_dict(flat, sep='/')
    return network.Transformer(cfg).apply(
      {'params': tree}, tokens, tokens, tokens, enable_dropout=False
    )

  before = logits(cfg, params)
  after = logits(trees.config(num_kv_heads=num_kv_heads), out)
  np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('num_kv_heads', [3, 8, 0])
def test_convert_params_refuses_heads_that_do_not_divide(num_kv_heads):
  params = trees.flat_params(trees.config())
  with pytest.raises(UserError, match=rf'\({num_kv_heads}\)'):
    convert(params, num_kv_heads=num_kv_heads)


def test_convert_params_refuses_an_unknown_method():
  params = trees.flat_params(trees.config())
  with pytest.raises(UserError, match=r"\('median'\) must be one of mean"):
    convert(params, num_kv_heads=2, method='median')
