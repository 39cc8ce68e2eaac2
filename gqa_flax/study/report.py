"""One HTML file that shows a run: figures, tables, the paper, what holds.

It refers to nothing outside itself.
"""

import base64
from collections.abc import Sequence
import html
import pathlib

import gqa_flax
from gqa_flax.measure import device
from gqa_flax.study import plots
from gqa_flax.study import record as record_lib
from gqa_flax.study import table
from gqa_flax.study import tables

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem;
  border-bottom: 1px solid #ccc; }
figure { margin: 1.5rem 0; } figcaption { font-weight: 600; margin: .3rem 0; }
.plot figcaption { font-weight: 400; color: #444; max-width: 46rem; }
img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid #e4e4e4; font-variant-numeric: tabular-nums; }
tbody th { font-weight: 500; } small { color: #555; }
.absent { color: #999; } .note { color: #555; font-size: .85rem; margin: .2rem 0; }
.holds { color: #006b3c; } .not { color: #a40000; }
"""


def write(
  path: pathlib.Path, run: record_lib.Run, others: Sequence[record_lib.Run]
) -> pathlib.Path:
  """Writes the report, and the figures of the run beside it.

  Args:
    path: of the HTML file.
    run: shown first.
    others: committed runs, shown after it.
  """
  folder = path.parent / 'figures'
  folder.mkdir(parents=True, exist_ok=True)
  for name, (draw, _) in plots.FIGURES.items():
    svg = draw(run)
    if svg is not None:
      (folder / f'{name}.svg').write_text(svg, encoding='utf-8')
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(render(run, others), encoding='utf-8')
  temporary.replace(path)
  return path


def render(run: record_lib.Run, others: Sequence[record_lib.Run] = ()) -> str:
  """The HTML text."""
  sections = [
    _summary(run),
    *_run_section(run, 'This run'),
    '<h2>The paper</h2>',
    tables.paper_table().to_html(),
  ]
  for other in others:
    title = f'Committed run: {tables.describe(other)}'
    sections += _run_section(other, title)
  sections += ['<h2>What ran</h2>', tables.stages(run).to_html(), _setting(run)]
  body = '\n'.join(sections)
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>GQA, reproduced: {html.escape(run.name)}</title>'
    f'<style>{_STYLE}</style></head>\n<body>\n'
    '<h1>GQA: from a multi-head checkpoint to grouped queries</h1>\n'
    f'{body}\n</body></html>\n'
  )


def _summary(run: record_lib.Run) -> str:
  return (
    '<p>A pre-trained multi-head T5 was converted to fewer key/value heads, '
    'uptrained on its original objective, fine-tuned, decoded, scored and '
    'timed, after Ainslie et al. 2023 (arXiv 2305.13245). All numbers below '
    'come from the records of this run, unless they are labelled '
    '<em>paper</em> or <em>committed</em>; what was not run says so.</p>'
    f'<p><strong>{html.escape(tables.describe(run))}</strong></p>'
  )


def _run_section(run: record_lib.Run, title: str) -> list[str]:
  parts = [f'<h2>{html.escape(title)}</h2>']
  if run.losses_only:
    draw, caption = plots.FIGURES['loss_against_alpha']
    return parts + [
      _figure(draw(run), caption, 'loss_against_alpha'),
      tables.losses(run).to_html(),
      tables.claim_table(run, all_claims=False).to_html(),
    ]
  parts.append(tables.table_1(run).to_html())
  parts.append(tables.beside_paper(run).to_html())
  parts += [
    _figure(draw(run), caption, name)
    for name, (draw, caption) in plots.FIGURES.items()
  ]
  parts.append(tables.claim_table(run).to_html())
  parts.append(tables.differences(run).to_html())
  parts.append(tables.losses(run).to_html())
  shapes = (run.result('time') or {'shapes': ()})['shapes']
  parts += [tables.times(run, i).to_html() for i in range(len(shapes))]
  return parts


def _figure(svg: str | None, caption: str, name: str) -> str:
  """An image inlined as data, so that nothing is loaded."""
  if svg is None:
    return f'<p class="absent">{html.escape(name)}: {table.NOT_RUN}</p>'
  data = base64.b64encode(svg.encode()).decode()
  text = html.escape(caption)
  return (
    f'<figure class="plot"><img alt="{text}" '
    f'src="data:image/svg+xml;base64,{data}">'
    f'<figcaption>{text}</figcaption></figure>'
  )


def _setting(run: record_lib.Run) -> str:
  """Where, with what, on which data."""
  first = run.first
  if first is None:
    return ''
  inputs = first['inputs']
  versions = ', '.join(f'{k} {v}' for k, v in sorted(first['versions'].items()))
  peak = max(r['peak_memory_bytes'] for r in run.records) / 1e9
  lines = [
    f'device: {device.label(first["device"])} ({first["device"]["system"]})',
    f'checkpoint: sha256 {inputs["checkpoint"]}, step {inputs["step"]}, '
    f'{inputs["parameters"] / 1e6:.1f} M parameters',
    f'corpus: sha256 {inputs["corpus"]}',
    f'time of all stages: {run.seconds / 60:.1f} min; peak memory: '
    f'{peak:.1f} GB',
    f'versions: {versions}; report by gqa_flax {gqa_flax.__version__}',
  ]
  items = ''.join(f'<li>{html.escape(line)}</li>' for line in lines)
  return f'<ul>{items}</ul>'
