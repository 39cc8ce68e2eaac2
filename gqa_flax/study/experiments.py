"""The paper's experiments at mini scale, as data.

A preset says what is converted, trained, evaluated and timed; `plan` makes the
list of stages out of it. Step counts and sizes are changed here, nowhere else.
Section numbers are the paper's.
"""

from collections.abc import Mapping
import dataclasses

from gqa_flax.errors import UserError
from gqa_flax.measure import timing


@dataclasses.dataclass(frozen=True)
class Task:
  """A fine-tuning task.

  Attributes:
    name: of the seqio task, without the suffix of the corpus's small part.
    label: what tables say.
    main: the metric that counts in the average, as in the paper.
    metrics: all, in the tables' order.
  """

  name: str
  label: str
  main: str
  metrics: tuple[str, ...]


TASKS = (
  Task(
    'gqa_flax_docs_summarization',
    'summarization',
    'rouge1',
    ('rouge1', 'rouge2', 'rougeLsum'),
  ),
  Task('gqa_flax_messages_en_de', 'translation', 'bleu', ('bleu',)),
  Task(
    'gqa_flax_docs_question_answering',
    'question answering',
    'f1',
    ('f1', 'em'),
  ),
)
SUMMARIZATION = TASKS[0]
PRETRAINING_TASK = 'gqa_flax_docs_span_corruption'
FINETUNING_MIXTURE = 'gqa_flax_mini_finetune'
METRIC_LABELS = {
  'average': 'average',
  'rouge1': 'ROUGE-1',
  'rouge2': 'ROUGE-2',
  'rougeLsum': 'ROUGE-Lsum',
  'bleu': 'BLEU',
  'f1': 'F1',
  'em': 'EM',
}
METHODS = ('mean', 'first', 'random')


@dataclasses.dataclass(frozen=True)
class Uptraining:
  """The pre-training recipe, carried on (section 3.1).

  The values are those of gin/runs/local/pretrain_mini.gin (tested); alphas
  are fractions of the checkpoint's own steps. One run is read at each.
  """

  alphas: tuple[float, ...]
  batch_size: int = 32
  inputs: int = 128
  targets: int = 29
  scale: float = 0.6
  decay_from: int = 400
  warmup_steps: int = 100
  z_loss: float = 1e-4
  loss_normalizing_factor: float | None = 928
  seed: int = 0
  checkpoint_period: int = 60
  eval_batches: int | None = None

  def __post_init__(self):
    if list(self.alphas) != sorted(set(self.alphas)) or min(self.alphas) < 0:
      raise UserError(
        f'alphas ({self.alphas}) must ascend from 0 or more, each once.'
      )

  def steps(self, initial_step: int) -> dict[float, int]:
    """alpha -> the step at which it is reached."""
    return {
      alpha: initial_step + max(round(alpha * initial_step), int(alpha > 0))
      for alpha in self.alphas
    }


@dataclasses.dataclass(frozen=True)
class Finetuning:
  """One mixture of the three tasks, from the uptrained checkpoint.

  The paper fine-tunes to convergence: constant rate 1e-3, batch 128, dropout
  0.1, best dev checkpoint. A laptop has time for some hundred updates, no
  example twice: the rate is higher and falls to 0, and there is no dropout.

  Attributes:
    steps: updates.
    batch_size: rows.
    inputs: tokens of an input; longer ones are cut.
    targets: tokens of a target, and of what is decoded.
    pack: puts several short examples into a row.
    learning_rate: of the first update; it falls linearly to 0.
    dropout_rate: of training.
    loss_normalizing_factor: as in pre-training, whose second moments carry
      its square; None for the batch's count of tokens.
    checkpoint_period: updates between the checkpoints to choose from.
    seeds: one run each.
    alphas: uptrained so far, mean-pooled; None for the last alpha alone. The
      other methods are fine-tuned at the last alpha.
  """

  steps: int
  batch_size: int = 8
  inputs: int = 192
  targets: int = 48
  pack: bool = True
  learning_rate: float = 0.01
  dropout_rate: float = 0.0
  z_loss: float = 1e-4
  loss_normalizing_factor: float | None = None
  checkpoint_period: int = 100
  seeds: tuple[int, ...] = (0,)
  alphas: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """How fine-tuned models are chosen and scored.

  Attributes:
    select_examples: the first so many dev examples of each task, by which the
      best checkpoint is chosen.
    examples: the first so many dev examples of each task, scored; None all.
    batch_size: of decoding.
    resamples: of the bootstrap.
  """

  select_examples: int = 96
  examples: int | None = None
  batch_size: int = 32
  resamples: int = 1000


