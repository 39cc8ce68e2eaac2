"""What a stage's function is given, and what it gives back."""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

from gqa_flax.study import plan
from gqa_flax.study import record as record_lib


@dataclasses.dataclass(frozen=True)
class Job:
  """A stage about to run.

  Attributes:
    stage: which.
    output: folder of the run.
    facts: what the plan was made of.
    stages: all stages of the plan, by name.
    needs: name -> record of the stages it needs.
  """

  stage: plan.Stage
  output: pathlib.Path
  facts: plan.Facts
  stages: Mapping[str, plan.Stage]
  needs: Mapping[str, record_lib.Record]

  @property
  def params(self) -> Mapping[str, Any]:
    return self.stage.params

  @property
  def folder(self) -> pathlib.Path:
    """For the stage's files; not made yet."""
    return self.output / self.stage.folder

  def needed(self, kind: str) -> list[str]:
    """Names of the stages of a kind that this one needs, in their order."""
    return [n for n in self.stage.needs if self.stages[n].kind == kind]

  def folder_of(self, name: str) -> pathlib.Path:
    """Files of another stage."""
    return self.output / self.stages[name].folder

  def partial(self, name: str, compute: Callable[[], Any]) -> Any:
    """A part of the result, computed once however often the stage is begun."""
    path = self.output / self.stage.root / 'parts' / f'{name}.json'
    found = record_lib.read_json(path)
    if found is None:
      found = compute()
      record_lib.write_json(path, found)
    return found


@dataclasses.dataclass(frozen=True)
class Done:
  """What a stage found.

  Attributes:
    result: JSON.
    headline: the same in a line, for the terminal.
    outputs: what later stages read, relative to the output folder.
    extra_seconds: spent on the stage before it was begun.
  """

  result: Any
  headline: str
  outputs: tuple[str, ...] = ()
  extra_seconds: float = 0.0
