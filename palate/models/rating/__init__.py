"""Systems that say how a user would rate an item: a file a system."""
