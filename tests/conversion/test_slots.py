from flax import traverse_util
import jax
import numpy as np
import pytest

from gqa_flax.conversion import grouping
from gqa_flax.conversion import slots
from gqa_flax.errors import UserError
from tests.conversion import trees

RNG = np.random.default_rng(0)

# Axes of v_row and v_col as T5X's Adafactor has them.
FACTORED_AXES = [
  ((128, 128), (0, 1)),
  ((256, 128), (1, 0)),
  ((128, 256), (0, 1)),
  ((4096, 512), (1, 0)),
  ((4096, 64), None),
  ((127, 4096), None),
  ((512,), None),
]

# embed, heads, head_dim, G: what the shape does to the slot.
CASES = {
  'factored_same_roles': (160, 8, 128, 2),  # [160, 1024] -> [160, 256]
  'factored_swapped_roles': (512, 8, 128, 2),  # [512, 1024] -> [512, 256]
  'factored_from_square': (256, 8, 32, 4),  # [256, 256] -> [256, 128]
  'factored_to_square': (256, 8, 64, 4),  # [256, 512] -> [256, 256]
  'factored_narrower_already': (512, 8, 32, 4),  # [512, 256] -> [512, 128]
  'factored_to_unfactored': (256, 8, 32, 2),  # [256, 256] -> [256, 64]
  'factored_to_one_head': (256, 8, 32, 1),  # [256, 256] -> [256, 32]
  'unfactored': (64, 4, 16, 2),  # [64, 64] -> [64, 32]
  'unfactored_to_one_head': (256, 4, 16, 1),  # [256, 64] -> [256, 16]
}


def rebuild(slot, shape):
  """The full v that Adafactor divides by, one entry after another."""
  axes = slots.factored_axes(shape)
  if slot['v'].shape == tuple(shape):
    return slot['v'].astype(np.float64)
  row, col = slot['v_row'].astype(np.float64), slot['v_col'].astype(np.float64)
  v = np.zeros(shape)
  for i in range(shape[0]):
    for j in range(shape[1]):
      index = (i, j)
      v[i, j] = row[index[axes[0]]] * col[index[axes[1]]] / row.mean()
  return v


def brute_force(slot, shape, heads, num_kv_heads):
  """Rebuild v, add the heads of each group one by one, factor again."""
  v = rebuild(slot, shape)
  head_dim = shape[1] // heads
  merged = np.zeros((shape[0], num_kv_heads * head_dim))
  for head in range(heads):
    group = head // (heads // num_kv_heads)
    merged[:, group * head_dim : (group + 1) * head_dim] += v[
      :, head * head_dim : (head + 1) * head_dim
    ]
  axes = slots.factored_axes(merged.shape)
  leaves = {name: np.zeros((1,)) for name in slots.LEAVES}
  if axes is None:
    leaves['v'] = merged
  else:
    leaves['v_row'] = merged.mean(axis=axes[1])
    leaves['v_col'] = merged.mean(axis=axes[0])
  return leaves


@pytest.mark.parametrize('shape, axes', FACTORED_AXES)
def test_factored_axes_follow_the_sizes(shape, axes):
  assert slots.factored_axes(shape) == axes


@pytest.mark.parametrize('shape, axes', FACTORED_AXES)
def test_slot_shapes_are_optax_adafactors(shape, axes):
  optax = pytest.importorskip('optax')
  del axes
  transform = optax.scale_by_factored_rms(min_dim_size_to_factor=128)
  state = jax.eval_shape(transform.init, {'p': np.zeros(shape, np.float32)})
  ours = slots.slot_shapes(shape)
  for name in ('v_row', 'v_col', 'v'):
    assert getattr(state, name)['p'].shape == ours[name]


@pytest.mark.parametrize('case', CASES)
def test_convert_slot_is_rebuilding_merging_and_factoring(case):
  embed, heads, head_dim, num_kv_heads = CASES[case]
  shape = (embed, heads * head_dim)
  slot = trees.slot(RNG, shape)
  out = slots.convert_slot(
    slot, shape, num_kv_heads_before=heads, num_kv_heads=num_kv_heads
  )
  expected = brute_force(slot, shape, heads, num_kv_heads)
  new_shape = (embed, num_kv_heads * head_dim)
  assert {n: x.shape for n, x in out.items()} == slots.slot_shapes(new_shape)
  for name in slots.LEAVES:
    assert out[name].dtype == np.float32
    np.testing.assert_allclose(out[name], expected[name], rtol=1e-5)


