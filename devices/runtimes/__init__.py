"""Inference runtimes: a file to run, and how to read what it prints."""
