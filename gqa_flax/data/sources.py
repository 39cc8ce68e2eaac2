"""What the documentation corpus is read from: installed packages.

The corpus holds text that is on the machine already: documentation strings
of installed distributions and of Python's standard library, and English to
German message catalogues that distributions ship. Nothing is downloaded and
nothing is imported: files are found through importlib.metadata's file lists
and sysconfig's path of the standard library. The lists below are fixed, so
the same versions give the same corpus.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import sysconfig

from gqa_flax.errors import UserError

# Raise when a change of code changes the records of the same installation.
BUILDER_VERSION = 2

# Distributions read for their docstrings. The first group are dependencies
# of this package anyway; the second are installed for their documentation
# alone (each has more than a million characters of English prose).
DOCUMENTATION = (
  'Django',
  'absl-py',
  'array_record',
  'attrs',
  'clu',
  'etils',
  'flax',
  'fonttools',
  'fsspec',
  'gin-config',
  'grpcio',
  'h5py',
  'humanize',
  'jax',
  'jaxlib',
  'joblib',
  'keras',
  'matplotlib',
  'ml_collections',
  'nltk',
  'numpy',
  'optax',
  'optree',
  'orbax-checkpoint',
  'pillow',
  'polib',
  'protobuf',
  'pyarrow',
  'pyglove',
  'pyparsing',
  'python-dateutil',
  'rich',
  'sacrebleu',
  'scipy',
  'seqio',
  'tensorflow',
  'tensorflow-datasets',
  'tensorflow-text',
  'tensorstore',
  'treescope',
  # For their documentation alone:
  'SQLAlchemy',  # long narrative docstrings, Sphinx fields
  'networkx',  # graph algorithms, NumPy style
  'pandas',  # NumPy style, many parameters
  'scikit-learn',  # NumPy style, many parameters
  'statsmodels',  # NumPy style, statistics
  'sympy',  # mathematics, long explanations
)

# Distributions read for their German message catalogues (.po, .mo).
MESSAGES = (
  'Django',  # forms, validation, administration
  'pycountry',  # names of languages, countries, scripts, currencies
  'humanize',
  'django-allauth',  # sign-up and e-mail
  'django-localflavor',  # names of states and regions, validation
  'djangorestframework',
  'Trac',  # bug tracker; its configuration's documentation
  'jupyterlab-language-pack-de-DE',
  'plone.app.locales',  # content management
  'gramps',  # genealogy; the largest, whole sentences
  'mercurial',  # version control; paragraphs of its manual
)

# Top-level names of the standard library: pure Python, in every build of
# Python 3.11 and later (so no tkinter, no test suite, nothing removed).
STANDARD_LIBRARY = (
  '__future__ _collections_abc _pydatetime _pydecimal _pyio _pylong _strptime '
  '_threading_local abc argparse ast asyncio base64 bdb bisect bz2 calendar '
  'cmd code codecs codeop collections colorsys compileall concurrent '
  'configparser contextlib contextvars copy copyreg csv ctypes curses '
  'dataclasses datetime dbm decimal difflib dis doctest email encodings enum '
  'filecmp fileinput fnmatch fractions ftplib functools genericpath getopt '
  'getpass gettext glob graphlib gzip hashlib heapq hmac html http imaplib '
  'importlib inspect io ipaddress json keyword linecache locale logging lzma '
  'mailbox mimetypes modulefinder multiprocessing netrc ntpath numbers opcode '
  'operator optparse os pathlib pdb pickle pickletools pkgutil platform '
  'plistlib poplib posixpath pprint profile pstats pty py_compile pyclbr '
  'pydoc queue quopri random re reprlib rlcompleter runpy sched secrets '
  'selectors shelve shlex shutil signal site smtplib socket socketserver '
  'sqlite3 ssl stat statistics string stringprep struct subprocess symtable '
  'sysconfig tabnanny tarfile tempfile textwrap this threading timeit token '
  'tokenize tomllib trace traceback tracemalloc tty turtle types typing '
  'unittest urllib uuid venv warnings wave weakref webbrowser wsgiref xml '
  'xmlrpc zipapp zipfile zipimport zoneinfo'
).split()

# The fixed small part: quick to read, enough examples of every task.
_SMALL_DOCUMENTATION = ('flax', 'matplotlib', 'networkx', 'optax')
_SMALL_MESSAGES = ('Django', 'pycountry', 'gramps')
_DOCUMENTATION_OF = {'full': DOCUMENTATION, 'small': _SMALL_DOCUMENTATION}
_MESSAGES_OF = {'full': MESSAGES, 'small': _SMALL_MESSAGES}
SUBSETS = tuple(_DOCUMENTATION_OF)


@dataclasses.dataclass(frozen=True, order=True)
class SourceFile:
  """A file to read.

  Attributes:
    name: 'distribution:path inside it', the same on every machine; decides
      the split.
    path: where it lies on this machine.
  """

  name: str
  path: str


def _distribution(name: str) -> importlib.metadata.Distribution:
  try:
    return importlib.metadata.distribution(name)
  except importlib.metadata.PackageNotFoundError:
    raise UserError(
      f'The corpus is read from the installed distribution {name}, which is '
      f'missing: run `pip install {name}` (tested versions: constraints.txt).'
    ) from None


def _check_subset(subset: str):
  if subset not in SUBSETS:
    raise ValueError(f'subset ({subset!r}) must be one of {SUBSETS}.')


def documentation_files(subset: str = 'full') -> list[SourceFile]:
  """Python files whose docstrings make up the corpus, sorted by name."""
  _check_subset(subset)
  files = set()
  for name in _DOCUMENTATION_OF[subset]:
    for file in _distribution(name).files or ():
      if file.suffix == '.py':
        path = file.locate()
        if path.is_file():
          files.add(SourceFile(f'{name}:{file.as_posix()}', str(path)))
  files.update(_standard_library_files())
  return sorted(files)


def _standard_library_files() -> list[SourceFile]:
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  found = []
  for name in STANDARD_LIBRARY:
    package = root / name
    paths = package.rglob('*.py') if package.is_dir() else ()
    for path in [*paths, root / f'{name}.py']:
      relative = path.relative_to(root)
      if path.is_file() and not _is_excluded(relative):
        found.append(SourceFile(f'python:{relative.as_posix()}', str(path)))
  return found


def _is_excluded(relative: pathlib.PurePath) -> bool:
  return bool({'test', 'tests', 'site-packages'} & set(relative.parts))


def topics_file() -> SourceFile | None:
  """pydoc's help topics (the language reference), None where not shipped."""
  path = pathlib.Path(sysconfig.get_path('stdlib')) / 'pydoc_data/topics.py'
  if not path.is_file():
    return None
  return SourceFile('python:pydoc_data/topics.py', str(path))


