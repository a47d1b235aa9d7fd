"""Recommenders that put in order what another one has retrieved."""
