"""A bank's rows, from file or database to arrays."""
