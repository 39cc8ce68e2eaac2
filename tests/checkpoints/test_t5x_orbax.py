import json
import os
import subprocess
import sys

from flax import traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gqa_flax.checkpoints import folders
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.errors import UserError
from tests.conversion import trees


def flatten(tree):
  return traverse_util.flatten_dict(tree, sep='/')


def assert_same(actual, expected):
  actual, expected = flatten(actual), flatten(expected)
  assert set(actual) == set(expected)
  for path, want in expected.items():
    assert actual[path].dtype == want.dtype, path
    assert actual[path].shape == want.shape, path
    assert actual[path].tobytes() == want.tobytes(), path


@pytest.fixture
def state():
  return trees.state(trees.config(), step=7, dtype=trees.bfloat16)


@pytest.fixture
def saved(tmp_path, state):
  return t5x_orbax.save(tmp_path / 'run', state)


def test_restore_gives_back_what_was_saved(saved, state):
  assert saved.name == 'checkpoint_7'
  assert_same(t5x_orbax.restore(saved, dtype=None), state)


def test_restore_casts_floating_leaves_up_to_float32(saved, state):
  restored = t5x_orbax.restore(saved)
  expected = jax.tree.map(
    lambda x: x.astype(np.float32) if x.dtype == trees.bfloat16 else x, state
  )
  assert restored['state']['step'].dtype == np.int32
  assert_same(restored, expected)


def test_restore_of_the_target_alone_leaves_the_optimizer_out(saved, state):
  restored = t5x_orbax.restore(saved, dtype=None, only=('target',))
  assert_same(restored, {'target': state['target']})


def test_save_stores_a_python_step_as_int32(tmp_path):
  t5x_orbax.save(tmp_path, {'target': {'a': np.ones(2)}, 'state': {'step': 5}})
  metadata = t5x_orbax.read_metadata(tmp_path)
  assert metadata['state/step'].dtype == np.int32
  assert metadata['target/a'].dtype == np.float64


def test_read_metadata_is_shapes_and_dtypes(saved, state):
  metadata = t5x_orbax.read_metadata(saved)
  expected = flatten(state)
  assert list(metadata) == sorted(expected)
  for path, leaf in metadata.items():
    assert (leaf.shape, leaf.dtype) == (
      expected[path].shape,
      expected[path].dtype,
    )


def test_layout_is_what_t5x_writes(saved):
  assert (
    json.loads((saved / 'state' / '_METADATA').read_text())['use_zarr3']
    is False
  )
  assert (saved / 'state' / 'manifest.ocdbt').exists()
  handlers = json.loads((saved / '_CHECKPOINT_METADATA').read_text())
  assert list(handlers['item_handlers']) == ['state']


def t5x_manager(directory):
  """A manager made as T5X's OrbaxCheckpointManagerInterface makes it."""
  return ocp.CheckpointManager(
    directory,
    options=ocp.CheckpointManagerOptions(
      cleanup_tmp_directories=True, step_prefix='checkpoint'
    ),
    item_handlers={'state': ocp.PyTreeCheckpointHandler(use_ocdbt=True)},
  )


def test_t5xs_manager_restores_ours(saved, state):
  with t5x_manager(saved.parent) as manager:
    assert manager.all_steps() == [7]
    args = ocp.args.PyTreeRestore(
      state,
      restore_args=jax.tree.map(
        lambda x: ocp.RestoreArgs(restore_type=np.ndarray), state
      ),
    )
    restored = manager.restore(7, args=ocp.args.Composite(state=args))
  assert_same(restored['state'], state)


def test_we_restore_what_t5xs_manager_saved(tmp_path, state):
  on_device = jax.tree.map(jax.numpy.asarray, state)
  with t5x_manager(tmp_path) as manager:
    args = ocp.args.Composite(state=ocp.args.PyTreeSave(on_device))
    manager.save(7, args=args, force=True)
    manager.wait_until_finished()
  assert t5x_orbax.steps(tmp_path) == [7]
  assert_same(t5x_orbax.restore(tmp_path, dtype=None), state)


