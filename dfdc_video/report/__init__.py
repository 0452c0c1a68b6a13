"""Tables, pictures and one HTML page."""
