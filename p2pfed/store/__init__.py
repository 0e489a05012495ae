"""What survives a crash: state, keys, events."""
