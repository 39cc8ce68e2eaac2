"""Draws the figures of README.md from the committed records.

  python -m benchmarks.figures

Writes benchmarks/figures/{RUN}_{FIGURE}.svg for every run in
gqa_flax/study/records.
"""

import pathlib

from gqa_flax.study import plots
from gqa_flax.study import record

FOLDER = pathlib.Path(__file__).resolve().parent / 'figures'


def draw() -> dict[str, str]:
  """File name -> SVG of all that the committed runs have to show."""
  found = {}
  for path in sorted(record.COMMITTED.glob('*.json')):
    run = record.read_bundle(path)
    for name, (draw_figure, _) in plots.FIGURES.items():
      svg = draw_figure(run)
      if svg is not None:
        found[f'{path.stem}_{name}.svg'] = svg
  return found


if __name__ == '__main__':
  FOLDER.mkdir(exist_ok=True)
  for file, svg in draw().items():
    (FOLDER / file).write_text(svg, encoding='utf-8')
    print(FOLDER / file)
