"""Tables of words about events and users: records that say who wrote them."""
