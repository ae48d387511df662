"""Losses, by the names that option files call them."""
