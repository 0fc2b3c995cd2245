"""Command line of the builder, one module per group of commands."""
