"""The trunk's decoder and encoder in torch, many blocks side by side."""
