"""Kills and full disks while a checkpoint is converted and written.

The victims kill themselves before the n-th file operation in the destination
(Python's audit events), or a moment later, while tensorstore writes.
"""

import asyncio
import gc
import os
import signal
import subprocess
import sys

import pytest

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.checkpoints import verify
from tests.conversion import trees

_VICTIM = """
import os, signal, sys, threading
from gqa_flax.cli import main
event_name, number, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
destination = sys.argv[6]
count = 0

def hook(event, args):
  global count
  if event.startswith(event_name) and args and destination in str(args[0]):
    count += 1
    if count == number and delay:
      threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    elif count == number:
      os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
sys.exit(main.main(sys.argv[4:]))
"""

_FULL_DISK = """
import resource, sys
from gqa_flax.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main.main(sys.argv[1:]))
"""


def python(code, *args):
  return subprocess.run(
    [sys.executable, '-c', code, *map(str, args)],
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )


@pytest.fixture
def source(tmp_path):
  cfg = trees.config(emb_dim=64, vocab_size=20000)
  return t5x_orbax.save(tmp_path / 'src', trees.state(cfg))


def convert_again(source, destination, **kwargs):
  work = job.prepare(source, job.Settings(num_kv_heads=2))
  convert.convert(work, destination, **kwargs)
  assert verify.verify(source, destination).differences == ()
  assert os.listdir(destination) == [source.name]


# 'os.' covers making, renaming and removing folders: about twelve of them.
@pytest.mark.parametrize(
  'event, number, delay',
  [
    ('os.mkdir', 1, 0),
    ('os.mkdir', 3, 0),
    ('os.mkdir', 3, 0.005),
    ('os.mkdir', 3, 0.02),
    ('os.rename', 1, 0),
    ('open', 7, 0),
    ('os.rename', 2, 0),
  ],
)
def test_kill_while_converting_leaves_no_checkpoint_and_can_be_redone(
  tmp_path, source, event, number, delay
):
  destination = tmp_path / 'dst'
  command = ['convert', source, destination, '--num_kv_heads=2']
  result = python(_VICTIM, event, number, delay, *command)
  assert result.returncode == -signal.SIGKILL, result.stderr
  assert t5x_orbax.steps(destination) == []
  assert not (destination / source.name).exists()
  convert_again(source, destination)


# Renames: the state's folder, the new checkpoint's in staging, the old one
# aside, the new one into place; then the old one is removed.
@pytest.mark.parametrize(
  'event, number', [('os.rename', n) for n in (1, 2, 3, 4)] + [('os.rmdir', 1)]
)
def test_kill_while_overwriting_loses_nothing(tmp_path, source, event, number):
  destination = tmp_path / 'dst'
  old = t5x_orbax.save(destination, trees.state(trees.config(), step=1000))
  command = ['convert', source, destination, '--num_kv_heads=2', '--overwrite']
  result = python(_VICTIM, event, number, 0, *command)
  assert result.returncode == -signal.SIGKILL, result.stderr
  if number == 4:  # Set aside, whole; the next save puts it back.
    t5x_orbax.save(destination, trees.state(trees.config(), step=1))
    t5x_orbax.prune(destination, 1)
  kernel = 'target/decoder/layers_0/self_attention/key/kernel'
  shape = t5x_orbax.read_metadata(old)[kernel].shape
  assert shape == ((16, 32) if event == 'os.rename' else (64, 16))
  t5x_orbax.restore(old)
  convert_again(source, destination, overwrite=True)


@pytest.mark.parametrize('existing', [False, True])
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, source, existing):
  destination, flags = tmp_path / 'dst', []
  if existing:
    t5x_orbax.save(destination, trees.state(trees.config(), step=1000))
    flags = ['--overwrite']
  result = python(
    _FULL_DISK, 'convert', source, destination, '--num_kv_heads=2', *flags
  )
  assert result.returncode == 2, result.stderr
  assert result.stdout == ''
  assert result.stderr == (
    f'gqa-flax: error: {destination}/checkpoint_1000: cannot be written: File'
    ' too large.\n'
  )
  if existing:
    assert os.listdir(destination) == ['checkpoint_1000']
    restored = t5x_orbax.restore(destination)
    assert restored['target']['token_embedder']['embedding'].shape == (40, 16)
  else:
    assert not destination.exists()


def test_errors_of_reads_that_nobody_awaits_are_not_reported(caplog):
  async def fail():
    raise ValueError('torn')

  async def read():
    reads = [asyncio.ensure_future(fail()) for _ in range(3)]
    await reads[0]

  try:
    with t5x_orbax._quiet():
      asyncio.run(read())
  except ValueError as error:
    assert str(error) == 'torn'
  gc.collect()
  assert not caplog.records
