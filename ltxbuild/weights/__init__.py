"""Checkpoints in, shard files out: finding, checking, merging and splitting weights."""
