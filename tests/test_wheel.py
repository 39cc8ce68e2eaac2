"""An installed wheel holds what the commands need."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).parents[1]

# Run outside the checkout, with the wheel's content first on the path, and
# without what only the extra `corpus` brings.
_USE = """
import pathlib, sys
sys.modules['polib'] = None
import gqa_flax
from gqa_flax import paths
from gqa_flax.cli import main
assert pathlib.Path(gqa_flax.__file__).is_relative_to(sys.argv[1])
for path in sorted(paths.gin_dir().rglob('*.gin')):
  print(path.relative_to(paths.gin_dir()).as_posix())
sys.exit(main.main(['generate', '--checkpoint=mini', '--max_length=2', 'a']))
"""


def test_wheel_has_gin_files_and_the_mini_checkpoint(tmp_path):
  source = tmp_path / 'source'
  source.mkdir()
  for name in ('setup.py', 'README.md'):
    shutil.copy(ROOT / name, source)
  for name in ('gqa_flax', 'gin'):
    shutil.copytree(ROOT / name, source / name)
  subprocess.run(
    [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps']
    + ['--no-build-isolation', '--no-index', '-w', str(tmp_path), str(source)],
    check=True,
  )
  (wheel,) = tmp_path.glob('*.whl')
  site = tmp_path / 'site'
  zipfile.ZipFile(wheel).extractall(site)
  done = subprocess.run(
    [sys.executable, '-c', _USE, str(site)],
    cwd=tmp_path,
    env={
      'PYTHONPATH': str(site),
      'JAX_PLATFORMS': 'cpu',
      'HOME': str(tmp_path),
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  printed = done.stdout.splitlines()
  expected = [
    p.relative_to(ROOT / 'gin').as_posix()
    for p in sorted((ROOT / 'gin').rglob('*.gin'))
  ]
  assert printed[: len(expected)] == expected
  assert len(printed) == len(expected) + 1  # And what was generated.
