"""Compiler-artifact build system for LTX-2.3: recipes and checkpoints in, runnable bundles out."""

__version__ = "0.1.0"
