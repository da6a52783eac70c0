"""The processes of a run: who is there, and how they reach each other. Nothing here knows a norm."""
