"""A table of cells: as aligned text, and as HTML."""

from collections.abc import Sequence
import dataclasses
import html

NOT_RUN = 'not run'
ABSENT = '-'  # Nothing to run: the cell has no meaning.


@dataclasses.dataclass(frozen=True)
class Cell:
  """A value, and below it its interval or what else qualifies it."""

  value: str
  detail: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of cells under a header.

  Attributes:
    title: one line.
    header: (name, unit or '') of each column, that of the labels first.
    rows: (label, cells).
    notes: below it.
  """

  title: str
  header: Sequence[tuple[str, str]]
  rows: Sequence[tuple[str, Sequence[Cell]]]
  notes: Sequence[str] = ()

  def to_text(self) -> str:
    """Columns aligned by spaces, details on lines of their own."""
    lines = [[name for name, _ in self.header]]
    if any(unit for _, unit in self.header):
      lines.append([unit for _, unit in self.header])
    for label, cells in self.rows:
      lines.append([label, *(cell.value for cell in cells)])
      if any(cell.detail for cell in cells):
        lines.append(['', *(cell.detail for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = [
      '  '.join(x.ljust(w) for x, w in zip(line, widths)).rstrip()
      for line in lines
    ]
    rule = '-' * max(map(len, text))
    head = 1 + any(unit for _, unit in self.header)
    return '\n'.join(
      [self.title, rule, *text[:head], rule, *text[head:], rule, *self.notes]
    )

  def to_html(self) -> str:
    escape = html.escape
    head = ''.join(
      f'<th>{escape(name)}<br><small>{escape(unit)}</small></th>'
      for name, unit in self.header
    )
    body = ''
    for label, cells in self.rows:
      body += f'<tr><th>{escape(label)}</th>'
      for cell in cells:
        kind = ' class="absent"' if cell.value in (NOT_RUN, ABSENT) else ''
        body += f'<td{kind}>{escape(cell.value)}'
        if cell.detail:
          body += f'<br><small>{escape(cell.detail)}</small>'
        body += '</td>'
      body += '</tr>\n'
    notes = ''.join(f'<p class="note">{escape(n)}</p>' for n in self.notes)
    return (
      f'<figure><figcaption>{escape(self.title)}</figcaption>'
      f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
      f'<tbody>{body}</tbody></table></div>{notes}</figure>'
    )
