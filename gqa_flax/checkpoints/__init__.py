"""Checkpoints on disk: formats, conversion jobs, manifests, verification."""
