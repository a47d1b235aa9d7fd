"""Recommenders that read a history in order."""
