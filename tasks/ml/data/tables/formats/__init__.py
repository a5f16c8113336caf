"""Files of each format that holds a table, as streams of rows; compressed text, folders of parts, and addresses."""
