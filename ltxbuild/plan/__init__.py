"""What a build needs, without jax: pipelines to programs, placements, keys, hits and misses."""
