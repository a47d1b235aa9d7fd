"""Systems of two transformers: one reads an item's text, the other the items of a user."""
