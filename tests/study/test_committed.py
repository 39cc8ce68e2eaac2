"""The records that come with the package, and what is shown of them."""

import pathlib
import re

import matplotlib
import pytest

from benchmarks import figures
from gqa_flax.study import record
from gqa_flax.study import report
from gqa_flax.study import tables
from tests.study import fakes

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()
PATHS = sorted(record.COMMITTED.glob('*.json'))


def test_there_are_committed_runs():
  assert 'default' in {path.stem for path in PATHS}


@pytest.mark.parametrize('path', PATHS, ids=lambda p: p.stem)
def test_committed_run_is_shown_marked_as_such(path):
  run = record.read_bundle(path)
  assert tables.describe(run) in tables.summary(fakes.complete_run(), [run])
  shown = report.render(fakes.complete_run(), [run])
  assert f'Committed run: {tables.describe(run)}' in shown


def test_figures_are_drawn_from_the_committed_records():
  locked = re.search(
    r'^matplotlib==(.+)$', (ROOT / 'constraints.txt').read_text(), re.M
  ).group(1)
  if matplotlib.__version__ != locked:
    pytest.skip(f'figures are those of matplotlib {locked}')
  drawn = figures.draw()
  on_disk = {p.name: p.read_text() for p in figures.FOLDER.glob('*.svg')}
  assert on_disk == drawn
  for name in re.findall(r'benchmarks/figures/(\S+?\.svg)', README):
    assert name in drawn
