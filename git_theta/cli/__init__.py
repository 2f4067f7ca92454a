"""The command line: the only place that prints. One verb per module."""
