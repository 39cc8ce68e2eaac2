import dataclasses

import jax.numpy as jnp
import pytest

from gqa_flax.model import config as config_lib
from tests.model import tiny


def test_config_defaults_to_multi_head():
  config = config_lib.T5Config(vocab_size=8, num_heads=6)
  assert config.num_kv_heads == 6
  assert config.float32_attention_logits


def test_config_keeps_the_field_names_of_t5x():
  names = [field.name for field in dataclasses.fields(config_lib.T5Config)]
  assert set(names) == {
    'vocab_size', 'dtype', 'emb_dim', 'num_heads', 'num_encoder_layers',
    'num_decoder_layers', 'head_dim', 'mlp_dim', 'mlp_activations',
    'dropout_rate', 'logits_via_embedding', 'float32_attention_logits',
    'num_kv_heads',
  }  # fmt: skip


def test_config_is_frozen_and_hashable():
  config = tiny.config(mlp_activations=['gelu', 'linear'])
  assert hash(config) == hash(tiny.config())
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.num_heads = 8


@pytest.mark.parametrize('num_kv_heads', [0, 3, 5, 8, -1])
def test_config_names_heads_that_do_not_divide(num_kv_heads):
  with pytest.raises(ValueError) as error:
    tiny.config(num_kv_heads)
  message = str(error.value)
  assert f'({num_kv_heads}' in message and '\n' not in message


def test_config_lists_the_heads_that_divide():
  with pytest.raises(ValueError, match=r'num_heads \(12\) must be a multiple'):
    config_lib.T5Config(vocab_size=8, num_heads=12, num_kv_heads=8)
  with pytest.raises(ValueError, match='1, 2, 3, 4, 6, 12'):
    config_lib.check_num_kv_heads(12, 8)


@pytest.mark.parametrize(
  'field, value',
  [
    ('vocab_size', 0),
    ('emb_dim', -4),
    ('head_dim', 2.5),
    ('num_decoder_layers', None),
    ('mlp_dim', '64'),
    ('dropout_rate', 1.0),
    ('dropout_rate', -0.1),
  ],
)
def test_config_refuses_a_bad_field(field, value):
  with pytest.raises(ValueError) as error:
    tiny.config(**{field: value})
  assert field in str(error.value) and str(value) in str(error.value)


def test_config_takes_a_dtype_by_name():
  assert tiny.config(dtype='bfloat16').dtype == jnp.bfloat16