def test_sidecar_and_files_lie_beside_the_state(tmp_path, state):
  path = t5x_orbax.save(
    tmp_path, state, sidecar={'loss': 2.5}, files={'note.txt': 'hello'}
  )
  assert t5x_orbax.read_sidecar(path) == {'loss': 2.5}
  assert (path / 'note.txt').read_text() == 'hello'


def test_read_sidecar_is_none_without_one(saved):
  assert t5x_orbax.read_sidecar(saved) is None


def test_steps_latest_and_resolve_see_complete_checkpoints_only(tmp_path):
  for step in (10, 9, 100):
    t5x_orbax.save(tmp_path, {'target': {}, 'state': {'step': step}})
  (tmp_path / 'checkpoint_200.orbax-checkpoint-tmp').mkdir()
  (tmp_path / 'checkpoint_x').mkdir()
  (tmp_path / 'notes.txt').write_text('')
  assert t5x_orbax.steps(tmp_path) == [9, 10, 100]
  assert t5x_orbax.latest(tmp_path).name == 'checkpoint_100'
  assert t5x_orbax.resolve(tmp_path) == t5x_orbax.latest(tmp_path)
  assert t5x_orbax.resolve(tmp_path / 'checkpoint_9').name == 'checkpoint_9'


def test_prune_keeps_the_latest_and_the_protected(tmp_path):
  for step in range(5):
    t5x_orbax.save(tmp_path, {'target': {}, 'state': {'step': step}})
  assert t5x_orbax.prune(tmp_path, 2, protect=(1,)) == [0, 2]
  assert t5x_orbax.steps(tmp_path) == [1, 3, 4]
  assert len(os.listdir(tmp_path)) == 3
  with pytest.raises(ValueError, match=r'keep \(0\)'):
    t5x_orbax.prune(tmp_path, 0)


def test_save_refuses_an_existing_checkpoint(saved, state):
  before = (saved / '_CHECKPOINT_METADATA').read_text()
  with pytest.raises(UserError, match='checkpoint_7: the checkpoint exists'):
    t5x_orbax.save(saved.parent, state)
  assert (saved / '_CHECKPOINT_METADATA').read_text() == before


def test_save_with_overwrite_replaces(saved, state):
  state['target']['token_embedder']['embedding'] += 1
  t5x_orbax.save(saved.parent, state, overwrite=True)
  assert_same(t5x_orbax.restore(saved, dtype=None), state)
  assert os.listdir(saved.parent) == ['checkpoint_7']


