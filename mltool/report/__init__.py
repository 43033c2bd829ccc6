"""A run told in one self-contained HTML page, and the pictures of a scan."""
