"""Claims put to the test: one fair sweep over the arms of all of them, and what is measured of its fresh runs."""
