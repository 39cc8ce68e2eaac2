"""Registers the seqio tasks, by being imported.

Names: gqa_flax_docs_span_corruption, gqa_flax_docs_summarization,
gqa_flax_docs_question_answering, gqa_flax_messages_en_de, and the mixture
gqa_flax_mini_finetune of the last three. Each has a twin whose name ends in
_small, on the corpus's small part (for quick runs; its validation examples
are in no training record of the full one either). Splits: train, validation.
"""

import functools

import seqio

from gqa_flax.data import documentation
from gqa_flax.data import pretraining
from gqa_flax.data import vocabularies


def _features() -> dict[str, seqio.Feature]:
  vocabulary = seqio.SentencePieceVocabulary(
    str(vocabularies.paths.mini_vocabulary_path()),
    extra_ids=vocabularies.NUM_SENTINELS,
  )
  feature = seqio.Feature(vocabulary, add_eos=True)
  return {'inputs': feature, 'targets': feature}


def _register(subset: str, suffix: str):
  seqio.TaskRegistry.add(
    f'gqa_flax_docs_span_corruption{suffix}',
    source=documentation.DocumentationDataSource('documents', subset),
    preprocessors=[
      functools.partial(seqio.preprocessors.rekey, key_map={'targets': 'text'}),
      seqio.preprocessors.tokenize,
      pretraining.span_corruption,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features=_features(),
    metric_fns=[],
    # Segments of one document follow one another: mix many documents.
    shuffle_buffer_size=20_000,
  )


_register('full', '')
_register('small', '_small')
