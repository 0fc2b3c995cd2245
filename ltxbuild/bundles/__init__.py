"""Bundles as a whole: putting them together, writing them to files, taking parts from elsewhere."""
