"""Many real daemons on one machine."""
