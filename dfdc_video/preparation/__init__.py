"""Raw folder -> prepared folder: readers, cleaning, splits, the run over all videos, tables."""
