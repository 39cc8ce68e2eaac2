"""The core needs jax, flax and numpy alone."""

import subprocess
import sys

import pytest

BLOCKED = ('tensorflow', 'seqio', 'gin', 't5x', 'orbax', 'torch', 'optax')
SCRIPT = """
import importlib.abc, pkgutil, sys

class Block(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in {blocked!r}:
      raise ModuleNotFoundError('blocked: ' + name)

sys.meta_path.insert(0, Block())
import {package}
for module in pkgutil.iter_modules({package}.__path__):
  __import__('{package}.' + module.name)
"""


@pytest.mark.parametrize('package', ['gqa_flax.model', 'gqa_flax.conversion'])
def test_core_imports_without_the_rest(package):
  result = subprocess.run(
    [sys.executable, '-c', SCRIPT.format(blocked=BLOCKED, package=package)],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
