"""How arrays are computed fast: NumPy arrays in, NumPy arrays out, no layers."""
