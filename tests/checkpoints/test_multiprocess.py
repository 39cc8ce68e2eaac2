"""Two processes save and restore one checkpoint, each its own shards."""

import os
import socket
import subprocess
import sys

import numpy as np

from gqa_flax.checkpoints import t5x_orbax

_WORKER = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from gqa_flax.checkpoints import t5x_orbax

assert jax.device_count() == 4
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ('data', 'model'))
split = NamedSharding(mesh, P('data', 'model'))
whole = NamedSharding(mesh, P())
kernel = np.arange(64, dtype=np.float32).reshape(4, 16)

def place(x, sharding):
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])

state = {
  'target': {'kernel': place(kernel, split)},
  'state': {'step': place(np.int32(3), whole)},
}
for sidecar in ({'try': 1}, {'try': 2}):
  path = t5x_orbax.save(sys.argv[3], state, overwrite=True, sidecar=sidecar)
shardings = jax.tree.map(lambda x: x.sharding, state)
restored = t5x_orbax.restore(path, shardings=shardings)['target']['kernel']
assert restored.sharding == split
for shard in restored.addressable_shards:
  np.testing.assert_array_equal(shard.data, kernel[shard.index])
print('done')
"""


def test_two_processes_save_overwrite_and_restore(tmp_path):
  with socket.socket() as sock:
    sock.bind(('localhost', 0))
    address = f'localhost:{sock.getsockname()[1]}'
  env = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
  }
  workers = [
    subprocess.Popen(
      [sys.executable, '-c', _WORKER, address, str(i), tmp_path],
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  for worker in workers:
    stdout, stderr = worker.communicate()
    assert stdout.endswith('done\n'), stderr  # Gloo greets first.
  assert os.listdir(tmp_path) == ['checkpoint_3']
  assert t5x_orbax.read_sidecar(tmp_path) == {'try': 2}
  np.testing.assert_array_equal(
    t5x_orbax.restore(tmp_path)['target']['kernel'],
    np.arange(64, dtype=np.float32).reshape(4, 16),
  )
