"""The tables of a run, from its records.

A cell never run says so. The paper's numbers are in tables of their own,
labelled: other tasks, other sizes, other hardware.
"""

from collections.abc import Sequence
import dataclasses

from gqa_flax.measure import device
from gqa_flax.study import claims
from gqa_flax.study import experiments
from gqa_flax.study import paper
from gqa_flax.study import record as record_lib
from gqa_flax.study.table import ABSENT
from gqa_flax.study.table import NOT_RUN
from gqa_flax.study.table import Cell
from gqa_flax.study.table import Table

_MIDDLE = 2  # K/V heads of the table's GQA row.
_METRICS = tuple(experiments.METRIC_LABELS)


def label(method: str | None, num_kv_heads: int, num_heads: int) -> str:
  """'MHA (G = 8)', 'GQA-2', 'MQA (G = 1), first'."""
  if num_kv_heads == num_heads:
    name = f'MHA (G = {num_kv_heads})'
  elif num_kv_heads == 1:
    name = 'MQA (G = 1)'
  else:
    name = f'GQA-{num_kv_heads}'
  return name if method in (None, 'mean') else f'{name}, {method}'


def describe(run: record_lib.Run) -> str:
  """Preset, device, date and steps of a run, in a line."""
  first = run.first
  if first is None:
    return f'{run.name}: {NOT_RUN}'
  parts = [
    f'preset {first["preset"]}',
    device.label(first['device']),
    run.records[-1]['finished'],
    f'checkpoint at step {first["inputs"]["step"]}',
  ]
  uptrained = next(run.of_kind('uptrain'), None)
  if uptrained:
    last = uptrained['result']['curve'][-1]
    steps = last['step'] - uptrained['result']['initial_step']
    parts.append(f'uptrained {steps} steps (alpha {last["alpha"]:g})')
  tuned = next(run.of_kind('finetune'), None)
  if tuned:
    seeds = {r['result']['seed'] for r in run.of_kind('finetune')}
    parts.append(
      f'fine-tuned {tuned["result"]["steps"]} steps, {len(seeds)} '
      f'seed{"" if len(seeds) == 1 else "s"}'
    )
  return ', '.join(parts)


def table_1(run: record_lib.Run) -> Table:
  """Time and scores of each G, in the form of the paper's Table 1."""
  heads = run.num_heads or 8
  rows = [
    (
      label(method, g, heads),
      [_time_cell(run, method, g), *_score_cells(run.system(method, g, alpha))],
    )
    for method, g, alpha in _systems(run, heads)
  ]
  lead = (run.result('compare') or {}).get('lead')
  lead_metrics = experiments.SUMMARIZATION.metrics
  rows.append(
    (
      'copied lead',
      [Cell(ABSENT)]
      + [
        _interval(lead.get(m) if lead else None)
        if m in lead_metrics
        else Cell(ABSENT)
        for m in _METRICS
      ],
    )
  )
  return Table(
    f'Table 1 of this run ({describe(run)})',
    [
      ('model', ''),
      ('T_infer', 'ms/sample'),
      *((name, '') for name in experiments.METRIC_LABELS.values()),
    ],
    rows,
    _notes(run),
  )


def _systems(run, heads) -> list[tuple[str | None, int, float | None]]:
  """(method, G, alpha or None) of the rows: MHA, GQA, MQA and what else ran."""
  result = run.result('compare') or {'systems': ()}
  ran = [
    (s['method'], s['num_kv_heads'], s['alpha']) for s in result['systems']
  ]
  last = max((alpha for _, _, alpha in ran), default=None)
  wanted = [(None, heads)]
  wanted += [('mean', g) for g in (_MIDDLE, 1) if heads % g == 0 and g < heads]
  wanted += [(m, g) for m, g, alpha in ran if alpha == last]
  order = {None: 0, 'mean': 1, 'first': 2, 'random': 3}
  rows = sorted(set(wanted), key=lambda s: (order[s[0]], -s[1]))
  return [(m, g, last) for m, g in rows]


def _time_cell(run, method, num_kv_heads) -> Cell:
  times = run.times()
  if times is None or num_kv_heads not in times:
    return Cell(NOT_RUN)
  if method not in (None, 'mean'):
    return Cell(ABSENT)  # The same shapes as mean's: not timed again.
  found = times[num_kv_heads]['ms_per_sample']
  return Cell(
    f'{found["median"]:.3g}', f'[{found["q1"]:.3g}, {found["q3"]:.3g}]'
  )


