import hashlib
import json
import os

from flax import traverse_util
import numpy as np
import pytest

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import manifest
from gqa_flax.checkpoints import summary
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.checkpoints import verify
from gqa_flax.conversion import methods
from gqa_flax.conversion import slots
from gqa_flax.errors import UserError
from tests.conversion import trees

CONFIG = trees.config(num_heads=4, head_dim=64, emb_dim=128)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  state = trees.state(CONFIG, step=1000, dtype=trees.bfloat16)
  return t5x_orbax.save(tmp_path_factory.mktemp('src'), state)


def run(source, destination, overwrite=False, **settings):
  work = job.prepare(source, job.Settings(**settings))
  return convert.convert(work, destination, overwrite=overwrite)


def load(path):
  return traverse_util.flatten_dict(
    t5x_orbax.restore(path, dtype=None), sep='/'
  )


@pytest.mark.parametrize('method', methods.METHODS)
@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_convert_writes_what_the_pure_functions_give(
  tmp_path, source, num_kv_heads, method
):
  # 64 columns at G = 1: unfactored; 128 at G = 2: factored.
  record = run(source, tmp_path, num_kv_heads=num_kv_heads, method=method)
  before = t5x_orbax.restore(source, dtype=None)
  params = traverse_util.flatten_dict(before['target'], sep='/')
  expected = {
    'target': methods.convert_params(
      before['target'], num_heads=4, num_kv_heads=num_kv_heads, method=method
    ),
    'state': {
      'step': before['state']['step'],
      'param_states': slots.convert_slots(
        before['state']['param_states'],
        params,
        num_heads=4,
        num_kv_heads=num_kv_heads,
        method=method,
      ),
    },
  }
  expected = traverse_util.flatten_dict(expected, sep='/')
  actual = load(tmp_path / 'checkpoint_1000')
  assert set(actual) == set(expected)
  for path, want in expected.items():
    assert actual[path].dtype == want.dtype
    assert actual[path].tobytes() == want.tobytes(), path
  assert record['bytes_written'] == record['bytes_to_write'] + 4  # The step.
  assert record['bytes_written'] == sum(x.nbytes for x in actual.values())
  assert verify.verify(source, tmp_path).differences == ()


def test_convert_to_all_heads_is_the_identity(tmp_path, source):
  run(source, tmp_path, num_kv_heads=4)
  before, after = load(source), load(tmp_path)
  assert set(before) == set(after)
  for path in before:
    assert after[path].dtype == before[path].dtype
    assert after[path].tobytes() == before[path].tobytes()
  entries = manifest.read(tmp_path)['tensors'].values()
  assert {entry['action'] for entry in entries} == {'kept'}


def test_convert_of_a_grouped_checkpoint_goes_further(tmp_path, source):
  run(source, tmp_path / 'two', num_kv_heads=2)
  run(tmp_path / 'two', tmp_path / 'one', num_kv_heads=1)
  record = summary.summarize(tmp_path / 'one')
  assert record['model']['num_kv_heads'] == 1
  assert [
    (
      did['conversion']['num_kv_heads_before'],
      did['conversion']['num_kv_heads'],
    )
    for did in record['lineage']
  ] == [(4, 2), (2, 1)]
  assert record['lineage'][0]['source']['path'] == str(source)
  with pytest.raises(UserError, match='must be at most that of the checkpoint'):
    run(tmp_path / 'one', tmp_path / 'back', num_kv_heads=2)
  assert not (tmp_path / 'back').exists()


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_dtype_float32_is_pooled_before_rounding(
  tmp_path, source, num_kv_heads
):
  run(source, tmp_path, num_kv_heads=num_kv_heads, dtype='float32')
  before, after = load(source), load(tmp_path)
  for path, x in after.items():
    assert x.dtype == (np.int32 if path == job.STEP else np.float32)
    if 'target' in path and x.shape == before[path].shape:
      np.testing.assert_array_equal(x, before[path].astype(x.dtype))
  path = 'target/decoder/layers_0/self_attention/key/kernel'
  heads = before[path].astype(np.float32).reshape(128, num_kv_heads, -1, 64)
  np.testing.assert_allclose(
    after[path].reshape(128, num_kv_heads, 64), heads.mean(axis=2), rtol=1e-5
  )
  assert verify.verify(source, tmp_path).differences == ()


def test_dtype_bfloat16_halves_parameters_and_keeps_slots(tmp_path):
  source = t5x_orbax.save(tmp_path / 'src', trees.state(CONFIG))
  run(source, tmp_path / 'dst', num_kv_heads=2, dtype='bfloat16')
  for path, x in load(tmp_path / 'dst').items():
    if path.startswith('target/'):
      assert x.dtype == trees.bfloat16
    elif path != job.STEP:
      assert x.dtype == np.float32
  assert verify.verify(source, tmp_path / 'dst').differences == ()
  tensors = manifest.read(tmp_path / 'dst')['tensors']
  assert tensors['target/token_embedder/embedding']['action'] == 'cast'


