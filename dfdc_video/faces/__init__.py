"""Video file -> faces -> tracks -> face videos."""
