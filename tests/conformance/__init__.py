"""A package, so that its test files may have the names of those one folder up."""