def test_convert_slot_of_an_optimizer_that_never_factors_keeps_the_full_v():
  slot = trees.slot(RNG, (256, 512), factored=False)
  out = slots.convert_slot(
    slot, (256, 512), num_kv_heads_before=4, num_kv_heads=2
  )
  assert out['v'].shape == (256, 256)
  np.testing.assert_allclose(
    out['v'][:, :128], slot['v'][:, :128] + slot['v'][:, 128:256], rtol=1e-6
  )


@pytest.mark.parametrize('method', ['mean', 'first', 'random'])
def test_convert_slot_merges_momentum_as_the_kernel(method):
  slot = trees.slot(RNG, (16, 32), momentum=True)
  out = slots.convert_slot(
    slot, (16, 32), num_kv_heads_before=4, num_kv_heads=2, method=method
  )
  heads = slot['m'].reshape(16, 2, 2, 8)
  expected = {
    'mean': heads.mean(axis=2),
    'first': heads[:, :, 0],
    'random': np.zeros((16, 2, 8)),
  }[method]
  np.testing.assert_allclose(out['m'].reshape(16, 2, 8), expected, rtol=1e-6)


@pytest.mark.parametrize('shape', [(256, 512), (16, 32)])
@pytest.mark.parametrize('num_kv_heads', [1, 2])
def test_convert_slot_of_zeros_stays_zero(shape, num_kv_heads):
  slot = {n: x * 0 for n, x in trees.slot(RNG, shape).items()}
  out = slots.convert_slot(
    slot, shape, num_kv_heads_before=4, num_kv_heads=num_kv_heads
  )
  assert all((x == 0).all() for x in out.values())


def test_convert_slot_of_tiny_moments_does_not_underflow():
  slot = {
    n: x * np.float32(1e-24) for n, x in trees.slot(RNG, (128, 256)).items()
  }
  out = slots.convert_slot(
    slot, (128, 256), num_kv_heads_before=4, num_kv_heads=1
  )
  assert out['v'].min() > 0


def test_merged_moment_is_that_of_the_sum_of_uncorrelated_gradients():
  rng = np.random.default_rng(0)
  scale = rng.uniform(0.5, 2.0, size=(4, 6))
  grads = rng.normal(size=(200_000, 4, 6)) * scale
  measured = np.square(grads.sum(axis=1)).mean(axis=0)  # [6]
  merged = slots.moment_of_merged(np.square(grads).mean(axis=0), axis=0)
  np.testing.assert_allclose(merged, measured, rtol=0.02)


def convert_tree(params, flat_slots, **kwargs):
  out = slots.convert_slots(
    traverse_util.unflatten_dict(flat_slots, sep='/'),
    params,
    num_heads=4,
    **kwargs,
  )
  return None if out is None else traverse_util.flatten_dict(out, sep='/')


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_convert_slots_pool_keeps_what_does_not_change(num_kv_heads):
  params = trees.flat_params(trees.config())
  before = trees.flat_slots(params)
  after = convert_tree(params, before, num_kv_heads=num_kv_heads)
  assert set(after) == set(before)
  for path in before:
    if num_kv_heads == 4 or not grouping.is_kv_kernel(path.rsplit('/', 1)[0]):
      assert after[path] is before[path]
    elif path.endswith('/v'):
      assert after[path].shape == (16, num_kv_heads * 8)


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_convert_slots_reset_zeroes_all_in_the_new_shapes(num_kv_heads):
  params = trees.flat_params(trees.config())
  before = trees.flat_slots(params)
  reset = convert_tree(
    params, before, num_kv_heads=num_kv_heads, policy='reset'
  )
  pooled = convert_tree(params, before, num_kv_heads=num_kv_heads)
  for path, leaf in reset.items():
    assert leaf.shape == pooled[path].shape
    assert not leaf.any()


def test_convert_slots_drop_leaves_none():
  params = trees.flat_params(trees.config())
  flat = trees.flat_slots(params)
  assert convert_tree(params, flat, num_kv_heads=2, policy='drop') is None


def test_convert_slots_refuses_an_unknown_policy():
  with pytest.raises(UserError, match=r"\('keep'\) must be one of pool"):
    convert_tree({}, {}, num_kv_heads=2, policy='keep')


def test_validate_slots_lists_all_that_is_amiss():
  params = trees.flat_params(trees.config())
  flat = trees.flat_slots(params)
  slots.validate_slots(flat, params)
  del flat['decoder/decoder_norm/scale/v']
  flat['encoder/encoder_norm/scale/v'] = np.zeros((3,))
  flat['decoder/extra/v'] = np.zeros((3,))
  with pytest.raises(UserError) as error:
    slots.validate_slots(flat, params)
  message = str(error.value)
  assert 'missing decoder/decoder_norm/scale/v' in message
  assert 'encoder/encoder_norm/scale: slots' in message
  assert 'unexpected decoder/extra/v' in message
