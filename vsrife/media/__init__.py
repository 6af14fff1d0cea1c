"""Reading and writing of files for the command: videos, picture files, other streams. The filter does not need it."""
