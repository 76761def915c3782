"""Self-contained web pages: templates, styles and scripts, and what puts them together."""
