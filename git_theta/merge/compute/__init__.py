"""Execution of a plan: tensors are decoded, merged and stored."""
