"""The LTX-2.3 model family in JAX: one pure function and one parameter table per component."""
