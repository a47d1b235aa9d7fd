"""Recommenders that read what items say and nothing of who met them."""
