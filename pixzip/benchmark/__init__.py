"""`pixzip bench`: pictures, models and other codecs → bits, bytes and seconds, in tables and plots."""
