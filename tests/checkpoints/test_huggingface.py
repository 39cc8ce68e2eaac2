"""Checkpoints of transformers: its weights, names and logits, from goldens."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import huggingface
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import readers
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.checkpoints import verify
from gqa_flax.cli import main
from gqa_flax.errors import UserError
from gqa_flax.training import models
from tests.oracles import goldens
from tests.oracles import hf_mapping

CONFIG = {
  'model_type': 't5',
  'feed_forward_proj': 'gated-gelu',
  'tie_word_embeddings': False,
  'relative_attention_num_buckets': 32,
  'relative_attention_max_distance': 128,
  'layer_norm_epsilon': 1e-6,
}


def write(folder, weights, config=CONFIG, files=1):
  """As save_pretrained does; in several files, with their index."""
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(config))
  weights = {k: np.ascontiguousarray(v) for k, v in weights.items()}
  if files == 1:
    safetensors.save_file(weights, folder / 'model.safetensors')
    return folder
  weight_map = {}
  for i in range(files):
    name = f'model-{i + 1:05d}-of-{files:05d}.safetensors'
    part = {k: weights[k] for k in list(weights)[i::files]}
    safetensors.save_file(part, folder / name)
    weight_map |= dict.fromkeys(part, name)
  index = {'metadata': {}, 'weight_map': weight_map}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  return folder


@pytest.fixture(scope='module')
def golden():
  return goldens.load('base')


@pytest.mark.parametrize('files', [1, 3])
def test_converted_model_gives_the_logits_of_transformers(
  tmp_path, golden, files
):
  source = write(tmp_path / 'hf', golden.weights, files=files)
  work = job.prepare(source, job.Settings(num_kv_heads=golden.num_heads))
  convert.convert(work, tmp_path / 'ours')
  model = models.from_checkpoint(tmp_path / 'ours')
  params = models.restore_params(model, tmp_path / 'ours')
  shifted = np.pad(golden.targets, [(0, 0), (1, 0)])[:, :-1]
  logits = model.apply(
    {'params': params},
    jnp.asarray(golden.inputs),
    jnp.asarray(shifted),
    jnp.asarray(golden.targets),
    enable_dropout=False,
  )
  real = golden.targets > 0
  np.testing.assert_allclose(
    logits[real], golden.logits[real], atol=1e-4, rtol=1e-4
  )


@pytest.mark.parametrize('num_kv_heads', [1, 2])
def test_conversion_pools_and_verifies(tmp_path, golden, num_kv_heads, capsys):
  source = write(tmp_path / 'hf', golden.weights)
  arguments = ['convert', str(source), str(tmp_path / 'gqa'), '--step=1000']
  assert main.main([*arguments, f'--num_kv_heads={num_kv_heads}']) == 0
  assert t5x_orbax.steps(tmp_path / 'gqa') == [1000]
  assert main.main(['verify', str(source), str(tmp_path / 'gqa')]) == 0
  kernel = 'target/decoder/layers_0/encoder_decoder_attention/key/kernel'
  merged = t5x_orbax.Reader(tmp_path / 'gqa').read([kernel])[kernel]
  name = 'decoder.block.0.layer.1.EncDecAttention.k.weight'
  theirs = golden.weights[name].T.reshape(32, num_kv_heads, -1, 8).mean(2)
  np.testing.assert_allclose(merged, theirs.reshape(32, -1), atol=1e-6)


def test_names_have_the_place_that_the_oracles_give_them(golden):
  for name in golden.weights:
    expected = hf_mapping._t5x_path(name)
    found = huggingface.t5x_path(name)
    assert found is None or tuple(found.split('/')) == expected


def test_bfloat16_and_copies_of_the_embedding(tmp_path, golden):
  weights = {k: v.astype(ml_dtypes.bfloat16) for k, v in golden.weights.items()}
  for stack in ('encoder', 'decoder'):
    weights[f'{stack}.embed_tokens.weight'] = weights['shared.weight'].copy()
  reader = readers.open_checkpoint(write(tmp_path / 'hf', weights))
  name = 'target/token_embedder/embedding'
  assert reader.metadata[name].dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(
    reader.read([name])[name], weights['shared.weight']
  )


def test_tied_logits_are_the_embedding(tmp_path, golden):
  config = {k: v for k, v in CONFIG.items() if k != 'tie_word_embeddings'}
  source = write(tmp_path / 'hf', golden.weights, config)
  reader = huggingface.Reader(source)
  assert 'target/decoder/logits_dense/kernel' not in reader.metadata
  work = job.prepare(source, job.Settings(num_kv_heads=1))
  assert work.plan.before.logits_via_embedding


def test_verify_sees_a_changed_source(tmp_path, golden):
  source = write(tmp_path / 'hf', golden.weights)
  work = job.prepare(source, job.Settings(num_kv_heads=2))
  convert.convert(work, tmp_path / 'gqa')
  weights = dict(golden.weights)
  weights['shared.weight'] = weights['shared.weight'] + 1
  (source / 'model.safetensors').unlink()
  safetensors.save_file(weights, source / 'model.safetensors')
  report = verify.verify(source, tmp_path / 'gqa')
  assert any('embedding' in line for line in report.differences)


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'config.json'])
def test_pickles_are_refused_with_the_way_out(tmp_path, name):
  folder = tmp_path / 'hf'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(CONFIG))
  if name != 'config.json':
    (folder / name).write_bytes(b'\x80\x04.')
  message = 'safe_serialization=True' if name != 'config.json' else 'no model.s'
  with pytest.raises(UserError, match=message):
    readers.open_checkpoint(folder)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'model_type': 'llama'}, r"model_type \('llama'\) must be"),
    ({'feed_forward_proj': 'gated-silu'}, r"feed_forward_proj \('gated-silu'"),
    ({'relative_attention_num_buckets': 64}, r'num_buckets \(64\) must be 32'),
  ],
)
def test_config_of_another_network_is_refused(
  tmp_path, golden, change, message
):
  source = write(tmp_path / 'hf', golden.weights, CONFIG | change)
  with pytest.raises(UserError, match=message):
    huggingface.Reader(source)


@pytest.mark.parametrize(
  'file', ['../model.safetensors', '/etc/x.safetensors', 'a/b.safetensors', 'x']
)
def test_index_that_leaves_the_folder_is_refused(tmp_path, golden, file):
  source = write(tmp_path / 'hf', golden.weights, files=2)
  index = source / 'model.safetensors.index.json'
  content = json.loads(index.read_text())
  content['weight_map']['shared.weight'] = file
  index.write_text(json.dumps(content))
  with pytest.raises(UserError, match='not a safetensors file beside it'):
    huggingface.Reader(source)


@pytest.mark.parametrize('fault', ['truncate', 'remove', 'stranger', 'integer'])
def test_damaged_files_are_named(tmp_path, golden, fault):
  weights = dict(golden.weights)
  if fault == 'stranger':
    weights['encoder.block.0.layer.0.SelfAttention.x.weight'] = np.ones(3)
  if fault == 'integer':
    weights['shared.weight'] = weights['shared.weight'].astype(np.int32)
  source = write(tmp_path / 'hf', weights, files=2)
  file = source / 'model-00002-of-00002.safetensors'
  message = {
    'truncate': 'not a safetensors file',
    'remove': 'missing, though the index names it',
    'stranger': "No place in the tree of T5 for 'encoder.block.0",
    'integer': 'is I32, not a floating number',
  }[fault]
  if fault == 'truncate':
    file.write_bytes(file.read_bytes()[:1000])
  elif fault == 'remove':
    file.unlink()
  with pytest.raises(UserError, match=message):
    huggingface.Reader(source)


def test_step_is_for_what_does_not_say_it(tmp_path, golden):
  source = write(tmp_path / 'hf', golden.weights)
  settings = job.Settings(num_kv_heads=2)
  convert.convert(job.prepare(source, settings, 7), tmp_path / 'gqa')
  with pytest.raises(UserError, match=r'says its step itself; step \(9\)'):
    job.prepare(tmp_path / 'gqa', settings, 9)
