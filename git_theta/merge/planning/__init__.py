"""What becomes of each tensor in a merge, decided from manifests alone."""
