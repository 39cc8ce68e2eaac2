"""Data: vocabularies, seqio data sources and tasks, metrics.

Importing `gqa_flax.data.tasks` registers the seqio tasks; importing this
package alone loads nothing heavy (the corpus builder's worker processes
rely on that).
"""
