"""Torch pieces that two or more systems share. They know tensors only: no ids, no datasets, no files."""
