"""Packaging. Why each dependency is here stands beside it."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
  r"__version__ = '(.+)'", (ROOT / 'gqa_flax' / '__init__.py').read_text()
).group(1)

# Tested ranges; constraints.txt holds the exact versions that CI runs.
CORE = [
  'jax>=0.10,<0.11',  # arrays, compilation, sharding
  'flax>=0.12,<0.13',  # modules (flax.linen)
  'optax>=0.2.8,<0.3',  # Adafactor
  'orbax-checkpoint>=0.12,<0.13',  # checkpoints, as T5X writes them
  'tensorstore>=0.1.80,<0.2',  # their arrays, one at a time
  'safetensors>=0.7,<0.9',  # checkpoints of transformers
  'etils[epath]>=1.15,<2',  # paths, local or gs://
  'numpy>=2,<3',
  'seqio>=0.0.20,<0.1',  # tasks, mixtures, vocabularies
  'tensorflow>=2.21,<2.22',  # seqio's pipelines
  'tensorflow-datasets>=4.9.10,<5',  # data sets
  'tensorflow-text>=2.21,<2.22',  # SentencePiece inside those pipelines
  'sentencepiece>=0.2,<0.3',  # vocabularies
  'gin-config>=0.5,<0.6',  # configuration, as T5X
  'absl-py>=2.3,<3',  # logging
  'rouge-score>=0.1.2,<0.2',  # ROUGE
  'sacrebleu>=2.6,<3',  # BLEU
  'scipy>=1.17,<2',  # bootstrap intervals
  'matplotlib>=3.10,<4',  # figures
  'tensorboardX>=2.6,<3',  # training metrics
  'tqdm>=4.67,<5',  # progress bars
]

# Text that the mini model is trained on (gqa_flax/data/sources.py); read,
# never imported. docs: docstrings; messages: English-German catalogues.
DOCS = [
  'SQLAlchemy==2.1.9',
  'networkx==3.6.1',
  'pandas==3.1.1',
  'scikit-learn==1.9.1',
  'statsmodels==0.15.0',
  'sympy==1.14.0',
]
MESSAGES = [
  'Django==5.2.19',
  'Trac==1.6',
  'django-allauth==65.21.1',
  'django-localflavor==5.1',
  'djangorestframework==3.18.3',
  'gramps==6.0.8',
  'humanize==4.17.0',
  'jupyterlab-language-pack-de-DE==4.5.post3',
  'mercurial==7.2.4',
  'plone.app.locales==7.0.4',
  'pycountry==26.2.16',
]
CORPUS = [*DOCS, *MESSAGES, 'polib>=1.2,<2']  # polib reads the catalogues

TEST = [
  'pytest>=9,<10',
  'pytest-xdist>=3.6,<4',  # the suite on every core
  'ruff>=0.15,<1',
]

setuptools.setup(
  name='gqa_flax',
  version=VERSION,
  description='Grouped-query attention for T5: convert, uptrain, measure',
  long_description=(ROOT / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=[
    *setuptools.find_packages(include=['gqa_flax', 'gqa_flax.*']),
    # The gin files of the top-level folder are installed inside the
    # package (gqa_flax.paths.gin_dir); never as a module named `gin`.
    'gqa_flax.gin',
  ],
  package_dir={'gqa_flax.gin': 'gin'},
  package_data={
    'gqa_flax.gin': ['**/*.gin'],
    'gqa_flax': ['mini/**', 'mini/**/.*', 'study/records/*.json'],
  },
  install_requires=CORE,
  extras_require={
    'corpus': CORPUS,
    'test': [*TEST, *CORPUS],
    'oracles': ['torch==2.13.0', 'transformers>=5,<6'],
  },
  entry_points={'console_scripts': ['gqa-flax = gqa_flax.cli.main:main']},
)
