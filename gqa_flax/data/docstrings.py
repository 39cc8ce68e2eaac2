"""Documentation strings of Python files, read with `ast`, never imported.

Run as a program (`python -m gqa_flax.data.docstrings`) it is a worker: file
paths on standard input, one JSON line for each on standard output. That
keeps `corpus` independent of how its own process was started (fork, a
notebook, a script on standard input), which multiprocessing is not.
"""

import ast
from collections.abc import Iterator, Sequence
import concurrent.futures
import inspect
import json
import os
import subprocess
import sys
import warnings

_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# (qualified name inside the file, '' for the module; cleaned docstring)
Docstring = tuple[str, str]


def extract(source: bytes) -> list[Docstring] | None:
  """Docstrings of a module, in the order of the source.

  Args:
    source: content of a Python file, in whatever encoding it declares.

  Returns:
    (qualified name, docstring cleaned by inspect.cleandoc) of the module, its
    classes and its functions; None if the file is not valid Python.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # invalid escapes in others' code
      module = ast.parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None
  found = []
  _visit(module, '', found)
  return found


def _visit(node: ast.AST, name: str, found: list[Docstring]):
  if isinstance(node, (ast.Module, *_DEFINITIONS)):
    text = ast.get_docstring(node, clean=False)
    if text and text.strip():
      # Lone surrogates, legal in a string literal, have no UTF-8.
      text = text.encode('utf-8', 'replace').decode('utf-8')
      found.append((name, inspect.cleandoc(text).strip()))
  for child in ast.iter_child_nodes(node):
    if isinstance(child, _DEFINITIONS):
      _visit(child, f'{name}.{child.name}' if name else child.name, found)
    elif isinstance(child, ast.stmt):
      _visit(child, name, found)  # definitions under `if`, `try`, `with`


def extract_topics(source: bytes) -> list[Docstring]:
  """(topic, text) of the dictionary literal in pydoc_data/topics.py."""
  for node in ast.parse(source).body:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
      topics = ast.literal_eval(node.value)
      return [(k, inspect.cleandoc(v).strip()) for k, v in topics.items()]
  return []


def extract_files(
  paths: Sequence[str], num_workers: int = 1
) -> Iterator[list[Docstring] | None]:
  """Yields `extract` of each file in order, from worker processes.

  Args:
    paths: files to read.
    num_workers: processes; with 1 or fewer the work is done in this one.
  """
  if num_workers <= 1:
    yield from map(_extract_file, paths)
    return
  chunks = [paths[i : i + 200] for i in range(0, len(paths), 200)]
  with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
    for found in pool.map(_run_worker, chunks):
      yield from found


def _extract_file(path: str) -> list[Docstring] | None:
  try:
    with open(path, 'rb') as f:
      return extract(f.read())
  except OSError:
    return None


def _run_worker(paths: Sequence[str]) -> list[list[Docstring] | None]:
  root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
  inherited = os.environ.get('PYTHONPATH')
  path = os.pathsep.join([root, inherited] if inherited else [root])
  done = subprocess.run(
    [sys.executable, '-m', 'gqa_flax.data.docstrings'],
    input=json.dumps(list(paths)),
    stdout=subprocess.PIPE,
    text=True,
    encoding='utf-8',
    env={**os.environ, 'PYTHONPATH': path, 'PYTHONUTF8': '1'},
    check=True,
  )
  return [json.loads(line) for line in done.stdout.splitlines()]


def main():
  for path in json.load(sys.stdin):
    print(json.dumps(_extract_file(path)))


if __name__ == '__main__':
  main()
