"""Recommenders, a file a system; folders only for finding."""
