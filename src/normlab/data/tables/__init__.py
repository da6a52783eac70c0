"""How tables are read and prepared."""
