"""Tables: the cells of a file, what its columns hold, and where they are kept."""
