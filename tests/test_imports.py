"""Imports between rooms point one way."""

import ast
import pathlib

import pytest

import gqa_flax

PACKAGE = pathlib.Path(gqa_flax.__file__).parent
# Each room may import those before it.
ORDER = [
  'errors',
  'paths',
  'model',
  'conversion',
  'checkpoints',
  'data',
  'training',
  'measure',
  'study',
  'cli',
]
CORE = {'model', 'conversion'}
CORE_LIBRARIES = {'jax', 'flax', 'numpy', 'gqa_flax'}


def rooms(path: pathlib.Path):
  """Rooms of gqa_flax, and other packages, that a file imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      yield name.split('.')


def files():
  return sorted(PACKAGE.rglob('*.py'))


@pytest.mark.parametrize(
  'path', files(), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_room_imports_only_rooms_before_it(path):
  room = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
  if room == '__init__':
    return
  allowed = ORDER[: ORDER.index(room) + 1]
  for name in rooms(path):
    if name[0] == 'gqa_flax' and len(name) > 1 and name[1] != '__version__':
      assert name[1] in allowed, f'{room} imports {".".join(name)}'


def test_core_imports_jax_flax_and_numpy_alone():
  import sys

  for path in files():
    if path.relative_to(PACKAGE).parts[0] in CORE:
      for name in rooms(path):
        assert name[0] in CORE_LIBRARIES or name[0] in sys.stdlib_module_names
