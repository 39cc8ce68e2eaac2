"""Cells: values with intervals; 'not run' where nothing was measured."""

import pytest

from gqa_flax.study import record
from gqa_flax.study import report
from gqa_flax.study import table
from gqa_flax.study import tables
from tests.study import fakes


def _row(found, label):
  return next(cells for name, cells in found.rows if name == label)


def test_table_1_shows_values_with_their_intervals():
  found = tables.table_1(fakes.complete_run())
  labels = [label for label, _ in found.rows]
  assert labels[:3] == ['MHA (G = 8)', 'GQA-2', 'MQA (G = 1)']
  assert labels[-1] == 'copied lead'
  mha = _row(found, 'MHA (G = 8)')
  assert mha[0] == table.Cell('5', '[4.9, 5.15]')
  assert mha[1] == table.Cell('27.62', '[27.12, 28.12]')
  lead = _row(found, 'copied lead')
  assert lead[2].value == '20.00'
  assert [cell.value for cell in lead[5:]] == [table.ABSENT] * 3
  assert 'batch 16, input 512, output 64' in ' '.join(found.notes)
  assert '500 BLEU' in ' '.join(found.notes)


def test_cells_never_run_say_so():
  found = tables.table_1(fakes.timed_only())
  for label in ('MHA (G = 8)', 'GQA-2', 'MQA (G = 1)'):
    time, *scores = _row(found, label)
    assert time.value != table.NOT_RUN
    assert {cell.value for cell in scores} == {table.NOT_RUN}


def test_a_run_without_a_g_shows_its_row_as_not_run():
  run = record.Run(
    'quick',
    (
      fakes.time_record([(8, 4.0), (1, 2.0)]),
      fakes.compare_record({(None, 8): 20.0, ('mean', 1): 19.0}, {}),
    ),
  )
  cells = _row(tables.table_1(run), 'GQA-2')
  assert {cell.value for cell in cells} == {table.NOT_RUN}
  beside = _row(tables.beside_paper(run), 'GQA-2')
  assert [cell.value for cell in beside] == [
    'not run',
    '0.19',
    'not run',
    '-0.1',
  ]


def test_tables_of_no_records_can_be_made():
  empty = record.Run('default', ())
  text = tables.summary(empty, [])
  assert table.NOT_RUN in text
  assert 'paper: MHA-XXL' in text


def test_differences_are_signed_and_against_multi_head():
  found = tables.differences(fakes.complete_run())
  assert _row(found, 'GQA-2 - MHA')[0] == table.Cell('-0.10', '[-0.50, +0.30]')
  assert _row(found, 'MHA - copied lead')[1].value == '+5.00'


def test_the_paper_stands_beside_its_ratios_labelled():
  found = tables.beside_paper(fakes.complete_run())
  assert _row(found, 'MQA (G = 1)')[:2] == [
    table.Cell('0.60'),
    table.Cell('0.16', 'MQA-XXL'),
  ]
  assert 'paper, derived' in found.to_text()


def test_text_columns_are_aligned():
  text = tables.losses(fakes.complete_run()).to_text()
  header = next(x for x in text.splitlines() if 'alpha 0.05' in x)
  mha = next(x for x in text.splitlines() if x.startswith('MHA'))
  assert mha.index('2.400') == header.index('alpha 0 ')
  assert mha.index('2.380') == header.index('alpha 0.05')


def test_html_escapes_what_records_say():
  found = tables.stages(fakes.complete_run()).to_html()
  assert '&lt;done&gt;' in found
  assert '<done>' not in found


@pytest.mark.parametrize(
  'method, g, expected',
  [
    (None, 8, 'MHA (G = 8)'),
    ('mean', 4, 'GQA-4'),
    ('first', 1, 'MQA (G = 1), first'),
  ],
)
def test_label(method, g, expected):
  assert tables.label(method, g, 8) == expected


def test_committed_runs_stand_beside_marked():
  text = tables.summary(fakes.timed_only(), [fakes.complete_run()])
  assert 'committed: preset default, Testing CPU, 2 cores, 2026-01-02' in text


def test_run_of_losses_alone_shows_them():
  curves = tuple(fakes.complete_run().of_kind('uptrain'))
  run = record.Run('conversion', curves)
  assert tables.summary(run, []) == tables.losses(run).to_text()
  beside = tables.summary(fakes.complete_run(), [run])
  assert tables.losses(run).to_text().split('\n', 1)[1] in beside
  text = report.render(run)
  assert 'Held-out span-corruption loss' in text
  assert 'T_infer' not in text.split('<h2>The paper</h2>')[0]
