"""The stages of a preset: what each does, what it needs, what identifies it.

A stage's key is a hash of its parameters, the corpus's content, the source
checkpoint's content and the keys of the stages it needs. A record with the
same key is the same result, so the stage is not run again.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
from typing import Any

from gqa_flax.study import commands
from gqa_flax.study import costs
from gqa_flax.study import experiments

# Raise when a change of code changes what stages find.
VERSION = 2


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a plan depends on besides its preset.

  Attributes:
    checkpoint: path of the source.
    checkpoint_hash: of its content.
    step: its step.
    num_heads: of its model.
    parameters: their number.
    corpus_hash: of the corpus's content.
    corpus_seconds: that it took to build just now; 0 where it was cached.
  """

  checkpoint: str
  checkpoint_hash: str
  step: int
  num_heads: int
  parameters: int
  corpus_hash: str
  corpus_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stage:
  """A job with one record as its output.

  Attributes:
    name: of its record and its folder.
    kind: which function of `jobs` runs it.
    what: a line for people.
    params: what the function is given, JSON.
    needs: names of earlier stages.
    key: identifies the result.
    estimate: seconds on two idle CPU cores, very roughly.
    command: the same by hand, where there is one.
  """

  name: str
  kind: str
  what: str
  params: Mapping[str, Any]
  needs: tuple[str, ...]
  key: str
  estimate: float
  command: str | None = None

  @property
  def root(self) -> str:
    """Of all it leaves besides its record, relative to the output."""
    return f'work/{self.name}/{self.key[:12]}'

  @property
  def folder(self) -> str:
    """Of checkpoints and predictions, relative to the output."""
    return f'{self.root}/files'


def make(preset: experiments.Preset, facts: Facts) -> list[Stage]:
  """The stages in the order they run."""
  builder = _Builder(preset, facts)
  builder.add_data()
  for variant in experiments.variants(preset, facts.num_heads):
    builder.add_conversion(variant)
  if preset.shapes:
    builder.add_timing()
  for variant in experiments.variants(preset, facts.num_heads):
    builder.add_uptraining(variant)
  if preset.finetuning is not None:
    builder.add_lead()
    for system in experiments.systems(preset, facts.num_heads):
      for seed in preset.finetuning.seeds:
        builder.add_finetuning(system, seed)
    builder.add_comparison()
  return list(builder.stages.values())


