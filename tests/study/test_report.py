"""Figures from records, and a report that needs nothing else."""

import base64
import re
import xml.etree.ElementTree

import pytest

from gqa_flax.study import plots
from gqa_flax.study import record
from gqa_flax.study import report
from tests.study import fakes


@pytest.mark.parametrize('name', plots.FIGURES)
def test_figure_is_svg_and_the_same_each_time(name):
  draw, _ = plots.FIGURES[name]
  svg = draw(fakes.complete_run())
  assert xml.etree.ElementTree.fromstring(svg).tag.endswith('svg')
  assert svg == draw(fakes.complete_run())


@pytest.mark.parametrize('name', plots.FIGURES)
def test_figure_of_no_records_is_none(name):
  draw, _ = plots.FIGURES[name]
  assert draw(record.Run('default', ())) is None


def test_report_refers_to_nothing_outside_itself():
  text = report.render(fakes.complete_run(), [fakes.timed_only()])
  assert not re.search(r'https?://', text)
  assert not re.search(r'<(script|link|iframe|object)\b', text)
  sources = re.findall(r'src="([^"]*)"', text)
  assert len(sources) == 4  # Three of the run, one of the other's timing.
  for source in sources:
    prefix, data = source.split(',', 1)
    assert prefix == 'data:image/svg+xml;base64'
    svg = base64.b64decode(data).decode()
    assert not re.search(r'(href|src)="(?!#)', svg)


def test_report_is_well_formed():
  text = report.render(fakes.complete_run(), [fakes.timed_only()])
  body = re.sub(r'<!DOCTYPE html>|<meta[^>]*>|<br>', '', text)
  body = re.sub(r'(<img[^>]*)>', r'\1/>', body)
  xml.etree.ElementTree.fromstring(body)


def test_report_labels_paper_committed_and_not_run():
  text = report.render(fakes.timed_only(), [fakes.complete_run()])
  assert 'paper: MQA-XXL' in text
  assert 'Committed run: preset default, Testing CPU, 2 cores' in text
  assert 'quality_against_time: not run' in text
  assert 'Mean beats first beats random' in text


def test_write_leaves_report_and_figures(tmp_path):
  path = report.write(tmp_path / 'report.html', fakes.complete_run(), [])
  assert path.read_text().startswith('<!DOCTYPE html>')
  names = {p.name for p in (tmp_path / 'figures').iterdir()}
  assert names == {f'{name}.svg' for name in plots.FIGURES}
  assert not list(tmp_path.glob('*.tmp'))
