"""What is refused unless the caller allows it: the limits of every command and function that takes others' files."""

#: Pixels of all pictures of a file together, by its header.
MAX_PIXELS = 64_000_000
#: Multiply-accumulates of a model (pixzip/work.py): about an hour on two cores, of which 64,000,000 pixels in tiles of
#: 1024 take a tenth with the default model.
MAX_WORK = 10**15
