from flax import traverse_util
import jax
import jax.numpy as jnp
import pytest

from gqa_flax.conversion import plan
from gqa_flax.errors import UserError
from gqa_flax.model import network
from tests.conversion import trees


def network_shapes(cfg):
  tokens = jnp.ones((1, 4), jnp.int32)
  model = network.Transformer(cfg)
  variables = jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
    )
  )
  flat = traverse_util.flatten_dict(variables['params'], sep='/')
  return {path: x.shape for path, x in flat.items()}


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
@pytest.mark.parametrize(
  'kwargs',
  [{}, dict(logits_via_embedding=True, mlp_activations=('relu',))],
  ids=['t5_1_1', 't5_1_0'],
)
def test_parameter_shapes_are_the_networks(num_kv_heads, kwargs):
  cfg = trees.config(num_kv_heads=num_kv_heads, **kwargs)
  assert plan.parameter_shapes(cfg) == network_shapes(cfg)
  assert plan.infer_config(network_shapes(cfg)) == cfg


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_plan_changes_only_the_decoders_kv_kernels(num_kv_heads):
  cfg = trees.config()
  result = plan.plan(trees.flat_params(cfg), num_kv_heads)
  assert result.before == cfg
  assert result.after.num_kv_heads == num_kv_heads
  if num_kv_heads == 4:
    assert not result.changes
    return
  assert len(result.changes) == 2 * 2 * 2
  for path, shapes in result.changes.items():
    assert path.startswith('decoder/') and path.endswith('/kernel')
    assert shapes == ((16, 32), (16, num_kv_heads * 8))


def test_plan_lists_every_missing_unexpected_and_misshapen_tensor():
  shapes = {p: x.shape for p, x in trees.flat_params(trees.config()).items()}
  del shapes['encoder/layers_0/mlp/wi_1/kernel']
  del shapes['decoder/decoder_norm/scale']
  shapes['decoder/layers_1/encoder_decoder_attention/key/kernel'] = (16, 8)
  shapes['decoder/extra/bias'] = (3,)
  with pytest.raises(UserError) as error:
    plan.plan(shapes, 2)
  message = str(error.value)
  assert '(4 tensors)' in message
  assert 'missing encoder/layers_0/mlp/wi_1/kernel [16, 24]' in message
  assert 'missing decoder/decoder_norm/scale [16]' in message
  assert 'unexpected decoder/extra/bias [3]' in message
  assert (
    'decoder/layers_1/encoder_decoder_attention/key/kernel is [16, 8], must be'
    ' [16, 32]'
  ) in message
  assert '\n' not in message


def test_infer_config_without_bias_table_says_which_tensor_is_missing():
  shapes = trees.flat_params(trees.config())
  del shapes['encoder/relpos_bias/rel_embedding']
  with pytest.raises(UserError, match='encoder/relpos_bias/rel_embedding'):
    plan.infer_config(shapes)


def test_infer_config_with_absurd_layer_number_refuses_at_once():
  shapes = dict(trees.flat_params(trees.config()))
  shapes['decoder/layers_999999999/mlp/wo/kernel'] = (24, 16)
  with pytest.raises(UserError, match='999999999'):
    plan.infer_config(shapes)
