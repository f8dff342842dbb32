"""Builds feature caches with an encoder, in one process or several."""
