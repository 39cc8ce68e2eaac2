"""Examples of the tasks made from one docstring, and the text they share.

Pure functions of strings. Thresholds are in characters and words; they were
set by reading samples.
"""

import hashlib
import re

from gqa_flax.data import parameters

# A paragraph shorter than this (letters and digits only) is a heading or a
# set phrase ('Returns', 'See also'): it may occur anywhere, any number of
# times.
_MIN_KEYED = 40
_MAX_BODY = 1500
_MAX_CONTEXT = 1200
_MAX_QUESTIONS = 4  # of one docstring, so that long ones do not dominate

_CODE = re.compile(r'>>>|::|==|\||https?:|\\|\{|@|#')
_SENTENCE_END = re.compile(r'(?<=[.!?])["\')\]]?\s+(?=["\'(\[`*]?[A-Z])')


def paragraphs(text: str) -> list[str]:
  """Parts of a text that blank lines separate."""
  return [p for p in re.split(r'\n[ \t]*\n\s*?(?=\S|[ \t])', text) if p.strip()]


def first_sentence(text: str) -> str:
  """The text up to its first sentence end that a capital follows."""
  return _SENTENCE_END.split(text.strip(), maxsplit=1)[0].strip()


def normalized(text: str) -> str:
  """Letters and digits alone, in lower case: what near-duplicates share."""
  return re.sub(r'[\W_]+', '', text.lower())


def paragraph_key(paragraph: str) -> bytes | None:
  """Identity of a paragraph up to case, space and punctuation.

  None for one too short to be anyone's in particular.
  """
  letters = normalized(paragraph)
  return text_hash(letters) if len(letters) >= _MIN_KEYED else None


def text_hash(text: str) -> bytes:
  """A 64-bit hash, the same in every process."""
  return hashlib.blake2b(text.encode(), digest_size=8).digest()


def is_mostly_letters(text: str, share: float = 0.5) -> bool:
  """False for tables of numbers, drawings, and rows of symbols."""
  visible = ''.join(text.split())
  letters = sum(c.isalpha() for c in visible)
  return letters >= share * len(visible) > 0


def summarization(docstring: str) -> dict[str, str] | None:
  """The summary line to be told from the description below it.

  Returns:
    {'inputs': description, 'targets': summary line}, or None where the first
    paragraph is not one English sentence of 4 to 30 words, or the rest is
    too short (100 characters, or twice the summary).
  """
  summary, *rest = paragraphs(docstring)
  if not rest or summary.count('\n') > 2:
    return None
  summary = ' '.join(summary.split())
  body = _join_up_to(rest, _MAX_BODY)
  if not _is_sentence(summary) or not is_mostly_letters(body, 0.6):
    return None
  if len(body) < max(100, 2 * len(summary)):
    return None
  if normalized(summary) in normalized(body):
    return None
  return {'inputs': body, 'targets': summary}


def _is_sentence(text: str) -> bool:
  return (
    4 <= len(text.split()) <= 30
    and text[0].isupper()
    and text.endswith('.')
    and not text.endswith('..')
    and len(_SENTENCE_END.split(text)) == 1
    and not _CODE.search(text)
    and is_mostly_letters(text, 0.85)
  )


def _join_up_to(parts: list[str], limit: int) -> str:
  """The first parts that fit together; the first one cut if it does not."""
  text = parts[0]
  for part in parts[1:]:
    if len(text) + 2 + len(part) > limit:
      break
    text += '\n\n' + part
  return text if len(text) <= limit else text[:limit].rsplit(None, 1)[0]


def question_answering(name: str, docstring: str) -> list[dict]:
  """Questions about parameters that the docstring answers.

  Args:
    name: qualified name of what the docstring documents.
    docstring: cleaned.

  Returns:
    {'question', 'context', 'answers'}: the first answer is the first
    sentence of the parameter's description (2 to 40 words); the whole
    description, if it is as short, is a second.
  """
  function = '.'.join(name.split('.')[-2:])
  if function.endswith('.__init__'):
    function = function.removesuffix('.__init__')
  described = []
  for parameter in parameters.parse(docstring):
    answers = _answers(parameter.description)
    if answers:
      described.append((parameter, answers))
  described = sorted(described, key=lambda d: text_hash(f'{name} {d[0].name}'))[
    :_MAX_QUESTIONS
  ]
  return [
    {
      'question': f'what is parameter {parameter.name} of {function}?',
      'context': _context(docstring, parameter),
      'answers': answers,
    }
    for parameter, answers in described
    if function
  ]


def _answers(description: str) -> list[str]:
  candidates = dict.fromkeys([first_sentence(description), description])
  return [
    c
    for c in candidates
    if not c.endswith(':')  # a list follows
    and 2 <= len(c.split()) <= 40
    and is_mostly_letters(c, 0.75)
  ]


def _context(docstring: str, parameter: parameters.Parameter) -> str:
  """The docstring, or as much of it around the parameter as is allowed."""
  if len(docstring) <= _MAX_CONTEXT:
    return docstring
  lines = docstring.splitlines()
  start, end = parameter.first_line, parameter.end_line
  size = sum(len(line) + 1 for line in lines[start:end])
  while True:
    before = len(lines[start - 1]) + 1 if start > 0 else _MAX_CONTEXT
    after = len(lines[end]) + 1 if end < len(lines) else _MAX_CONTEXT
    if min(before, after) + size > _MAX_CONTEXT:
      return '\n'.join(lines[start:end])[:_MAX_CONTEXT]
    if before <= after:
      start, size = start - 1, size + before
    else:
      end, size = end + 1, size + after
