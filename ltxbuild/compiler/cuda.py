"""Compile process, cuda: no compile step yet."""
