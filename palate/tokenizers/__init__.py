"""Names for items: a file a method."""
