"""Models and their training; the one package that imports TensorFlow."""