def test_reset_zeroes_slots_keeps_the_step_and_names_the_offset(
  tmp_path, source
):
  run(source, tmp_path, num_kv_heads=2, optimizer='reset')
  for path, x in load(tmp_path).items():
    if path.startswith('state/param_states/'):
      assert not x.any()
  assert t5x_orbax.steps(tmp_path) == [1000]
  did = manifest.read(tmp_path)['conversion']['optimizer']
  assert did == {
    'policy': 'reset',
    'source_has_slots': True,
    'step_offset_needed': 1000,
  }
  assert manifest.step_offset(tmp_path) == 1000
  assert verify.verify(source, tmp_path).differences == ()


def test_drop_keeps_the_step_alone(tmp_path, source):
  record = run(source, tmp_path, num_kv_heads=2, optimizer='drop')
  names = [n for n in t5x_orbax.read_metadata(tmp_path) if n[:6] == 'state/']
  assert names == [job.STEP]
  assert record['bytes_written'] == record['bytes_to_write'] + 4
  assert verify.verify(source, tmp_path).differences == ()


def test_pool_of_a_source_without_slots_has_none(tmp_path):
  state = trees.state(CONFIG, with_slots=False)
  source = t5x_orbax.save(tmp_path / 'src', state)
  record = run(source, tmp_path / 'dst', num_kv_heads=2)
  assert record['optimizer'] == 'none in source'
  did = manifest.read(tmp_path / 'dst')['conversion']['optimizer']
  assert did['step_offset_needed'] == 1000
  assert verify.verify(source, tmp_path / 'dst').differences == ()


def test_converting_again_gives_the_same_bytes(tmp_path, source):
  for name in ('a', 'b'):
    run(source, tmp_path / name, num_kv_heads=2, method='random', seed=3)
  a, b = load(tmp_path / 'a'), load(tmp_path / 'b')
  assert all(a[path].tobytes() == b[path].tobytes() for path in a)
  manifests = [manifest.read(tmp_path / name) for name in ('a', 'b')]
  assert manifests[0] == manifests[1]


def test_manifest_states_hash_norms_and_settings(tmp_path, source):
  run(source, tmp_path, num_kv_heads=2)
  found = json.loads((tmp_path / 'checkpoint_1000' / manifest.NAME).read_text())
  before, after = load(source), load(tmp_path)
  lines = ''.join(
    f'{path} {list(x.shape)} {x.dtype.name}'
    f' {hashlib.sha256(x.tobytes()).hexdigest()}\n'
    for path, x in sorted(before.items())
  )
  assert found['source'] == {
    'path': str(source),
    'step': 1000,
    'sha256': hashlib.sha256(lines.encode()).hexdigest(),
  }
  assert found['conversion'] == {
    'num_heads': 4,
    'num_kv_heads_before': 4,
    'num_kv_heads': 2,
    'method': 'mean',
    'grouping': 'contiguous',
    'seed': 0,
    'dtype': None,
    'optimizer': {
      'policy': 'pool',
      'source_has_slots': True,
      'step_offset_needed': 0,
    },
  }
  assert set(found['tensors']) == set(before)
  path = 'target/decoder/layers_1/encoder_decoder_attention/value/kernel'
  entry = found['tensors'][path]
  assert entry['action'] == 'converted'
  for key, tensors in (('before', before), ('after', after)):
    norm = np.linalg.norm(tensors[path].astype(np.float64))
    np.testing.assert_allclose(entry[key]['norm'], norm)
    assert entry[key]['shape'] == list(tensors[path].shape)
  assert found['tensors']['target/encoder/encoder_norm/scale']['action'] == (
    'kept'
  )
  assert found['versions']['jax']


@pytest.mark.parametrize('num_kv_heads', [3, 8, 0, -1])
def test_heads_that_do_not_divide_are_refused_before_anything_is_written(
  tmp_path, source, num_kv_heads
):
  with pytest.raises(UserError, match=rf'num_kv_heads.*\({num_kv_heads}\)'):
    run(source, tmp_path / 'dst', num_kv_heads=num_kv_heads)
  assert not (tmp_path / 'dst').exists()


