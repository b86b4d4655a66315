"""What is looked at. A probe changes nothing, and may be left behind by whoever waits for it."""
