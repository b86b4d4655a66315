"""Pictures of the money on each runner, for every verb that has `--plot`."""
