"""One job each, called by the command line."""
