"""`python -m dfdc_video` is `dfdc-video`."""

import sys

from dfdc_video.cli import main

if __name__ == "__main__":
    sys.exit(main())
