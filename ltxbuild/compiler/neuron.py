"""Compile process, neuron: no compile step yet."""
