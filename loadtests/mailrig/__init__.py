"""The rig: brings the service up, loads it, breaks it, watches it and judges the run."""
