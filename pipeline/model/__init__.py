"""Networks only: tensors in, tensors out, and the files that hold their weights."""
