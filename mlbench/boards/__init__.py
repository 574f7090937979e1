"""From records to rows, and from rows to a terminal, Markdown, CSV and pages."""