@dataclasses.dataclass(frozen=True)
class Preset:
  """A whole study.

  Attributes:
    name: a key of PRESETS.
    subset: part of the corpus, 'full' or 'small'.
    groups: numbers of K/V heads besides multi-head, which is the control and
      always there.
    methods: of conversion.
    uptraining: see there.
    finetuning: see there; None leaves fine-tuning and scores out.
    evaluation: see there.
    shapes: what is timed, the first being Table 1's T_infer; may be empty.
    rounds: of timing.
  """

  name: str
  subset: str
  groups: tuple[int, ...]
  methods: tuple[str, ...]
  uptraining: Uptraining
  finetuning: Finetuning | None = None
  evaluation: Evaluation = Evaluation()
  shapes: tuple[timing.Shape, ...] = ()
  rounds: int = 5

  def __post_init__(self):
    unknown = set(self.methods) - set(METHODS)
    if unknown or not self.methods:
      raise UserError(
        f'methods ({self.methods}) must be some of {", ".join(METHODS)}.'
      )
    wanted = (self.finetuning and self.finetuning.alphas) or ()
    extra = set(wanted) - set(self.uptraining.alphas)
    if extra:
      raise UserError(
        f"fine-tuning's alphas {sorted(extra)} must be among uptraining's "
        f'{self.uptraining.alphas}.'
      )

  @property
  def suffix(self) -> str:
    """Of the tasks on this part of the corpus."""
    return '' if self.subset == 'full' else f'_{self.subset}'

  def task(self, task: Task) -> str:
    return task.name + self.suffix


@dataclasses.dataclass(frozen=True)
class Variant:
  """A way to convert: method and number of K/V heads.

  The control, multi-head, has no method.
  """

  method: str | None
  num_kv_heads: int

  @property
  def name(self) -> str:
    if self.method is None:
      return 'mha'
    return f'{self.method}-g{self.num_kv_heads}'


@dataclasses.dataclass(frozen=True)
class System:
  """What is fine-tuned and scored: a variant, uptrained by alpha."""

  variant: Variant
  alpha: float

  @property
  def name(self) -> str:
    return f'{self.variant.name}-a{self.alpha:g}'


def variants(preset: Preset, num_heads: int) -> list[Variant]:
  """The control first, then each method by falling G."""
  groups = sorted(set(preset.groups) - {num_heads}, reverse=True)
  for g in groups:
    if g < 1 or num_heads % g:
      raise UserError(
        f'preset {preset.name} asks for {g} K/V heads, which do not divide '
        f"the checkpoint's {num_heads}."
      )
  converted = [Variant(m, g) for m in preset.methods for g in groups]
  return [Variant(None, num_heads), *converted]


def systems(preset: Preset, num_heads: int) -> list[System]:
  """What is fine-tuned, in the order of the tables."""
  if preset.finetuning is None:
    return []
  last = preset.uptraining.alphas[-1]
  alphas = preset.finetuning.alphas or (last,)
  first_method = preset.methods[0]
  return [
    System(variant, alpha)
    for variant in variants(preset, num_heads)
    for alpha in (alphas if variant.method in (None, first_method) else (last,))
  ]


QUICK = Preset(
  name='quick',
  subset='small',
  groups=(1,),
  methods=('mean',),
  uptraining=Uptraining(alphas=(0.0, 0.002), eval_batches=4),
  finetuning=Finetuning(steps=30, checkpoint_period=20),
  evaluation=Evaluation(select_examples=16, examples=48, resamples=200),
  shapes=(timing.Shape(8, 128, 32),),
  rounds=5,
)

DEFAULT = Preset(
  name='default',
  subset='full',
  groups=(2, 1),
  methods=('mean',),
  uptraining=Uptraining(alphas=(0.0, 0.01), eval_batches=20),
  finetuning=Finetuning(steps=650, checkpoint_period=400),
  evaluation=Evaluation(select_examples=48, examples=576),
  shapes=(timing.Shape(16, 512, 64), timing.Shape(8, 2048, 64, 4)),
  rounds=5,
)

FULL = Preset(
  name='full',
  subset='full',
  groups=(4, 2, 1),
  methods=METHODS,
  uptraining=Uptraining(alphas=(0.0, 0.01, 0.02, 0.05)),
  finetuning=Finetuning(steps=1000, seeds=(0, 1, 2), alphas=(0.0, 0.05)),
  evaluation=Evaluation(resamples=2000),
  shapes=(
    timing.Shape(16, 512, 64),
    timing.Shape(16, 2048, 64, 4),
    timing.Shape(1, 512, 64),
  ),
  rounds=20,
)

# What a conversion costs before any uptraining: held-out losses alone.
CONVERSION = Preset(
  name='conversion',
  subset='full',
  groups=(2, 1),
  methods=METHODS,
  uptraining=Uptraining(alphas=(0.0,)),
)

PRESETS: Mapping[str, Preset] = {
  p.name: p for p in (QUICK, DEFAULT, FULL, CONVERSION)
}


def find_preset(name: str) -> Preset:
  """A preset by name."""
  if name not in PRESETS:
    raise UserError(f'preset ({name!r}) must be one of {", ".join(PRESETS)}.')
  return PRESETS[name]
