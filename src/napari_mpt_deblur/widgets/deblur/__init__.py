"""The widget "Deblur"."""
