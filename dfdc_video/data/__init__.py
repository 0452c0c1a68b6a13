"""Face videos -> clips -> batches."""
