"""The commands that do by hand what a stage does, for plans to show.

They write beside the study's output, to HAND/STAGE: a stage's own folder is
not for others to write in.
"""

from gqa_flax.measure import timing
from gqa_flax.study import experiments

HAND = 'HAND'  # Replaced by a folder when shown.


def convert(name: str, source: str, variant: experiments.Variant) -> str:
  return (
    f'gqa-flax convert {source} {HAND}/{name}'
    f' --num_kv_heads={variant.num_kv_heads}'
    f' --method={variant.method or "mean"} --dtype=float32'
  )


def benchmark(
  source: str, groups: list[int], shape: timing.Shape, rounds: int
) -> str:
  encode = shape.encode_batch_size
  return (
    f'gqa-flax benchmark --checkpoint={source} --num_kv_heads '
    + ' '.join(map(str, groups))
    + f' --batch_size={shape.batch_size} --input_length={shape.input_length}'
    f' --output_length={shape.output_length} --rounds={rounds}'
    + (f' --encode_batch_size={encode}' if encode else '')
  )


def uptrain(name: str, parent: str, task: str, steps: int) -> str:
  """steps: the step to stop at."""
  return (
    'gqa-flax train --gin_file=runs/local/uptrain_mini.gin'
    f' --checkpoint={HAND}/{parent} --steps={steps} --output={HAND}/{name}'
    f' --gin.MIXTURE_OR_TASK_NAME="\'{task}\'"'
  )


def finetune(
  name: str, parent: str, task: str, tuning: experiments.Finetuning, seed: int
) -> str:
  return (
    'gqa-flax finetune --gin_file=runs/local/linear_decay.gin'
    f' --checkpoint={HAND}/{parent} --task={task}'
    f' --steps={tuning.steps} --batch_size={tuning.batch_size}'
    f' --inputs_length={tuning.inputs} --targets_length={tuning.targets}'
    f' --output={HAND}/{name} --gin.LEARNING_RATE={tuning.learning_rate}'
    f' --gin.DROPOUT_RATE={tuning.dropout_rate} --gin.PACK={tuning.pack}'
    f' --gin.LOSS_NORMALIZING_FACTOR={tuning.loss_normalizing_factor}'
    f' --gin.CHECKPOINT_PERIOD={tuning.checkpoint_period}'
    f' --gin.KEEP_CHECKPOINTS=None --gin.RANDOM_SEED={seed}'
  )


def evaluate(
  name: str, parent: str, task: str, tuning: experiments.Finetuning
) -> str:
  return (
    f'gqa-flax evaluate --checkpoint={HAND}/{parent} --task={task}'
    f' --inputs_length={tuning.inputs} --targets_length={tuning.targets}'
    f' --predictions={HAND}/{name}.jsonl'
  )
