"""Random checkpoints in the official layout, and the configurations that come with the package."""