def _score_cells(system) -> list[Cell]:
  found = system['metrics'] if system else {}
  return [_interval(found.get(metric)) for metric in _METRICS]


def _interval(found, signed: bool = False) -> Cell:
  if found is None:
    return Cell(NOT_RUN)
  form = '+.2f' if signed else '.2f'
  return Cell(
    format(found['value'], form),
    f'[{format(found["low"], form)}, {format(found["high"], form)}]',
  )


def _notes(run) -> list[str]:
  notes = []
  time = run.result('time')
  if time:
    shape = time['shapes'][0]
    rounds = next(iter(shape['models'].values()))['ms_per_sample']['n']
    notes.append(
      f'T_infer: encoding and decoding, batch {shape["batch_size"]}, input '
      f'{shape["input_length"]}, output {shape["output_length"]} tokens '
      f'(end-of-sequence ignored); median [quartiles] of {rounds} rounds.'
    )
  compare = run.result('compare')
  if compare:
    counts = {
      experiments.METRIC_LABELS[m]: s['n']
      for system in compare['systems'][:1]
      for m, s in system['metrics'].items()
    }
    told = ', '.join(f'{n} {m}' for m, n in counts.items())
    notes.append(
      f'Scores: dev examples, greedy; 95 % bootstrap intervals of '
      f'{compare["resamples"]} resamples. n: {told}.'
    )
    notes.append(
      'average: of ROUGE-1, BLEU and F1. BLEU: ' + compare['bleu_signature']
    )
  return notes


def differences(run: record_lib.Run) -> Table:
  """Paired differences against multi-head, and against the lead."""
  heads = run.num_heads or 8
  mha = run.system(None, heads)
  rows = []
  for method, g, alpha in _systems(run, heads):
    if method is None:
      continue
    system = run.system(method, g, alpha)
    found = None
    if system and mha:
      found = run.difference(system['system'], mha['system'])
    rows.append(
      (
        f'{label(method, g, heads)} - MHA',
        [_interval((found or {}).get(m), signed=True) for m in _METRICS],
      )
    )
  lead = (run.difference(mha['system'], 'lead') if mha else None) or {}
  rows.append(
    (
      'MHA - copied lead',
      [
        _interval(lead.get(m), signed=True)
        if m in experiments.SUMMARIZATION.metrics
        else Cell(ABSENT)
        for m in _METRICS
      ],
    )
  )
  return Table(
    'Differences on the same examples, with 95 % intervals (paired bootstrap)',
    [
      ('difference', ''),
      *((name, '') for name in experiments.METRIC_LABELS.values()),
    ],
    rows,
  )


def paper_table() -> Table:
  """Table 1 as the paper prints it."""
  return Table(
    f'paper: {paper.SOURCE} (T5 v1.1 Large and XXL, TPUv4; other tasks)',
    [
      ('model', ''),
      ('T_infer', 's/sample'),
      ('average', ''),
      *zip(paper.DATA_SETS, paper.METRICS),
    ],
    [
      (
        f'paper: {row.model}',
        [
          Cell(f'{row.seconds:.2f}'),
          Cell(f'{row.average:.1f}'),
          *(Cell(f'{score:.1f}') for score in row.scores),
        ],
      )
      for row in paper.TABLE_1
    ],
    ["The data sets are the paper's; only ratios and orders compare."],
  )


def beside_paper(run: record_lib.Run) -> Table:
  """What does compare: time and average against multi-head."""
  heads = run.num_heads or 8
  reference = paper.row('MHA-XXL')
  rows = []
  for g, name in ((_MIDDLE, 'GQA-8-XXL'), (1, 'MQA-XXL')):
    printed = paper.row(name)
    rows.append(
      (
        label(None if g == heads else 'mean', g, heads),
        [
          _time_ratio(run, g, heads),
          Cell(f'{printed.seconds / reference.seconds:.2f}', name),
          _average_difference(run, g, heads),
          Cell(f'{printed.average - reference.average:+.1f}', name),
        ],
      )
    )
  return Table(
    'Against multi-head: measured here, and in the paper',
    [
      ('model', ''),
      ('T_infer ratio', 'measured'),
      ('T_infer ratio', 'paper, derived'),
      ('average', 'measured'),
      ('average', 'paper, derived'),
    ],
    rows,
    [
      'derived: from the printed numbers of Table 1. GQA-8 of XXL keeps 8 of '
      '64 heads.'
    ],
  )


