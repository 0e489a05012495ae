"""What a node tells its operator: status, events, metrics."""
