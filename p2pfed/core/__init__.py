"""The protocol, pure: numpy, libsodium and standard-library values; no I/O, clock or global randomness."""
