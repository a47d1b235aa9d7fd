"""Recommenders that learn from what a language model writes about users and items."""
