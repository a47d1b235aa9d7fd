"""Doors for programs: a run over HTTP."""