def catalogue_files(subset: str = 'full') -> list[SourceFile]:
  """German message catalogues, in the order of MESSAGES, then by name.

  Of a catalogue shipped both as text (.po) and compiled (.mo), the compiled
  one is read: it holds what users see, without doubtful entries.
  """
  _check_subset(subset)
  files = []
  for name in _MESSAGES_OF[subset]:
    found = {}
    for file in _distribution(name).files or ():
      german = {'de', 'de_DE'} & set(file.parts)
      if german and file.suffix in ('.po', '.mo') and file.locate().is_file():
        found.setdefault(file.with_suffix('').as_posix(), set()).add(file)
    for key in sorted(found):
      file = min(found[key], key=lambda f: f.suffix)  # .mo before .po
      files.append(SourceFile(f'{name}:{file.as_posix()}', str(file.locate())))
  return files


def description(subset: str = 'full') -> dict:
  """All that decides the corpus's content, as JSON-able values."""
  _check_subset(subset)
  names = {*_DOCUMENTATION_OF[subset], *_MESSAGES_OF[subset]}
  return {
    'builder_version': BUILDER_VERSION,
    'subset': subset,
    'python': platform.python_version(),
    'distributions': {n: _distribution(n).version for n in sorted(names)},
    'documentation': list(_DOCUMENTATION_OF[subset]),
    'messages': list(_MESSAGES_OF[subset]),
    'standard_library': list(STANDARD_LIBRARY),
  }


def key(subset: str = 'full') -> str:
  """Hash of `description`: 16 hexadecimal digits."""
  text = json.dumps(description(subset), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