class _Builder:
  """Adds stages, each after those it needs."""

  def __init__(self, preset: experiments.Preset, facts: Facts):
    self.preset = preset
    self.facts = facts
    self.stages: dict[str, Stage] = {}

  def add(
    self,
    name: str,
    kind: str,
    what: str,
    params: Mapping[str, Any],
    needs: Sequence[str] = (),
    *,
    estimate: float,
    command: str | None = None,
  ) -> Stage:
    inputs = {
      'version': VERSION,
      'kind': kind,
      'params': params,
      'corpus': self.facts.corpus_hash,
      'checkpoint': self.facts.checkpoint_hash,
      'needs': [self.stages[need].key for need in needs],
    }
    text = json.dumps(inputs, sort_keys=True)
    stage = Stage(
      name=name,
      kind=kind,
      what=what,
      params=params,
      needs=tuple(needs),
      key=hashlib.sha256(text.encode()).hexdigest(),
      estimate=estimate,
      command=command,
    )
    self.stages[name] = stage
    return stage

  @property
  def _mixture(self) -> str:
    return experiments.FINETUNING_MIXTURE + self.preset.suffix

  def add_data(self):
    preset = self.preset
    self.add(
      'corpus',
      'corpus',
      f'documentation corpus ({preset.subset}) of the installed packages',
      {'subset': preset.subset},
      estimate=costs.CORPUS[preset.subset],
    )

  def add_lead(self):
    preset = self.preset
    self.add(
      'lead',
      'lead',
      'copy-the-lead baseline of summarization',
      {'subset': preset.subset, 'examples': preset.evaluation.examples},
      ['corpus'],
      estimate=5,
    )

  def add_conversion(self, variant: experiments.Variant):
    params = {
      'method': variant.method,
      'num_kv_heads': variant.num_kv_heads,
      'seed': 0,
    }
    name = f'convert-{variant.name}'
    self.add(
      name,
      'convert',
      'copy of the multi-head checkpoint (the control)'
      if variant.method is None
      else f'convert to G = {variant.num_kv_heads} by {variant.method}',
      params,
      estimate=2,
      command=commands.convert(name, self.facts.checkpoint, variant),
    )

  def add_timing(self):
    preset = self.preset
    method = preset.methods[0]
    timed = [
      v
      for v in experiments.variants(preset, self.facts.num_heads)
      if v.method in (None, method)
    ]
    groups = [v.num_kv_heads for v in timed]
    self.add(
      'time',
      'time',
      f'time encoding and decoding, {preset.rounds} rounds, G = '
      + ', '.join(map(str, groups)),
      {
        'shapes': [dataclasses.asdict(shape) for shape in preset.shapes],
        'rounds': preset.rounds,
        'groups': groups,
      },
      [f'convert-{v.name}' for v in timed],
      estimate=sum(
        len(timed) * costs.timing_seconds(shape, preset.rounds)
        for shape in preset.shapes
      ),
      command=commands.benchmark(
        self.facts.checkpoint, groups, preset.shapes[0], preset.rounds
      ),
    )

  def add_uptraining(self, variant: experiments.Variant):
    uptraining = self.preset.uptraining
    steps = uptraining.steps(self.facts.step)
    count = steps[uptraining.alphas[-1]] - self.facts.step
    name, parent = f'uptrain-{variant.name}', f'convert-{variant.name}'
    task = experiments.PRETRAINING_TASK + self.preset.suffix
    self.add(
      name,
      'uptrain',
      f'uptrain {variant.name} for {count} steps '
      f'(alpha {uptraining.alphas[-1]:g})',
      {
        'method': variant.method,
        'num_kv_heads': variant.num_kv_heads,
        'task': task,
        'step': self.facts.step,
        **_jsonable(uptraining),
      },
      ['corpus', parent],
      estimate=costs.training(
        count, uptraining.batch_size, uptraining.inputs + uptraining.targets
      )
      + costs.COMPILING * len(uptraining.alphas),
      command=commands.uptrain(name, parent, task, self.facts.step + count),
    )

  def add_finetuning(self, system: experiments.System, seed: int):
    name = f'{system.name}-s{seed}'
    self._add_finetune(system, seed, name)
    evaluation = self.preset.evaluation
    tuning = self.preset.finetuning
    params = {
      'system': system.name,
      'method': system.variant.method,
      'num_kv_heads': system.variant.num_kv_heads,
      'alpha': system.alpha,
      'seed': seed,
      'inputs': tuning.inputs,
      'targets': tuning.targets,
      'suffix': self.preset.suffix,
      'batch_size': evaluation.batch_size,
    }
    candidates = tuning.steps // tuning.checkpoint_period + 1
    self.add(
      f'select-{name}',
      'select',
      f'best checkpoint of {name} by {evaluation.select_examples} dev '
      'examples a task',
      {**params, 'examples': evaluation.select_examples},
      ['corpus', f'finetune-{name}'],
      estimate=costs.decoding(3 * candidates * evaluation.select_examples),
    )
    count = evaluation.examples
    self.add(
      f'evaluate-{name}',
      'evaluate',
      f'decode and score {name} on {count or "all"} dev examples a task',
      {**params, 'examples': count},
      ['corpus', f'finetune-{name}', f'select-{name}'],
      estimate=costs.decoding(3 * (count or costs.DEV_EXAMPLES)),
      command=commands.evaluate(
        f'evaluate-{name}', f'finetune-{name}', self._mixture, tuning
      ),
    )

  def _add_finetune(self, system: experiments.System, seed: int, name: str):
    tuning = self.preset.finetuning
    variant = system.variant
    parent = f'convert-{variant.name}'
    needs = ['corpus', parent]
    if system.alpha > 0:
      parent = f'uptrain-{variant.name}'
      needs = ['corpus', f'convert-{variant.name}', parent]
    step = self.preset.uptraining.steps(self.facts.step)[system.alpha]
    settings = _jsonable(tuning)
    del settings['seeds'], settings['alphas']
    self.add(
      f'finetune-{name}',
      'finetune',
      f'fine-tune {name} for {tuning.steps} steps',
      {
        'method': variant.method,
        'num_kv_heads': variant.num_kv_heads,
        'alpha': system.alpha,
        'first_step': step,
        'seed': seed,
        'task': self._mixture,
        **settings,
      },
      needs,
      estimate=costs.COMPILING
      + costs.training(
        tuning.steps, tuning.batch_size, tuning.inputs + tuning.targets
      ),
      command=commands.finetune(
        f'finetune-{name}', parent, self._mixture, tuning, seed
      ),
    )

  def add_comparison(self):
    preset = self.preset
    evaluations = [s.name for s in self.stages.values() if s.kind == 'evaluate']
    self.add(
      'compare',
      'compare',
      f'intervals, {preset.evaluation.resamples} bootstrap resamples',
      {'resamples': preset.evaluation.resamples},
      ['lead', *evaluations],
      estimate=2 * len(evaluations),
    )


def _jsonable(config) -> dict[str, Any]:
  """The fields of a dataclass, tuples as lists."""
  return json.loads(json.dumps(dataclasses.asdict(config)))
