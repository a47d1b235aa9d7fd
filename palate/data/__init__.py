"""From files to a ``Dataset``: loaders, guessed schemas, the own folder format, splits, and the built-in world."""