def test_failed_overwrite_keeps_the_old_checkpoint(saved, state, monkeypatch):
  def fail(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(folders, 'exchange', fail)
  with pytest.raises(UserError, match='cannot be written: No space left'):
    t5x_orbax.save(saved.parent, state, overwrite=True)
  assert_same(t5x_orbax.restore(saved, dtype=None), state)
  assert os.listdir(saved.parent) == ['checkpoint_7']


def test_save_puts_back_what_an_interrupted_exchange_set_aside(saved, state):
  aside = saved.parent / '.gqa_flax_staging' / 'replaced'
  aside.mkdir(parents=True)
  saved.rename(aside / saved.name)
  assert t5x_orbax.steps(saved.parent) == []
  state['state']['step'] = np.int32(8)
  t5x_orbax.save(saved.parent, state)
  assert t5x_orbax.steps(saved.parent) == [7, 8]
  assert sorted(os.listdir(saved.parent)) == ['checkpoint_7', 'checkpoint_8']


def test_save_removes_what_an_interrupted_save_left(tmp_path, state):
  leftover = tmp_path / 'checkpoint_3.orbax-checkpoint-tmp' / 'state'
  leftover.mkdir(parents=True)
  t5x_orbax.save(tmp_path, state)
  assert os.listdir(tmp_path) == ['checkpoint_7']


def test_save_into_a_file_is_a_user_error(tmp_path, state):
  (tmp_path / 'taken').write_text('')
  with pytest.raises(UserError, match='taken/checkpoint_7: cannot be written'):
    t5x_orbax.save(tmp_path / 'taken', state)


@pytest.mark.parametrize(
  'make, words',
  [
    (lambda path: None, 'no such checkpoint'),
    (lambda path: path.mkdir(), 'no checkpoint here'),
    (lambda path: (path / 'checkpoint_1').mkdir(parents=True), 'no Orbax'),
  ],
  ids=['missing', 'empty', 'without_state'],
)
def test_restore_of_nothing_names_the_path(tmp_path, make, words):
  path = tmp_path / 'absent'
  make(path)
  with pytest.raises(UserError, match=f'absent.*{words}'):
    t5x_orbax.restore(path)


def test_restore_of_a_legacy_checkpoint_says_so(tmp_path):
  (tmp_path / 'checkpoint_1').mkdir()
  (tmp_path / 'checkpoint_1' / 'checkpoint').write_text('')
  with pytest.raises(UserError, match="a checkpoint of T5X's older format"):
    t5x_orbax.restore(tmp_path)


def data_files(path):
  files = [*path.glob('state/d/*'), *path.glob('state/ocdbt.process_0/d/*')]
  return [file for file in files if file.stat().length]


@pytest.mark.parametrize('fault', ['truncate', 'remove', 'garbage'])
@pytest.mark.parametrize('which', ['data', 'manifest', 'metadata'])
def test_restore_of_a_damaged_checkpoint_is_one_line(saved, fault, which):
  files = {
    'data': data_files(saved),
    'manifest': [saved / 'state' / 'manifest.ocdbt'],
    'metadata': [saved / 'state' / '_METADATA'],
  }[which]
  for file in files:
    content = file.read_bytes()
    if fault == 'truncate':
      file.write_bytes(content[: len(content) // 2])
    elif fault == 'remove':
      file.unlink()
    else:
      file.write_bytes(b'\x00' * len(content))
  with pytest.raises(UserError, match='checkpoint_7') as error:
    t5x_orbax.restore(saved)
  assert '\n' not in str(error.value)


def test_validate_lists_all_differences(saved):
  actual = t5x_orbax.read_metadata(saved)
  expected = {path: leaf.shape for path, leaf in actual.items()}
  t5x_orbax.validate(actual, expected)
  del expected['state/step']
  expected['target/new'] = (3,)
  expected['target/token_embedder/embedding'] = (1, 2)
  with pytest.raises(
    UserError, match=r'The file does not fit .*3 tensors'
  ) as e:
    t5x_orbax.validate(actual, expected, where='The file')
  assert 'unexpected state/step []' in str(e.value)
  assert 'missing target/new [3]' in str(e.value)
  assert 'embedding is [40, 16], must be [1, 2]' in str(e.value)


_SHARDED = """
import sys, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from gqa_flax.checkpoints import t5x_orbax
mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ('data', 'model'))
whole = NamedSharding(mesh, P())
split = NamedSharding(mesh, P('data', 'model'))
kernel = np.arange(64, dtype=np.float32).reshape(4, 16)
state = {
  'target': {'kernel': jax.device_put(kernel, split)},
  'state': {'step': jax.device_put(np.int32(3), whole)},
}
path = t5x_orbax.save(sys.argv[1], state)
shardings = jax.tree.map(lambda x: x.sharding, state)
shardings['target']['kernel'] = NamedSharding(mesh, P('model', 'data'))
restored = t5x_orbax.restore(path, shardings=shardings)
assert restored['target']['kernel'].sharding.spec == P('model', 'data')
assert len(restored['target']['kernel'].sharding.device_set) == 8
np.testing.assert_array_equal(restored['target']['kernel'], kernel)
assert isinstance(t5x_orbax.restore(path)['target']['kernel'], np.ndarray)
everywhere = t5x_orbax.restore(path, shardings=whole)
assert everywhere['target']['kernel'].sharding == whole
print('done')
"""


def test_restore_puts_arrays_on_the_shardings_given(tmp_path):
  flags = '--xla_force_host_platform_device_count=8'
  env = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  result = subprocess.run(
    [sys.executable, '-c', _SHARDED, tmp_path],
    env=env,
    capture_output=True,
    text=True,
  )
  assert result.stdout == 'done\n', result.stderr
