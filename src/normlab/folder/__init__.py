"""The run folder: where it lies, what it holds, and whether a command may go on in it."""
