"""English to German pairs from gettext message catalogues (.po, .mo)."""

import re

# %s, %(name)d, %1$s, {}, {name!r:>10}, ${name}, HTML entities and tags.
_PLACEHOLDER = re.compile(
  r'%(\(\w+\))?[-+ #0-9.$]*[a-zA-Z%]|\$?\{[^{}]*\}|&\w+;|<[^<>]*>'
)
_WORD = re.compile(r'[^\W\d_]{2,}')
_MAX_CHARACTERS = 600


def read_catalogue(path: str) -> list[tuple[str, str]]:
  """(English, German) of the translated messages of a catalogue, cleaned.

  Doubtful (fuzzy) and obsolete entries are left out; of a message with
  plural forms, singular and plural each make a pair.

  Raises:
    OSError: if the file cannot be read as a catalogue.
  """
  import polib  # Only to build the corpus (the extra `corpus`).

  open_file = polib.mofile if path.endswith('.mo') else polib.pofile
  pairs = []
  for entry in open_file(path):
    if getattr(entry, 'obsolete', False) or getattr(entry, 'fuzzy', False):
      continue
    if entry.msgid_plural:
      forms = {int(k): v for k, v in entry.msgstr_plural.items()}
      pairs.append((entry.msgid, forms.get(0, '')))
      pairs.append((entry.msgid_plural, forms.get(1, '')))
    else:
      pairs.append((entry.msgid, entry.msgstr))
  return [_clean(english, german) for english, german in pairs]


def _clean(english: str, german: str) -> tuple[str, str]:
  """Joins lines, and takes out a menu's underlined letter ('_File')."""
  english, german = ' '.join(english.split()), ' '.join(german.split())
  if english.count('_') == 1 == german.count('_') and len(english) <= 40:
    english, german = english.replace('_', ''), german.replace('_', '')
  return english, german


def is_translation(english: str, german: str) -> bool:
  """Whether the pair is worth learning: words on both sides, which differ.

  The English needs two words that are not format specifications, the German
  one (many compounds are one word).
  """
  if not german or english == german:
    return False
  if max(len(english), len(german)) > _MAX_CHARACTERS:
    return False
  if ' ' not in english:  # a key ('label_file_name'), not a text
    return False
  if len(_words(english)) < 2 or not _words(german):
    return False
  longer = max(len(english), len(german))
  return longer <= 20 or longer <= 3 * min(len(english), len(german))


def _words(text: str) -> list[str]:
  return _WORD.findall(_PLACEHOLDER.sub(' ', text))
