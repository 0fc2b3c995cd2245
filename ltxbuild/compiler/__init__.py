"""Lowering and compiling programs, in processes of their own."""
