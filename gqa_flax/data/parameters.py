"""Parameter descriptions in docstrings: NumPy, Google and Sphinx styles.

A small parser of our own: docstring_parser needs the style and the type
fields told apart before it reads, and takes minutes on the whole corpus; on
well-formed docstrings the two agree (see the test).
"""

import dataclasses
import re

_NUMPY_HEADER = re.compile(r'(Other )?Parameters\s*$')
_GOOGLE_HEADER = re.compile(r'(Args|Arguments|Parameters|Keyword Args):\s*$')
_GOOGLE_ITEM = re.compile(r'\*{0,2}`{0,2}([A-Za-z_]\w*)`{0,2}(?: ?\([^)]*\))?:')
_NUMPY_ITEM = re.compile(r'\*{0,2}`{0,2}([A-Za-z_]\w*)`{0,2}( ?:.*)?$')
_SPHINX_ITEM = re.compile(r':param(?: [^:]*?)? ?\\?\*{0,2}([A-Za-z_]\w*):')


@dataclasses.dataclass(frozen=True)
class Parameter:
  """A documented parameter.

  Attributes:
    name: without stars or quotes.
    description: its first paragraph, lines joined by spaces.
    first_line, end_line: its range of lines in the docstring.
  """

  name: str
  description: str
  first_line: int
  end_line: int


def parse(docstring: str) -> list[Parameter]:
  """Parameters described in a cleaned docstring, in order."""
  lines = docstring.splitlines()
  found = []
  for i, line in enumerate(lines):
    underlined = i + 1 < len(lines) and re.match(r'\s*---+\s*$', lines[i + 1])
    if underlined and _NUMPY_HEADER.match(line.strip()):
      found += _numpy_section(lines, i + 2, _indent(line))
    elif _GOOGLE_HEADER.match(line.strip()):
      found += _google_section(lines, i + 1, _indent(line))
    elif match := _SPHINX_ITEM.match(line.strip()):
      end = _end_of_block(lines, i + 1, _indent(line) + 1)
      first = line.strip()[match.end() :]
      found.append(_parameter(match[1], first, lines, i, end))
  return [p for p in found if p.description]


def _numpy_section(lines, start, indent) -> list[Parameter]:
  """Items at the header's indentation, descriptions deeper."""
  found, i = [], start
  while i < len(lines):
    if not lines[i].strip():
      i += 1
      continue
    match = _NUMPY_ITEM.match(lines[i].strip())
    underlined = i + 1 < len(lines) and lines[i + 1].strip().startswith('---')
    if _indent(lines[i]) != indent or underlined or not match:
      break
    end = _end_of_block(lines, i + 1, indent + 1)
    found.append(_parameter(match[1], '', lines, i, end))
    i = end
  return found


def _google_section(lines, start, indent) -> list[Parameter]:
  """Items deeper than the header, continuations deeper than their item."""
  found, i, item_indent = [], start, None
  while i < len(lines):
    if not lines[i].strip():
      i += 1
      continue
    item_indent = item_indent or _indent(lines[i])
    match = _GOOGLE_ITEM.match(lines[i].strip())
    if _indent(lines[i]) <= indent or _indent(lines[i]) != item_indent:
      break
    if not match:
      break
    end = _end_of_block(lines, i + 1, item_indent + 1)
    first = lines[i].strip()[match.end() :]
    found.append(_parameter(match[1], first, lines, i, end))
    i = end
  return found


def _end_of_block(lines, start, indent) -> int:
  """First line after `start` that is indented less than `indent`."""
  end = start
  for i in range(start, len(lines)):
    if lines[i].strip():
      if _indent(lines[i]) < indent:
        break
      end = i + 1
  return end


def _parameter(name, first, lines, start, end) -> Parameter:
  words = first.split()
  for line in lines[start + 1 : end]:
    if not line.strip() and words:
      break
    words += line.split()
  return Parameter(name, ' '.join(words), start, end)


def _indent(line: str) -> int:
  return len(line) - len(line.lstrip())
