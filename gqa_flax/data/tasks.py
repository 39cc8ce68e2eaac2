"""Registers the seqio tasks, by being imported.

Names: gqa_flax_docs_span_corruption, gqa_flax_docs_summarization,
gqa_flax_docs_question_answering, gqa_flax_messages_en_de, and the mixture
gqa_flax_mini_finetune of the last three. Each has a twin whose name ends in
_small, on the corpus's small part (for quick runs; a file that it holds out is
held out of the full one too). Splits: train, validation.
"""

import functools

import seqio

from gqa_flax import paths
from gqa_flax.data import documentation
from gqa_flax.data import metrics
from gqa_flax.data import pretraining
from gqa_flax.data import question_answering
from gqa_flax.data import summarization
from gqa_flax.data import translation
from gqa_flax.data import vocabularies

# What to do with each set of records: (preprocessor, postprocessor, metric).
# `local` registers users' files by the same table.
KINDS = {
  'summarization': (summarization.preprocess, None, metrics.rouge),
  'question_answering': (
    question_answering.preprocess,
    question_answering.postprocess,
    metrics.answer_scores,
  ),
  'translation': (translation.preprocess, None, metrics.bleu),
}


def features(vocabulary: seqio.Vocabulary) -> dict[str, seqio.Feature]:
  """Inputs and targets of one vocabulary, both ended by </s>."""
  feature = seqio.Feature(vocabulary, add_eos=True)
  return {'inputs': feature, 'targets': feature}


def add_finetuning_task(
  name: str,
  kind: str,
  source: seqio.DataSource,
  vocabulary: seqio.Vocabulary,
  **preprocessor_kwargs,
) -> seqio.Task:
  """Registers a task of one of KINDS on a source of its records."""
  preprocess, postprocess, metric = KINDS[kind]
  return seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[
      functools.partial(preprocess, **preprocessor_kwargs),
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=postprocess,
    metric_fns=[metric],
    output_features=features(vocabulary),
  )


def _register(subset: str, suffix: str):
  # Not vocabularies.load: a task can be registered before its file is there.
  vocabulary = seqio.SentencePieceVocabulary(
    str(paths.mini_vocabulary_path()), vocabularies.NUM_SENTINELS
  )
  source = documentation.DocumentationDataSource
  seqio.TaskRegistry.add(
    f'gqa_flax_docs_span_corruption{suffix}',
    source=source('documents', subset),
    preprocessors=[
      functools.partial(seqio.preprocessors.rekey, key_map={'targets': 'text'}),
      seqio.preprocessors.tokenize,
      pretraining.span_corruption,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features=features(vocabulary),
    metric_fns=[],
  )
  names = {
    f'gqa_flax_docs_summarization{suffix}': 'summarization',
    f'gqa_flax_docs_question_answering{suffix}': 'question_answering',
    f'gqa_flax_messages_en_de{suffix}': 'translation',
  }
  for name, kind in names.items():
    add_finetuning_task(name, kind, source(kind, subset), vocabulary)
  # Equal shares: the three count equally in the tables' averages; in proportion
  # to size the smallest (translation, 16 %), whose language is new to the
  # pre-trained model, would starve; and with five summaries to an answer the
  # summaries were no better, the answers, which teach to copy, being missed.
  seqio.MixtureRegistry.add(
    f'gqa_flax_mini_finetune{suffix}', [(name, 1.0) for name in names]
  )


_register('full', '')
_register('small', '_small')
