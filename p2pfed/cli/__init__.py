"""The command line: one module a noun, one table of commands."""
