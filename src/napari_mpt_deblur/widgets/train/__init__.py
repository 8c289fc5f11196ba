"""The widget "Train"."""