def _time_ratio(run, num_kv_heads, heads) -> Cell:
  times = run.times()
  if times is None or not {num_kv_heads, heads} <= set(times):
    return Cell(NOT_RUN)
  ratio = (
    times[num_kv_heads]['ms_per_sample']['median']
    / times[heads]['ms_per_sample']['median']
  )
  return Cell(f'{ratio:.2f}')


def _average_difference(run, num_kv_heads, heads) -> Cell:
  system = run.system('mean', num_kv_heads)
  mha = run.system(None, heads)
  if system is None or mha is None:
    return Cell(NOT_RUN)
  found = run.difference(system['system'], mha['system']) or {}
  return _interval(found.get('average'), signed=True)


def losses(run: record_lib.Run) -> Table:
  """Held-out loss by alpha."""
  curves = list(run.curves())
  alphas = sorted({row['alpha'] for _, _, c in curves for row in c})
  heads = run.num_heads or 8
  rows = []
  for method, g, curve in curves:
    found = {row['alpha']: row for row in curve}
    rows.append(
      (
        label(method, g, heads),
        [
          Cell(
            f'{found[a]["cross_entropy"]:.3f}',
            f'se {found[a]["standard_error"]:.3f}',
          )
          if a in found
          else Cell(NOT_RUN)
          for a in alphas
        ],
      )
    )
  return Table(
    'Held-out span-corruption loss, nats a token, by alpha',
    [('model', ''), *((f'alpha {a:g}', '') for a in alphas)],
    rows or [('any', [])],
    ['se: standard error over batches; all models see the same examples.'],
  )


def times(run: record_lib.Run, index: int = 0) -> Table:
  """Encoding and decoding apart, at one shape."""
  result = run.result('time')
  shape = result['shapes'][index]
  columns = (
    ('encode_ms_per_sample', 'encode', 'ms/sample'),
    ('decode_ms_per_sample', 'decode', 'ms/sample'),
    ('decode_ms_per_step', 'decode', 'ms/step'),
  )
  heads = run.num_heads or 8
  rows = []
  for g, found in sorted(run.times(index).items(), reverse=True):
    cells = [
      Cell(
        f'{found[c]["median"]:.3g}',
        f'[{found[c]["q1"]:.3g}, {found[c]["q3"]:.3g}]',
      )
      for c, _, _ in columns
    ]
    rows.append((label(None, g, heads), cells))
  return Table(
    f'Time at batch {shape["batch_size"]}, input {shape["input_length"]}, '
    f'output {shape["output_length"]} tokens',
    [('model', ''), *((name, unit) for _, name, unit in columns)],
    rows,
    ['median [quartiles]; models timed in turn within each round.'],
  )


def claim_table(run: record_lib.Run, *, all_claims: bool = True) -> Table:
  """What the paper claims and whether this run shows it.

  Args:
    run: its records.
    all_claims: those too that the run has nothing to say to.
  """
  return Table(
    'Claims of the paper, checked on this run',
    [('claim', ''), ('this run', ''), ('evidence', ''), ('paper', '')],
    [
      (c.text, [Cell(c.verdict), Cell(c.evidence), Cell(c.paper)])
      for c in claims.check(run)
      if all_claims or c.verdict != claims.NOT_RUN
    ],
  )


def stages(run: record_lib.Run) -> Table:
  """What ran, how long it took."""
  return Table(
    'Stages',
    [('stage', ''), ('seconds', ''), ('attempts', ''), ('found', '')],
    [
      (
        r['stage'],
        [
          Cell(f'{r["seconds"]:.1f}'),
          Cell(str(r['attempts'])),
          Cell(r['headline']),
        ],
      )
      for r in run.records
    ],
    ['seconds: of the last attempt; attempts: how often a stage was begun.'],
  )


def summary(run: record_lib.Run, others: Sequence[record_lib.Run]) -> str:
  """What a run prints at its end."""
  if run.losses_only:
    return losses(run).to_text()
  parts = [table_1(run), differences(run), losses(run)]
  for other in others:
    own = losses(other) if other.losses_only else table_1(other)
    parts.append(
      dataclasses.replace(own, title=f'committed: {describe(other)}')
    )
  parts += [paper_table(), beside_paper(run)]
  return '\n\n'.join(table.to_text() for table in parts)
