"""Recommenders that let embeddings flow along the graph of who met what."""
