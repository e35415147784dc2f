"""Where a run's numbers and pictures are shown: one file per service, found by its name in `log.trackers`."""
