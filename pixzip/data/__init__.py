"""Folders and data sets → crops to train on."""
