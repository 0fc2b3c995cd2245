"""Slim runtime for LTX-2.3 bundles: loads prebuilt programs one after another and writes video with sound."""

__version__ = "0.1.0"
