"""Measures a data set, and reports it as a text and a picture."""
