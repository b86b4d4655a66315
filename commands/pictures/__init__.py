"""Pictures of the money on each runner, for the verbs that have `--plot`."""
