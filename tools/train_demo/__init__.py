"""Training of the demo model: see docs/training.md."""
