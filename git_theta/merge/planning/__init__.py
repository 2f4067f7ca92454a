"""Planning of a merge: an action for each tensor, decided from manifests alone."""
