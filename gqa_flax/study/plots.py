"""Figures from records, as SVG text. The paper's points are labelled as its own."""

import io

from matplotlib import figure as figure_lib
from matplotlib import rc_context

from gqa_flax.study import paper
from gqa_flax.study import record as record_lib
from gqa_flax.study import tables

# Okabe and Ito's palette, which the colour-blind can tell apart.
_METHOD_COLORS = {
  None: '#000000',
  'mean': '#0072B2',
  'first': '#D55E00',
  'random': '#009E73',
}
_LINES = {1: '-', 2: '--', 4: ':'}
_MARKERS = {1: 'o', 2: 's', 4: '^'}
_STYLE = {
  'font.size': 9,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'grid.color': '#DDDDDD',
  'grid.linewidth': 0.6,
  'legend.frameon': False,
  # The same records give the same file.
  'svg.hashsalt': 'gqa_flax',
  'svg.fonttype': 'path',
}


def _svg(figure: figure_lib.Figure) -> str:
  """The figure as SVG, without a date."""
  buffer = io.StringIO()
  figure.savefig(buffer, format='svg', metadata={'Date': None})
  return buffer.getvalue()


def _figure(columns: int = 1):
  figure = figure_lib.Figure(figsize=(4.6 * columns, 3.2), layout='constrained')
  return figure, figure.subplots(1, columns, squeeze=False)[0]


def quality_against_time(run: record_lib.Run) -> str | None:
  """Figure 3: average score against time a sample; the paper's beside it.

  None where nothing was timed or nothing scored.
  """
  times, compare = run.times(), run.result('compare')
  if not times or not compare:
    return None
  with rc_context(_STYLE):
    figure, (own, printed) = _figure(2)
    for system in compare['systems']:
      if system['num_kv_heads'] in times:
        _draw_system(own, run, system, times)
    own.set(
      title='this run (measured)',
      xlabel='ms per sample',
      ylabel='average of ROUGE-1, BLEU, F1',
    )
    own.margins(0.15)
    for row in paper.TABLE_1:
      printed.plot(row.seconds, row.average, 'o', color='#777777')
      printed.annotate(
        row.model,
        (row.seconds, row.average),
        xytext=(5, 4),
        textcoords='offset points',
      )
    printed.set(
      title='paper (Figure 3 and Table 1; TPUv4)',
      xlabel='s per sample',
      ylabel='average of 7 data sets',
    )
    printed.margins(0.2)
    return _svg(figure)


def _draw_system(axes, run, system, times) -> None:
  method, g = system['method'], system['num_kv_heads']
  time = times[g]['ms_per_sample']
  score = system['metrics']['average']
  color = _METHOD_COLORS[method]
  axes.errorbar(
    time['median'],
    score['value'],
    xerr=[[time['median'] - time['q1']], [time['q3'] - time['median']]],
    yerr=[[score['value'] - score['low']], [score['high'] - score['value']]],
    fmt=_MARKERS.get(g, 'D'),
    color=color,
    elinewidth=0.8,
    capsize=2,
  )
  name = tables.label(method, g, run.num_heads)
  axes.annotate(
    f'{name}, α {system["alpha"]:g}',
    (time['median'], score['value']),
    xytext=(5, 4),
    textcoords='offset points',
    color=color,
    fontsize=8,
  )


def loss_against_alpha(run: record_lib.Run) -> str | None:
  """Figures 4 and 5 in kind: held-out loss by method and G.

  None where nothing was uptrained.
  """
  curves = list(run.curves())
  if not curves:
    return None
  with rc_context(_STYLE):
    figure, (axes,) = _figure()
    for method, g, curve in curves:
      axes.errorbar(
        [100 * row['alpha'] for row in curve],
        [row['cross_entropy'] for row in curve],
        yerr=[row['standard_error'] for row in curve],
        color=_METHOD_COLORS[method],
        linestyle=_LINES.get(g, '-'),
        marker=_MARKERS.get(g, 'D'),
        markersize=4,
        elinewidth=0.8,
        label=tables.label(method, g, run.num_heads),
      )
    axes.set(
      xlabel='α: uptraining, % of the pre-training steps',
      ylabel='held-out loss (nats per token)',
    )
    axes.legend(fontsize=8)
    return _svg(figure)


def time_against_groups(run: record_lib.Run) -> str | None:
  """Figure 6 in kind: a decoding step against G. None where not timed."""
  result = run.result('time')
  if not result:
    return None
  with rc_context(_STYLE):
    figure, (axes,) = _figure()
    for i, shape in enumerate(result['shapes']):
      times = sorted(run.times(i).items())
      found = [measured['decode_ms_per_step'] for _, measured in times]
      axes.errorbar(
        [g for g, _ in times],
        [f['median'] for f in found],
        yerr=[
          [f['median'] - f['q1'] for f in found],
          [f['q3'] - f['median'] for f in found],
        ],
        marker=('o', 's', '^', 'D')[i % 4],
        color=('#0072B2', '#D55E00', '#009E73', '#CC79A7')[i % 4],
        elinewidth=0.8,
        capsize=2,
        label=f'batch {shape["batch_size"]}, input {shape["input_length"]}, '
        f'output {shape["output_length"]}',
      )
    groups = sorted(run.times())
    axes.set_xscale('log', base=2)
    axes.set_xticks(groups, [str(g) for g in groups])
    axes.set_ylim(bottom=0)
    axes.set(xlabel='G: key/value heads', ylabel='decoding, ms per step')
    axes.legend(fontsize=8)
    return _svg(figure)


# File name -> (function, caption).
FIGURES = {
  'quality_against_time': (
    quality_against_time,
    'Average score against time per sample, with 95 % intervals and '
    'quartiles. Left: measured in this run. Right: the points the paper '
    'prints, of other models, tasks and hardware.',
  ),
  'loss_against_alpha': (
    loss_against_alpha,
    'Held-out loss of the original objective against uptraining, by method '
    'and G, with standard errors. Multi-head is trained on as far.',
  ),
  'time_against_groups': (
    time_against_groups,
    'Time of a decoding step against the number of key/value heads: median '
    'and quartiles.',
  ),
}
