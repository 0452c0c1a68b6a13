"""dfdc_video: controlled experiments with spatiotemporal video classifiers, made for deepfake detection."""

__version__ = "0.1.0"
