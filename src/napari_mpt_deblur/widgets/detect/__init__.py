"""The widget "Detect nuclei"."""
