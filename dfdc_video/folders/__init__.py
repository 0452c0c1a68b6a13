"""The owners of what lies on disk: nobody else knows a file name inside of their folders."""
