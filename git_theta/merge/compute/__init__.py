"""A plan carried out: tensors decoded, merged and stored."""
