import numpy as np

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import manifest
from gqa_flax.checkpoints import summary
from gqa_flax.checkpoints import t5x_orbax
from tests.conversion import trees


def test_summarize_states_model_step_and_sizes(tmp_path):
  state = trees.state(trees.config(num_kv_heads=2), dtype=trees.bfloat16)
  path = t5x_orbax.save(tmp_path, state, sidecar={'loss': 2.5})
  record = summary.summarize(tmp_path)
  params = trees.flat_params(trees.config(num_kv_heads=2))
  assert record['path'] == str(path)
  assert record['step'] == 1000
  assert record['parameters'] == sum(x.size for x in params.values())
  assert record['model'] == {
    'num_encoder_layers': 1,
    'num_decoder_layers': 2,
    'emb_dim': 16,
    'mlp_dim': 24,
    'num_heads': 4,
    'num_kv_heads': 2,
    'head_dim': 8,
    'vocab_size': 40,
  }
  assert record['lineage'] == []
  assert record['training'] == {'loss': 2.5}
  by_path = {tensor['path']: tensor for tensor in record['tensors']}
  assert by_path['target/token_embedder/embedding'] == {
    'path': 'target/token_embedder/embedding',
    'shape': [40, 16],
    'dtype': 'bfloat16',
    'bytes': 1280,
  }
  assert record['bytes'] == sum(t['bytes'] for t in record['tensors'])


def test_summarize_of_another_model_still_lists_its_tensors(tmp_path):
  state = {'target': {'w': np.ones((2, 3))}, 'state': {'step': 1}}
  t5x_orbax.save(tmp_path, state)
  record = summary.summarize(tmp_path)
  assert record['model'] is None
  assert 'Not the parameters of an unscanned T5' in record['model_problem']
  assert [tensor['path'] for tensor in record['tensors']] == [
    'state/step',
    'target/w',
  ]


def test_lineage_is_carried_on_by_the_sidecar(tmp_path):
  source = t5x_orbax.save(tmp_path / 'src', trees.state(trees.config()))
  work = job.prepare(source, job.Settings(num_kv_heads=2))
  convert.convert(work, tmp_path / 'dst')
  lineage = manifest.lineage(tmp_path / 'dst')
  trained = trees.state(trees.config(num_kv_heads=2), step=1050)
  t5x_orbax.save(tmp_path / 'dst', trained, sidecar={'lineage': lineage})
  assert summary.summarize(tmp_path / 'dst')['step'] == 1050
  assert summary.summarize(tmp_path / 'dst')['lineage'] == lineage
  assert lineage[0]['conversion']['num_kv_heads'] == 2


def test_step_offset_is_carried_on_by_the_sidecar(tmp_path):
  state = trees.state(trees.config())
  t5x_orbax.save(tmp_path, state)
  assert manifest.step_offset(tmp_path) == 0
  t5x_orbax.save(tmp_path, state, overwrite=True, sidecar={'step_offset': 1000})
  assert manifest.step_offset(tmp_path) == 1000
