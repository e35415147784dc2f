"""What the sources for anybody's own data share: file patterns, sensors from the configuration, cubes, stacking."""
