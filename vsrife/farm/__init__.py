"""One video on many machines: the segments of a run become tasks of a Ray cluster. Nothing else imports Ray."""
