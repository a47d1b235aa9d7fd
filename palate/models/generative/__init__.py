"""Recommenders that write the name of what comes next."""