def test_missing_extra_and_misshapen_tensors_are_all_listed(tmp_path):
  state = trees.state(CONFIG)
  del state['target']['decoder']['decoder_norm']
  state['target']['decoder']['extra'] = np.ones(3, np.float32)
  state['target']['encoder']['encoder_norm']['scale'] = np.ones(3, np.float32)
  source = t5x_orbax.save(tmp_path / 'src', state)
  with pytest.raises(UserError) as error:
    run(source, tmp_path / 'dst', num_kv_heads=2)
  message = str(error.value)
  assert str(source) in message
  assert 'missing decoder/decoder_norm/scale' in message
  assert 'unexpected decoder/extra' in message
  assert 'encoder/encoder_norm/scale is [3], must be [128]' in message
  assert not (tmp_path / 'dst').exists()


def test_slots_that_are_not_adafactors_are_refused_but_may_be_dropped(tmp_path):
  state = trees.state(CONFIG)
  norm = state['state']['param_states']['decoder']['decoder_norm']['scale']
  norm['v'] = np.ones(3, np.float32)
  source = t5x_orbax.save(tmp_path / 'src', state)
  with pytest.raises(UserError, match='decoder_norm/scale: slots'):
    run(source, tmp_path / 'dst', num_kv_heads=2)
  run(source, tmp_path / 'dst', num_kv_heads=2, optimizer='drop')


def test_other_state_is_refused(tmp_path):
  state = trees.state(CONFIG)
  state['flax_mutables'] = {'x': np.ones(3, np.float32)}
  source = t5x_orbax.save(tmp_path / 'src', state)
  with pytest.raises(UserError, match='unexpected flax_mutables/x'):
    run(source, tmp_path / 'dst', num_kv_heads=2)


def test_destination_that_is_not_ours_is_refused(tmp_path, source):
  (tmp_path / 'photos').mkdir()
  (tmp_path / 'photos' / 'cat.jpg').write_text('')
  with pytest.raises(UserError, match='photos: exists and holds no checkpoint'):
    run(source, tmp_path / 'photos', num_kv_heads=2, overwrite=True)
  assert os.listdir(tmp_path / 'photos') == ['cat.jpg']


def test_destination_that_is_a_file_is_refused(tmp_path, source):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file: exists and holds no checkpoints'):
    run(source, tmp_path / 'file', num_kv_heads=2)


def test_destination_that_is_a_checkpoint_is_refused(tmp_path, source):
  for destination in (source, tmp_path / 'checkpoint_5'):
    with pytest.raises(UserError, match='not a checkpoint'):
      run(source, destination, num_kv_heads=2)


def test_destination_that_is_the_source_is_refused(source):
  with pytest.raises(UserError, match='source and destination are the same'):
    run(source, source.parent, num_kv_heads=2, overwrite=True)


def test_existing_checkpoint_needs_overwrite(tmp_path, source):
  run(source, tmp_path, num_kv_heads=2)
  with pytest.raises(UserError, match='exists already; --overwrite replaces'):
    run(source, tmp_path, num_kv_heads=1)
  assert summary.summarize(tmp_path)['model']['num_kv_heads'] == 2
  run(source, tmp_path, num_kv_heads=1, overwrite=True)
  assert summary.summarize(tmp_path)['model']['num_kv_heads'] == 1
  assert os.listdir(tmp_path) == ['checkpoint_1000']


def test_checkpoints_of_other_steps_stay(tmp_path, source):
  t5x_orbax.save(tmp_path, trees.state(CONFIG, step=5))
  run(source, tmp_path, num_kv_heads=2)
  assert t5x_orbax.steps(tmp_path) == [5, 1000]


def test_progress_reports_all_bytes_read_and_written(tmp_path, source):
  work = job.prepare(source, job.Settings(num_kv_heads=2))
  seen = []
  record = convert.convert(work, tmp_path, progress=seen.append)
  assert sum(seen) == record['bytes_read'] + record['bytes_written']


def test_units_are_read_in_bounded_batches(monkeypatch, source):
  work = job.prepare(source, job.Settings(num_kv_heads=2))
  whole = {
    name: x for _, unit in job.read_units(work) for name, x in unit.items()
  }
  reads = []
  read = work.reader.read
  monkeypatch.setattr(
    work.reader, 'read', lambda names: reads.append(len(names)) or read(names)
  )
  monkeypatch.setattr(job, '_READ_AT_ONCE', 100_000)
  parts = {
    name: x for _, unit in job.read_units(work) for name, x in unit.items()
  }
  assert len(reads) > 3 and sum(reads) == len(whole)
  assert all(parts[n].tobytes() == x.tobytes() for n, x in whole.items())


@pytest.mark.parametrize(
  'kwargs', [dict(method='x'), dict(optimizer='x'), dict(dtype='x')]
)
def test_settings_refuse_unknown_words(kwargs):
  with pytest.raises(UserError, match=r"\('x'\) must be one of"):
    job.Settings(num_kv_heads=2, **kwargs)
