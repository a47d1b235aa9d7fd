"""Recommenders that learn from who met what, without order and without text."""
