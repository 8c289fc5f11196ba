"""The command line: argument parsing and progress bars around the same engine that the viewer uses."""
