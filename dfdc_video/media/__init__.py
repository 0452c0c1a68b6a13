"""Video files: read, and written whole or not at all. The only room that touches codecs."""
