"""Compile process, tpu: no compile step yet."""
